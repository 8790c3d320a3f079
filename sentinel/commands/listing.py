"""List the files that a search is given: paths, folders, patterns and CSV files; list what is not used."""

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path

from aetherscan.io import SUFFIXES
from sentinel.errors import ConfigError
from sentinel.store.filesystem import read_regular

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encoding by the byte order mark at the beginning of a text file."""
DELIMITERS = ",;\t"
MOST_CATALOGUE = 2**28
"""Bytes of a catalogue, which is read into memory."""


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return line number and cells, without blanks around them, of each row of a CSV file that is not empty.

    UTF-8 and, with a byte order mark, UTF-16 and UTF-32; anything else is Latin-1. Cells are separated by the comma,
    semicolon or tab that is most frequent in the first line.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        raw = read_regular(path, MOST_CATALOGUE)
        text = _decoded(raw)
        first = text.partition("\n")[0]
        reader = csv.reader(text.splitlines(keepends=True), delimiter=max(DELIMITERS, key=first.count))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path}: expected a CSV file that lists files, found {error}") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def named_file(cells: Sequence[str]) -> str | None:
    """Return the first cell that names a file of power, by its suffix in upper or lower case."""
    return next((cell for cell in cells if cell.lower().endswith(SUFFIXES)), None)


def listed(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the paths that `names` give, and a line for everything that is not used.

    A folder gives its files of power, a pattern what it matches, and a .csv file the paths in its rows, relative to its
    folder.

    Args:
        names: as on a command line.

    Raises:
        ConfigError: a .csv file cannot be read, or a pattern is none.
    """
    paths: list[Path] = []
    notes: list[str] = []
    for name in names:
        path = Path(name)
        if path.suffix.lower() == ".csv":
            of_name, unused = _catalogue(path)
            notes += unused
        elif path.is_dir():
            of_name = sorted(entry for entry in path.iterdir() if named_file([entry.name]))
            notes += [] if of_name else [f"{path}: expected {' or '.join(SUFFIXES)} files in this folder, found none"]
        elif set(name) & set("*?[") and not path.exists():
            of_name = _matches(path)
            notes += [] if of_name else [f"{name}: expected files that match this pattern, found none"]
        else:
            of_name = [path]
        paths += of_name
    return paths, notes


def _matches(path: Path) -> list[Path]:
    """Return the paths that match a pattern.

    Raises:
        ConfigError: it is no pattern.
    """
    try:
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise ConfigError(f"{path}: expected a file or a pattern, found: {error}") from error


def _catalogue(path: Path) -> tuple[list[Path], list[str]]:
    paths, notes = [], []
    for number, (line, cells) in enumerate(read_rows(path)):
        if name := named_file(cells):
            paths.append(path.parent / name)
        elif number:  # the first row may hold titles
            notes.append(f"{path} line {line}: expected a {', '.join(SUFFIXES)} file, found {', '.join(cells)[:80]!r}")
    if not paths:
        notes.append(f"{path}: expected rows that name {' or '.join(SUFFIXES)} files, found none")
    return list(dict.fromkeys(paths)), notes  # a file may be in several of a catalogue's cadences


def _decoded(raw: bytes) -> str:
    for mark, encoding in ENCODINGS.items():
        if raw.startswith(mark):
            return raw.decode(encoding)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
