"""JobStatus <-> the JSON of `.status`.

The mapping follows the dataclasses: snake_case fields become camelCase keys, unset values
are left out, times are RFC 3339 UTC, money is a decimal string. Unknown keys are ignored,
so that an older operator can read what a newer one wrote; what it cannot read at all is a
`StatusUnreadable`, never a guess.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final, TypeVar

from spot_operator.model import Condition, JobStatus
from spot_operator.names import ConditionType, Phase

T = TypeVar("T")

_CONDITION_TYPES: Final = frozenset(ConditionType)
_PHASES: Final = frozenset(Phase)

_FIELDS: dict[type[Any], tuple[tuple[str, str, Any, bool], ...]] = {}
"""Name, key, type and whether required, of every field; type hints are slow to resolve."""


class StatusUnreadable(ValueError):
    """`.status` holds something that this version cannot interpret."""


def status_to_json(status: JobStatus) -> dict[str, Any]:
    """The JSON object to be written as `.status`."""
    return _encode_dataclass(status)


def status_from_json(value: Mapping[str, Any] | None) -> JobStatus:
    """The status that `value` stands for; an absent status is a new job's.

    Raises:
        StatusUnreadable: names the field that cannot be read.
    """
    known = dict(value or {})
    if isinstance(conditions := known.get("conditions"), list):
        others = foreign_conditions(known)
        known["conditions"] = [condition for condition in conditions if condition not in others]
    if known.get("phase") not in _PHASES:
        known.pop("phase", None)  # derived anew by every look
    return _decode_dataclass(JobStatus, known, "status")


def foreign_conditions(value: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Conditions that other controllers, or a newer version, keep on the job: not ours to read or drop."""
    conditions = (value or {}).get("conditions")
    items = conditions if isinstance(conditions, list) else []
    return [item for item in items if isinstance(item, Mapping) and item.get("type") not in _CONDITION_TYPES]


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(value: str) -> datetime:
    """An aware UTC time; raises ValueError for anything but RFC 3339 with an offset."""
    parsed = datetime.fromisoformat(value)
    if parsed.tzinfo is None:
        raise ValueError(f"time without an offset: {value!r}")
    return parsed.astimezone(UTC)


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join("UID" if part == "uid" else "ID" if part == "id" else part.title() for part in tail)


def _fields(cls: type[Any]) -> tuple[tuple[str, str, Any, bool], ...]:
    if cls not in _FIELDS:
        hints = typing.get_type_hints(cls)
        _FIELDS[cls] = tuple(
            (
                field.name,
                camel(field.name),
                hints[field.name],
                field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
            )
            for field in dataclasses.fields(cls)
        )
    return _FIELDS[cls]


def _encode(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_dataclass(value)
    return value


def _encode_dataclass(value: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for name, key, _, _ in _fields(type(value)):
        item = getattr(value, name)
        if isinstance(value, Condition) and name == "status":
            encoded[key] = {True: "True", False: "False", None: "Unknown"}[item]
        elif item is not None and item != "" and item != ():
            encoded[key] = _encode(item)
    return {key: item for key, item in encoded.items() if item != {}}


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return _decode(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise StatusUnreadable(f"{path}: expected a list, found {type(value).__name__}")
        item_hint = typing.get_args(hint)[0]
        return tuple(_decode(item_hint, item, f"{path}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise StatusUnreadable(f"{path}: expected an object, found {type(value).__name__}")
        return _decode_dataclass(hint, value, path)
    return _decode_scalar(hint, value, path)


def _decode_scalar(hint: Any, value: Any, path: str) -> Any:
    try:
        if hint is datetime:
            return parse_time(value)
        if hint is Decimal:
            return Decimal(value)
        if hint is float:
            return float(value)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return hint(value)
    except (ValueError, TypeError, InvalidOperation) as error:
        raise StatusUnreadable(f"{path}: {error}") from error
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise StatusUnreadable(f"{path}: expected {hint.__name__}, found {type(value).__name__}")
    return value


def _decode_dataclass(cls: type[T], value: Mapping[str, Any], path: str) -> T:
    arguments: dict[str, Any] = {}
    for name, key, hint, required in _fields(cls):
        if cls is Condition and name == "status":
            arguments[name] = {"True": True, "False": False}.get(str(value.get(key)))
        elif key in value:
            arguments[name] = _decode(hint, value[key], f"{path}.{key}")
        elif required:
            if type(None) in typing.get_args(hint):
                arguments[name] = None
            elif hint is str:
                arguments[name] = ""
            elif typing.get_origin(hint) is tuple:
                arguments[name] = ()
            else:
                raise StatusUnreadable(f"{path}.{key}: missing")
    return cls(**arguments)
