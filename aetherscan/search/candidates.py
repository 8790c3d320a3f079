"""What a search finds: one row per signal, with enough on it to find it again and to doubt it."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A signal in the ONs and not in the OFFs, as a release scored it."""

    frequency_mhz: float  # at the start of the first ON
    drift_rate_hz_s: float
    bandwidth_hz: float
    snr: tuple[float, ...]  # in each of the six observations
    probability: float
    probability_spread: float  # over draws of the encoder's posterior
    strangeness: float | None  # how far its latents are from those of the signals learned from; 1 is usual for a signal
    proposer_score: float  # SNR of the hit it was found by
    latents: tuple[float, ...]
    binning: int  # channels in one bin of what the encoder saw
    allocations: tuple[str, ...]  # who is licensed to transmit there
    clock: str  # the multiple of a clock's frequency that it is
    comb_spacing_hz: float | None  # of the comb that it is a tooth of
    comb_teeth: int
    neighbours: int  # other lines within 10 kHz
    nearest_hz: float | None  # distance of the nearest
    target: str
    tstart_mjd: float
    release: str
    mode: str

    def row(self) -> dict[str, Any]:
        """Return the columns of a table: `snr` one column per observation, latents left out."""
        values = asdict(self) | dict(zip(EXPANDED["snr"], self.snr, strict=True))
        values["allocations"] = "; ".join(self.allocations)
        return {name: values[name] for name in COLUMNS}


EXPANDED = {"snr": tuple(f"snr_{i}" for i in range(6)), "latents": ()}
"""What stands in a table for a field that is many numbers."""
COLUMNS = tuple(name for field in fields(Candidate) for name in EXPANDED.get(field.name, (field.name,)))


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet recognizes a formula."""


def write_csv(path: Path, rows: Sequence[Candidate]) -> None:
    """Write candidates as CSV; see `write_table`."""
    write_table(path, COLUMNS, (candidate.row() for candidate in rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the named columns of `rows` as CSV with a header line; numbers keep every digit.

    An apostrophe goes before text that a spreadsheet would run as a formula: the name of a target comes from a file.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(columns)
        table.writerows([_safe_cell(row[name]) for name in columns] for row in rows)


def _safe_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_json(path: Path, rows: Sequence[Candidate]) -> None:
    """Write candidates as a JSON list, latents included."""
    path.write_text(json.dumps([asdict(candidate) for candidate in rows], indent=1) + "\n", encoding="utf-8")
