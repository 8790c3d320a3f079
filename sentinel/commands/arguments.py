"""Types of command-line arguments: each returns a checked value or says what it expected.

Only the standard library is imported, so that usage errors need no packages.
"""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

MOST = 2**63 - 1
"""Largest integer that the store can hold."""
LOGS = ("cluster", "watcher", "poster", "web", "supervisord")


def whole(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """Return the type of a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, found {_short(text)}")
        return int(text)

    return convert


def number(least: float = -math.inf, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return the type of a finite number from `least` (greater than it if `above`) to `most`."""
    bounds = f" greater than {least:g}" if above else f" of at least {least:g}" if least > -math.inf else ""
    bounds += f" and at most {most:g}" if most < math.inf else ""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not least <= value <= most or (above and value == least):
            raise argparse.ArgumentTypeError(f"expected a finite number{bounds}, found {_short(text)}")
        return value

    return convert


def words(text: str) -> str:
    """Return text that is not empty and holds neither control characters nor bytes that are not UTF-8."""
    if not text.strip() or any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError(f"expected text in UTF-8 without control characters, found {_short(text)}")
    return text


def path(text: str) -> Path:
    """Return a path; the empty string is refused because `Path` takes it for the current folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path, found {_short(text)}")
    return Path(text)


def log_name(text: str) -> str:
    """Return the name of a log."""
    if text not in LOGS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(LOGS)}, found {_short(text)}")
    return text


def file_name(text: str) -> str:
    """Return the path of a file as text."""
    return str(path(text)) and text


def table(text: str) -> Path:
    """Return the path of a table whose suffix names a known format."""
    if (file := path(text)).suffix not in {".csv", ".ecsv", ".json"}:
        raise argparse.ArgumentTypeError(f"expected a name that ends in .csv, .ecsv or .json, found {_short(text)}")
    return file


def picture(text: str) -> Path:
    """Return the path of a PNG."""
    if (file := path(text)).suffix != ".png":
        raise argparse.ArgumentTypeError(f"expected a name that ends in .png, found {_short(text)}")
    return file


def folder_name(text: str) -> str:
    """Return the name of a folder beside others, which is no path."""
    if words(text) in {".", ".."} or "/" in text:
        raise argparse.ArgumentTypeError(f"expected the name of a folder without a slash, found {_short(text)}")
    return text


def sha256(text: str) -> str:
    """Return a sha256 in lower case."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"expected 64 hexadecimal digits, found {_short(text)}")
    return text.lower()


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
