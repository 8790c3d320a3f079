"""Candidates, and the tables they are written to: one row per signal."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aetherscan.detector.release import OBSERVATIONS
from aetherscan.io.outputs import whole_file, write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A signal in the ONs and not in the OFFs, with its measurements and the score of a release."""

    frequency_mhz: float  # at the start of the first ON
    drift_rate_hz_s: float  # there
    curvature_hz_s2: float  # change of the drift rate; 0 for a straight track
    bandwidth_hz: float
    snr: tuple[float, ...]  # along the track, in each observation
    valid: tuple[float, ...]  # share of the pixels along the track that were measured, in each observation
    note: str  # "OFF 2 not measured": too little to confirm or clear it; "OFF 4 missing"; else ''
    probability: float | None  # None if the forest does not apply
    probability_spread: float | None  # standard deviation between groups of the forest's trees
    strangeness: float | None  # how unlike training signals: 1 one in ten, 3 one in a thousand
    scored_by: str  # "forest", or "gates" where it does not apply: the cadence has not three ONs and three OFFs
    proposer_score: float  # SNR of the hit that was followed
    latents: tuple[float, ...]
    binning: int | None  # channels per bin of the encoder's input
    allocations: tuple[str, ...]  # services licensed to transmit at this frequency
    clock: str  # "multiple of 10 MHz" (or 4, or 1) if it is one
    comb_spacing_hz: float | None  # of the comb that the line belongs to
    comb_teeth: int  # lines of that comb; 0 without one
    neighbours: int  # other lines within 10 kHz
    nearest_hz: float | None  # distance of the nearest other line
    rfi_density: float  # interfering lines per MHz around it, estimated; the probability depends on it
    kind: str | None  # that it looks most like, "signal" or of interference; None if the release names none
    kind_probability: float | None
    target: str
    tstart_mjd: float
    on_separation_arcmin: float | None  # largest distance between the places of the ONs
    ra_deg: float | None  # J2000, of the first ON; None without coordinates
    dec_deg: float | None
    telescope: str | None  # None if its number is unknown
    barycentric_mhz: float | None  # at the barycenter; None without direction or place of the telescope
    barycentric_drift_hz_s: float | None
    drift_nhz: float  # drift rate over frequency, Hz/s per GHz
    joint_snr: float | None  # of all ONs together; None if one was not measured
    valid_share: float  # of the pixels along the track, over all observations
    release: str
    mode: str

    def row(self) -> dict[str, Any]:
        """Return the values of `columns`: one column per observation for `snr` and `valid`, latents left out."""
        return expanded(asdict(self)) | {"allocations": "; ".join(self.allocations)}


PER_SCAN = ("snr", "valid")
"""Fields with a number for each observation: a column each in a table, as `snr_0`."""


def expanded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with a column for each number of the fields in `PER_SCAN`."""
    return {**row, **{f"{name}_{i}": value for name in PER_SCAN for i, value in enumerate(row[name] or ())}}


def columns(names: Iterable[str], scans: int) -> list[str]:
    """Return the columns of a table with the fields `names`, of cadences of up to so many scans."""
    numbers = {name: [f"{name}_{i}" for i in range(scans)] for name in PER_SCAN}
    numbers |= {"latents": [], "latents_f32": []}
    return [column for name in names for column in numbers.get(name, [name])]


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet recognizes a formula."""


def candidate_table(rows: Sequence[Candidate]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and the rows of a table of candidates, with as many scans as the cadence with the most."""
    scans = max((len(candidate.snr) for candidate in rows), default=OBSERVATIONS)
    return columns((field.name for field in fields(Candidate)), scans), [candidate.row() for candidate in rows]


def write_csv(path: Path, rows: Sequence[Candidate]) -> None:
    """Write candidates as CSV; see `candidate_table` and `write_table`."""
    write_table(path, *candidate_table(rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the named columns of `rows` as CSV with a header line. Numbers keep all their digits; no value: empty.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, because target names come from files.
    """
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(columns)
        table.writerows([_safe_cell(row.get(name)) for name in columns] for row in rows)


def _safe_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_json(path: Path, rows: Sequence[Candidate]) -> None:
    """Write candidates as a JSON list, with their latents."""
    write_whole(path, json.dumps([asdict(candidate) for candidate in rows], indent=1) + "\n")
