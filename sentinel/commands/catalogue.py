"""Cadences that a catalogue lists: the groups of a CSV file, whose roles are believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentinel.commands.listing import named_file, read_rows

GROUP = ("target", "session", "band", "cadenceid", "cadence", "frequency")
"""Columns that together name a cadence, as in Aetherscan's catalogues. Only that for the cadence is required."""
ROLE = ("onoff", "role")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedCadence:
    """Files whose roles the user states."""

    name: str  # where they were stated
    paths: tuple[Path, ...]
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    position: int
    role: str
    path: Path
    line: int


def stated_cadences(names: Sequence[str]) -> list[StatedCadence]:
    """Return the cadences that the .csv files among `names` list, in the order of their rows.

    A CSV file is a catalogue if its first line names a column `Cadence ID` or `cadence`. Rows with equal values of
    Target, Session, Band, Cadence ID and Frequency, as far as there are such columns, are a cadence: ABACAD in the
    order of the rows, or of a column `position`; a column `on_off` gives the roles otherwise.
    """
    return [cadence for path in map(Path, names) if path.suffix.lower() == ".csv" for cadence in _read(path)]


def _read(path: Path) -> list[StatedCadence]:
    (_, titles), *rows = read_rows(path) or [(0, [])]
    columns = {"".join(filter(str.isalnum, title.lower())): i for i, title in enumerate(titles)}
    if not columns.keys() & {"cadenceid", "cadence"}:
        return []
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for line, cells in rows:
        value = {name: cells[i] for name, i in columns.items() if i < len(cells)}
        if file := named_file(cells):
            key = tuple(value.get(name, "") for name in GROUP)
            role = next((value[name].upper() for name in ROLE if value.get(name)), "")
            position = int(value["position"]) if value.get("position", "").isdecimal() else len(groups.get(key, ()))
            groups.setdefault(key, []).append(_Row(position=position, role=role, path=path.parent / file, line=line))
    return [_stated(path, sorted(group, key=lambda row: row.position)) for group in groups.values()]


def _stated(path: Path, group: Sequence[_Row]) -> StatedCadence:
    has_roles = all(row.role in ("ON", "OFF") for row in group)
    on = [row.role == "ON" if has_roles else i % 2 == 0 for i, row in enumerate(group)]
    pattern = "".join("A" if is_on else "B" for is_on in on)
    lines = [row.line for row in group]
    return StatedCadence(
        name=f"{path.name}, lines {min(lines)} to {max(lines)}", paths=tuple(row.path for row in group), pattern=pattern
    )
