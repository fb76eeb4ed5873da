"""One rule about a spec: the same condition for the API server (CEL) and for the operator.

Invariant: both sides say the same message about the same field; the API tests feed every bad
manifest to both and compare.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from spot_operator.api.spec import Shape

S = TypeVar("S", bound=Shape)


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[S]):
    field: str
    """The field at fault, relative to the object that the rule belongs to."""
    cel: str
    """`self` is the object that the rule belongs to."""
    message: str
    holds: Callable[[S], bool] | None
    """None for a rule about a change, which only the API server can check."""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] = "FieldValueInvalid"
    on_value: bool = False
    """`self` in `cel` is the value of the field, and nothing is evaluated where it is not set.

    Wherever a rule is about one field alone: all rules run again at every write of the status, and each
    step into an object copies the types of all its fields, of which a pod has forty.
    """

    def as_schema(self) -> dict[str, str]:
        where = {} if self.on_value else {"fieldPath": f".{self.field}"}
        return {"rule": self.cel, "message": self.message} | where | {"reason": self.reason}
