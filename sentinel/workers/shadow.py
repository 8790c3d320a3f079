"""A release beside the one that serves: it searches live cadences after it, is recorded, and never announced.

What it finds is a row of its own for each cadence, so that `models compare` can say where the two disagree before
people are asked to trust the new one.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from aetherscan.detector.detector import Detector
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from sentinel.store.queue import Store
from sentinel.store.schema import cadence, candidate, now, shadow

LOG = logging.getLogger(__name__)
SAME_HZ = 20.0
"""Two rows of a cadence that lie nearer are one signal."""


def search_shadow(
    store: Store,
    cadence_id: int,
    paths: Sequence[Path],
    on: tuple[int, ...],
    detector: Detector,
    settings: SearchSettings,
) -> None:
    """Search a cadence, which has been recorded, with a release that only watches; write down what it would report."""
    with open_cadence(paths) as observations:
        found = search_cadence(observations, detector, settings, on=on).candidates
    names = ("frequency_mhz", "drift_rate_hz_s", "snr", "probability")
    rows_found = [{name: getattr(one, name) for name in names} for one in found]
    release = {"release_name": detector.release.name, "release_sha256": detector.release.sha256}
    with store.write() as rows:
        rows.execute(insert(shadow).values(cadence_id=cadence_id, at=now(), found=rows_found, **release))


def compare(store: Store, name: str) -> Iterator[str]:
    """Yield what the release `name`, in the shadow, and those that served reported of the cadences both searched."""
    both, ours, theirs, lines = 0, 0, 0, list[str]()
    with store.read() as rows:
        seen = rows.execute(
            select(shadow, cadence.c.target).join(cadence).where(shadow.c.release_name == name).order_by(shadow.c.id)
        ).all()
        for one in seen:
            columns = (candidate.c.id, candidate.c.frequency_mhz, candidate.c.probability)
            served = rows.execute(select(*columns).where(candidate.c.cadence_id == one.cadence_id)).mappings().all()
            alone = [row for row in one.found if not _among(row, served)]
            missed = [row for row in served if not _among(row, one.found)]
            both, ours, theirs = both + len(served) - len(missed), ours + len(missed), theirs + len(alone)
            for who, rest in (("served only", missed), (f"{name} only", alone)):
                where = f"cadence {one.cadence_id} {one.target}: {who}"
                lines += [f"{where}: {row['frequency_mhz']:.6f} MHz, p {row['probability']:.3f}" for row in rest]
    yield f"{len(seen)} cadences: both report {both} signals, those that served {ours} more, {name} {theirs} more"
    yield from lines


def _among(row: Any, others: Sequence[Any]) -> bool:
    return any(abs(row["frequency_mhz"] - other["frequency_mhz"]) * 1e6 < SAME_HZ for other in others)
