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
    message: str
    holds: Callable[[S], bool] | None
    """None for a rule about a change, which only the API server can check."""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] = "FieldValueInvalid"

    def as_schema(self) -> dict[str, str]:
        return {
            "rule": self.cel,
            "message": self.message,
            "fieldPath": f".{self.field}",
            "reason": self.reason,
        }
