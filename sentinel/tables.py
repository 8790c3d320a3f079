"""Candidates as people and other programs read them."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sentinel.errors import StoreError
from sentinel.schema import candidate
from sentinel.store import Store

HIDDEN = ("latents", "snr")
"""Columns that a table of numbers has no place for; `snr` becomes six."""


def newest(store: Store, count: int) -> list[str]:
    """Return one line for each of the newest candidates."""
    with store.read() as rows:
        newest_first = select(candidate).order_by(candidate.c.id.desc()).limit(count)
        found = [dict(one) for one in rows.execute(newest_first).mappings()]
    return [
        f"{one['id']:>6}  {one['target']:<16.16} {one['frequency_mhz']:.6f} MHz {one['drift_rate_hz_s']:+.3f} Hz/s  "
        f"p {one['probability']:.3f}  SNR {' '.join(f'{snr:.1f}' for snr in one['snr'])}  "
        f"MJD {one['tstart_mjd']:.4f}  {remarks(one)}".rstrip()
        for one in found
    ]


def remarks(row: Mapping[str, Any]) -> str:
    """Return what is known of a candidate's frequency, in a few words: nothing where nothing is."""
    teeth, before = row.get("comb_teeth"), row.get("seen_before")
    known = (
        row.get("allocations"),
        row.get("clock"),
        f"comb of {teeth} at {row['comb_spacing_hz'] / 1e3:.6g} kHz" if teeth else "",
        f"seen before: {before}" if before else "",
    )
    return "; ".join(fact for fact in known if fact)


def one(store: Store, candidate_id: int) -> str:
    """Return everything on a candidate's row, as JSON."""
    with store.read() as rows:
        found = rows.execute(select(candidate).where(candidate.c.id == candidate_id)).mappings().one_or_none()
    if found is None:
        raise StoreError(f"candidate {candidate_id}: no such row")
    return json.dumps(dict(found), indent=1)


def export(store: Store, path: Path) -> int:
    """Write every candidate to a .csv or .json file; return how many there were."""
    with store.read() as rows:
        found = [dict(one) for one in rows.execute(select(candidate).order_by(candidate.c.id)).mappings()]
    if path.suffix == ".json":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return len(found)
    columns = [name for name in candidate.c.keys() if name not in HIDDEN] + [f"snr_{i}" for i in range(6)]  # noqa: SIM118
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns)
        table.writeheader()
        table.writerows(_flat(one) for one in found)
    return len(found)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    snr = {f"snr_{i}": value for i, value in enumerate(row["snr"])}
    return {name: value for name, value in row.items() if name not in HIDDEN} | snr
