"""JobStatus <-> the JSON of `.status`.

The mapping follows the dataclasses: snake_case fields become camelCase keys, unset values
are left out, times are RFC 3339 UTC, money is a decimal string. Unknown keys are ignored,
so that an older operator can read what a newer one wrote; what it cannot read at all is a
`StatusUnreadable`, never a guess.
"""

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final, TypeVar

from spot_operator.model import Condition, JobStatus
from spot_operator.names import ConditionType, Phase

T = TypeVar("T")

MAX_FLOAT: Final = 1e20
"""More than any report or sum of ours can reach, and little enough for arithmetic in money."""

_CONDITION_TYPES: Final = frozenset(ConditionType)
_PHASES: Final = frozenset(Phase)
_CONDITION_STATUS: Final = {True: "True", False: "False", None: "Unknown"}


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
    if str(known.get("phase")) not in _PHASES:
        known.pop("phase", None)  # derived anew by every look
    try:
        status: JobStatus = _decode_dataclass(JobStatus, known)
    except _Wrong as wrong:
        raise StatusUnreadable(f"status{wrong.path}: {wrong.what}") from wrong
    return status


def foreign_conditions(value: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Conditions that other controllers, or a newer version, keep on the job: not ours to read or drop."""
    conditions = (value or {}).get("conditions")
    items = conditions if isinstance(conditions, list) else []
    return [
        item for item in items if isinstance(item, Mapping) and str(item.get("type")) not in _CONDITION_TYPES
    ]


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


def _once(work: Callable[[Any], T]) -> Callable[[Any], T]:
    """`functools.cache` for a function of a type, which mypy holds for unhashable."""
    return functools.cache(work)


@dataclass(frozen=True, slots=True)
class _Field:
    """How a field of a dataclass is written and read."""

    name: str
    key: str
    decode: Callable[[Any], Any]
    is_required: bool
    absent: Any
    """What a required field is when its key is not there; `_REFUSED` if it then cannot be read."""


_REFUSED: Final = object()
_UNSET: Final = (None, "", ())


class _Wrong(Exception):
    """What is wrong, and where, from the value that is being read: `path` grows on the way out."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = path


# Every look reads a whole status and most write one: what the types say is worked out once for each.
@_once
def _fields(cls: type[Any]) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        _Field(
            field.name,
            camel(field.name),
            _decode_condition_status
            if cls is Condition and field.name == "status"
            else _decoder(hints[field.name]),
            is_required=field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
            absent=_absent(hints[field.name]),
        )
        for field in dataclasses.fields(cls)
    )


def _absent(hint: Any) -> Any:
    if type(None) in typing.get_args(hint):
        return None
    if hint is str:
        return ""
    return () if typing.get_origin(hint) is tuple else _REFUSED


def _encode_dataclass(value: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for field in _fields(type(value)):
        item = getattr(value, field.name)
        if field.decode is _decode_condition_status:
            encoded[field.key] = _CONDITION_STATUS[item]
        elif item or item not in _UNSET:
            found = _encoder(type(item))(item)
            if found != {}:
                encoded[field.key] = found
    return encoded


def _encode_tuple(value: tuple[Any, ...]) -> list[Any]:
    return [_encoder(type(item))(item) for item in value]


def _same(value: Any) -> Any:
    return value


@_once
def _encoder(cls: type[Any]) -> Callable[[Any], Any]:
    if issubclass(cls, Enum):
        return operator.attrgetter("value")
    if issubclass(cls, datetime):
        return format_time
    if issubclass(cls, Decimal):
        return "{:f}".format
    if issubclass(cls, float):
        return lambda value: round(value, 3)
    if issubclass(cls, tuple):
        return _encode_tuple
    return _encode_dataclass if dataclasses.is_dataclass(cls) else _same


@_once
def _decoder(hint: Any) -> Callable[[Any], Any]:
    """Of JSON to what the type says; it raises `_Wrong`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (each for each in arguments if each is not type(None))
        decode = _decoder(inner)
        return lambda value: None if value is None else decode(value)
    if origin is tuple:
        return functools.partial(_decode_tuple, _decoder(arguments[0]))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return functools.partial(_decode_dataclass, hint)
    if hint in (datetime, Decimal, float) or issubclass(hint, Enum):
        return functools.partial(_decode_parsed, {datetime: parse_time, float: _parse_float}.get(hint, hint))
    return functools.partial(_decode_scalar, hint)


def _decode_condition_status(value: Any) -> bool | None:
    return {"True": True, "False": False}.get(str(value))


def _decode_tuple(decode: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Wrong(f"expected a list, found {type(value).__name__}")
    found: list[Any] = []
    try:
        for item in value:
            found.append(decode(item))
    except _Wrong as wrong:
        wrong.path = f"[{len(found)}]{wrong.path}"
        raise
    return tuple(found)


def _decode_parsed(parse: Callable[[Any], Any], value: Any) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError, InvalidOperation) as error:
        raise _Wrong(str(error)) from error


def _parse_float(value: Any) -> float:
    """Seconds and the like."""
    parsed = float(value)
    if not abs(parsed) < MAX_FLOAT:
        raise ValueError(f"out of range: {value!r}")
    return parsed


def _decode_scalar(hint: type[Any], value: Any) -> Any:
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _Wrong(f"expected {hint.__name__}, found {type(value).__name__}")
    return value


def _decode_dataclass(cls: type[Any], value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _Wrong(f"expected an object, found {type(value).__name__}")
    arguments: dict[str, Any] = {}
    for field in _fields(cls):
        if field.key in value:
            try:
                arguments[field.name] = field.decode(value[field.key])
            except _Wrong as wrong:
                wrong.path = f".{field.key}{wrong.path}"
                raise
        elif field.is_required:
            if field.absent is _REFUSED:
                raise _Wrong("missing", f".{field.key}")
            arguments[field.name] = field.absent
    try:
        return cls(**arguments)
    except ValueError as error:
        raise _Wrong(str(error)) from error
