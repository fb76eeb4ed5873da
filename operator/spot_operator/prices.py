"""What a node costs, as people write it: a price, and the chart's table of them.

Pure. Invariant: a price is a decimal number as text, like "0.97"; what is written in any other way is no
price, and never a guess.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from spot_operator.names import CapacityType

PRICE: Final = "[0-9]{1,9}([.][0-9]{1,9})?"
EXPECTED: Final = 'a decimal number as text, like "0.97"'
_INSTANCE_TYPE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_KEYS: Final = {"spot": "spot", "onDemand": "on_demand"}


class InvalidPrices(ValueError):
    """A price table that cannot be used: the path of the field, its value, what is expected."""

    def __init__(self, path: str, value: object, expected: str) -> None:
        super().__init__(f"{path}={value!r}: expected {expected}")
        self.path, self.value, self.expected = path, value, expected


@dataclass(frozen=True, kw_only=True)
class NodePrices:
    """What a node of one instance type costs for an hour; None: not told."""

    spot: Decimal | None = None
    on_demand: Decimal | None = None

    def on(self, capacity_type: CapacityType) -> Decimal | None:
        return self.spot if capacity_type is CapacityType.SPOT else self.on_demand


PriceTable = Mapping[str, NodePrices]
"""By instance type, the label node.kubernetes.io/instance-type."""


def parse_price(text: object) -> Decimal | None:
    """The price; None: it is not written as one."""
    return Decimal(text) if isinstance(text, str) and re.fullmatch(PRICE, text) else None


def read_price_table(text: str) -> dict[str, NodePrices]:
    """The table in JSON: {"g5.xlarge": {"spot": "0.42", "onDemand": "1.01"}}.

    Raises:
        InvalidPrices: names the field by its path in the chart's values.
    """
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidPrices("prices", text, f"JSON ({error})") from error
    if not isinstance(table, dict):
        raise InvalidPrices("prices", table, "an object of instance types")
    return {name: _node_prices(name, entry) for name, entry in table.items()}


def _node_prices(name: str, entry: Any) -> NodePrices:
    path = f"prices[{name}]"
    if not _INSTANCE_TYPE.match(name):
        raise InvalidPrices(path, name, "the value of a node's label node.kubernetes.io/instance-type")
    if not isinstance(entry, dict) or not entry:
        raise InvalidPrices(path, entry, "an object with spot, onDemand or both")
    found = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise InvalidPrices(f"{path}.{key}", value, "spot or onDemand as its name")
        found[_KEYS[key]] = parse_price(value)
        if found[_KEYS[key]] is None:
            raise InvalidPrices(f"{path}.{key}", value, EXPECTED)
    return NodePrices(**found)
