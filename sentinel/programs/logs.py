"""Logs of the programs: one JSON object per line, with the cadence and the attempt where one is being searched."""

import contextvars
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_CONTEXT: contextvars.ContextVar[dict[str, object]] = contextvars.ContextVar("log_context", default={})  # noqa: B039


@contextmanager
def log_context(**facts: object) -> Iterator[None]:
    """Add `facts` (cadence, attempt) to every line logged inside the block."""
    token = _CONTEXT.set(_CONTEXT.get() | facts)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


class JsonFormatter(logging.Formatter):
    """Format a record as a JSON object: time (UTC), level, program, message, context and traceback."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "program": self.program,
            "logger": record.name,
            "message": record.getMessage(),
            **_CONTEXT.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json(program: str) -> None:
    """Write the log of this process to standard error as JSON lines."""
    lines = logging.StreamHandler()
    lines.setFormatter(JsonFormatter(program))
    logging.basicConfig(level=logging.INFO, handlers=[lines], force=True)
