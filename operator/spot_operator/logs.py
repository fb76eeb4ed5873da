"""Structured logs: a constant message, and what varies as keys.

One JSON object a line, so that a log system can select by namespace, job, uid or
incarnation without parsing sentences. Invariant: values are bounded and single-line, and
nothing that authenticates (tokens, keys, request headers) is ever given to this module.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

_MAX_VALUE_CHARS: Final = 1000


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:_MAX_VALUE_CHARS]


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_VALUE_CHARS],
        }
        line |= {key: _clean(value) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-8000:]
        return json.dumps(line, ensure_ascii=False)


class Log:
    """A logger whose variables are keyword arguments, so that a swapped pair cannot happen."""

    def __init__(self, name: str, **fields: Any) -> None:
        self._logger = logging.getLogger(name)
        self._fields = fields

    def bind(self, **fields: Any) -> "Log":
        return Log(self._logger.name, **(self._fields | fields))

    def debug(self, message: str, **fields: Any) -> None:
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, *, exception: BaseException | None = None, **fields: Any) -> None:
        self._log(logging.ERROR, message, fields, exception)

    def _log(
        self, level: int, message: str, fields: dict[str, Any], exception: BaseException | None = None
    ) -> None:
        self._logger.log(level, message, exc_info=exception, extra={"fields": self._fields | fields})


def set_up_logs(level: str) -> None:
    """Send everything to standard error as JSON; frameworks below WARNING stay silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # kopf logs two lines for every event it delivers; aiohttp one for every request.
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
