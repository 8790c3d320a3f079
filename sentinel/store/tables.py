"""Write candidates of the store as a table: all, or those that a filter selects."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aetherscan.detector.release import OBSERVATIONS
from aetherscan.io.outputs import write_whole
from aetherscan.search.candidates import columns, expanded, write_table
from sentinel.store.filters import Filter, ordering
from sentinel.store.queue import Store
from sentinel.store.schema import candidate, labeled, latents_of

LATENTS = ("latents", "latents_f32")
SUFFIXES = (".csv", ".ecsv", ".json")


def with_latents(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its latents as one list, last."""
    return {name: row[name] for name in row if name not in LATENTS} | {"latents": latents_of(row)}


def write_candidates(store: Store, path: Path, asked: Filter | None = None, person: str = "") -> int:
    """Write candidates to a .csv, .ecsv or .json file; return their number.

    Args:
        store: that holds the candidates.
        path: of the file.
        asked: filter and order; None for every row, also superseded ones.
        person: who asks, for `label=mine` and `label=not-mine`.
    """
    query = labeled()
    query = (
        query.where(*asked.conditions(person)).order_by(*ordering(asked.sort))
        if asked
        else query.order_by(candidate.c.id)
    )
    with store.read() as rows:
        found = [dict(row) for row in rows.execute(query).mappings()]
    if path.suffix == ".json":
        write_whole(path, json.dumps([with_latents(row) for row in found], indent=1) + "\n")
        return len(found)
    names = [name for name in candidate.c.keys() if name not in (*LATENTS, "label_in_force")]  # noqa: SIM118
    scans = max((len(row["snr"]) for row in found), default=OBSERVATIONS)
    write = write_table
    if path.suffix == ".ecsv":
        from aetherscan.search.ecsv import write_ecsv as write
    write(path, columns([*names, "label", "superseded"], scans), map(expanded, found))
    return len(found)
