"""Declare an option once, with its default, help text and limits."""

import operator
from dataclasses import field, fields
from typing import Any

LIMITS = {
    "least": (operator.ge, "at least {}"),
    "above": (operator.gt, "more than {}"),
    "most": (operator.le, "at most {}"),
    "below": (operator.lt, "less than {}"),
    "multiple": (lambda value, of: value % of == 0, "a multiple of {}"),
}

MOST_THREADS = 1024
"""Largest number of threads or processes that an option may ask for: more than the cores of a large machine."""


def option(default: Any, text: str, *, heading: str = "", **limits: float) -> Any:
    """Return a dataclass field that is an option.

    Args:
        default: its value where none is given.
        text: help text.
        heading: title of the group of options that begins with this one.
        limits: by the names of `LIMITS`; each part of a tuple must lie within them, and None always does.
    """
    return field(default=default, metadata={"help": text, "heading": heading, **limits})


def out_of_range(settings: Any) -> list[str]:
    """Return an error message for each option whose value is beyond its limits."""
    errors = []
    for declared in fields(settings):
        value = getattr(settings, declared.name)
        limits = {name: declared.metadata[name] for name in LIMITS if name in declared.metadata}
        parts = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(LIMITS[name][0](part, limit) for part in parts for name, limit in limits.items()):
            expected = " and ".join(LIMITS[name][1].format(limit) for name, limit in limits.items())
            errors.append(f"{declared.name}: expected {expected}, found {value}")
    return errors
