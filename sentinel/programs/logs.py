"""Logs are facts about a cadence: under `up`, one JSON object a line, with the cadence and the attempt on each."""

import contextvars
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_BOUND: contextvars.ContextVar[dict[str, object]] = contextvars.ContextVar("bound", default={})  # noqa: B039


@contextmanager
def bound(**facts: object) -> Iterator[None]:
    """Put `facts` (cadence, attempt) on every line logged inside."""
    token = _BOUND.set(_BOUND.get() | facts)
    try:
        yield
    finally:
        _BOUND.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, program, message, what is bound, and a traceback."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "program": self.program,
            "logger": record.name,
            "message": record.getMessage(),
            **_BOUND.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(program: str) -> None:
    """Send every log line of this process to standard error, as JSON."""
    lines = logging.StreamHandler()
    lines.setFormatter(JsonLines(program))
    logging.basicConfig(level=logging.INFO, handlers=[lines], force=True)
