"""Write candidates as ECSV: text that astropy and TOPCAT read back with units, types and empty cells.

ECSV is a CSV with a header in YAML (Astropy Proposal for Enhancement 6, 2017, doi:10.5281/zenodo.4793447). Each column
has its unit and a word of the IVOA vocabulary UCD1+ (Preite Martinez et al. 2018, IVOA Endorsed Note 2018-05-27) that
says what kind of quantity it is. Every program of the project that writes ECSV writes it here; import this module where
it is used, because it loads astropy.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.table import MaskedColumn, Table

from aetherscan.io.outputs import write_whole

KINDS: dict[str, tuple[str, str]] = {
    "id": ("", "meta.id;meta.main"),
    "cadence_id": ("", "meta.id"),
    "attempt_id": ("", "meta.id"),
    "frequency_mhz": ("MHz", "em.freq"),
    "drift_rate_hz_s": ("Hz/s", "arith.rate;em.freq"),
    "drift_nhz": ("nHz", "arith.rate;em.freq"),
    "curvature_hz_s2": ("Hz/s2", "arith.rate;em.freq"),
    "barycentric_mhz": ("MHz", "em.freq"),
    "barycentric_drift_hz_s": ("Hz/s", "arith.rate;em.freq"),
    "bandwidth_hz": ("Hz", "spect.line.width"),
    "comb_spacing_hz": ("Hz", "em.freq"),
    "nearest_hz": ("Hz", "em.freq"),
    "comb_teeth": ("1", "meta.number"),
    "neighbours": ("1", "meta.number"),
    "rfi_density": ("1/MHz", "meta.number"),
    "seen_before": ("1", "meta.number"),
    "seen_cadences": ("1", "meta.number"),
    "seen_of": ("1", "meta.number"),
    "seen_targets": ("1", "meta.number"),
    "last_seen_mjd": ("d", "time.epoch"),
    "muted": ("", "meta.note"),
    "kind": ("", "meta.code.class"),
    "kind_probability": ("1", "stat.probability"),
    "binning": ("chan", "em.bin"),
    "snr": ("1", "stat.snr"),
    "valid": ("1", "meta.code.qual"),
    "valid_share": ("1", "meta.code.qual"),
    "proposer_score": ("1", "stat.snr"),
    "joint_snr": ("1", "stat.snr"),
    "probability": ("1", "stat.probability"),
    "probability_spread": ("1", "stat.stdev;stat.probability"),
    "strangeness": ("1", ""),
    "scored_by": ("", "meta.code"),
    "note": ("", "meta.note"),
    "allocations": ("", "meta.note"),
    "clock": ("", "meta.note"),
    "target": ("", "meta.id;src"),
    "telescope": ("", "instr.tel"),
    "ra_deg": ("deg", "pos.eq.ra"),
    "dec_deg": ("deg", "pos.eq.dec"),
    "tstart_mjd": ("d", "time.start"),
    "on_separation_arcmin": ("arcmin", "pos.angDistance"),
    "mode": ("", "meta.code"),
    "release": ("", "meta.version"),
    "release_name": ("", "meta.version"),
    "release_sha256": ("", "meta.checksum"),
    "code_version": ("", "meta.version"),
    "config_sha256": ("", "meta.checksum"),
    "picture": ("", "meta.ref"),
    "label": ("", "meta.code.class"),
    "label_in_force": ("", "meta.code.class"),
    "superseded": ("", "meta.code.status"),
}
"""Unit and UCD of each column; a unit of 1 is a pure number, and an empty one belongs to text and identifiers. Columns
that are not listed are written without either."""


def kind_of(column: str) -> tuple[str, str]:
    """Return unit and UCD of a column; of `snr_0` those of `snr`."""
    return KINDS.get(column) or KINDS.get(re.sub(r"_\d+$", "", column), ("", ""))


def write_ecsv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the named columns of `rows` as ECSV, whole or not at all; see `ecsv_text`."""
    write_whole(path, ecsv_text(columns, rows))


def ecsv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the named columns of `rows` as ECSV. A value that is None or missing is an empty cell.

    Control characters in text, which come from headers of files, become question marks: ECSV has one row a line.
    """
    table, rows = Table(), list(rows)
    for name in columns:
        table[name] = _column(name, [row.get(name) for row in rows])
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def _column(name: str, values: Sequence[Any]) -> Any:
    unit, ucd = kind_of(name)
    known = [value for value in values if value is not None]
    kinds = {type(value) for value in known}
    empty: Any = ""
    if kinds and kinds <= {bool, int, float}:
        kind = next(kind for kind in (float, int, bool) if kind in kinds)
        empty = kind(0)
    elif not kinds:
        kind = float if unit else str
        empty = kind()
    else:
        kind, values = str, [None if value is None else _one_line(str(value)) for value in values]
    filled = [empty if value is None else value for value in values]
    masked = [value is None for value in values]
    # A unit of 1 is left out: astropy reads such a column as plain numbers.
    about = {"unit": None if unit in ("", "1") else unit, "meta": {"ucd": ucd} if ucd else None}
    return MaskedColumn(filled, name=name, dtype=kind, mask=masked, **about)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
