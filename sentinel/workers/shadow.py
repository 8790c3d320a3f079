"""Search live cadences with a second release, the shadow release, and compare it with the active one.

Its candidates are recorded in the `shadow` table and never announced. `models compare` lists the differences, so that a
new release can be assessed before it is promoted.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from aetherscan.detector.detector import Detector
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from sentinel.errors import SentinelError
from sentinel.notify.messages import score_text
from sentinel.store.queue import Store
from sentinel.store.schema import cadence, candidate, now, shadow, superseded

LOG = logging.getLogger(__name__)
SAME_HZ = 20.0
"""Two candidates of a cadence that are closer than this are the same signal."""


def search_shadow(
    store: Store,
    cadence_id: int,
    paths: Sequence[Path],
    on: tuple[int, ...],
    detector: Detector,
    settings: SearchSettings,
) -> None:
    """Search a recorded cadence with the shadow release, and record the candidates that it would report.

    Args:
        store: that holds the cadence.
        cadence_id: the cadence.
        paths: the observations in time order.
        on: positions of the ONs, from 0.
        detector: of the shadow release.
        settings: of the search.
    """
    with open_cadence(paths, settings.polarization) as observations:
        candidates = search_cadence(observations, detector, settings, on=on).candidates
    names = ("frequency_mhz", "drift_rate_hz_s", "snr", "probability")
    found = [{name: getattr(row, name) for name in names} for row in candidates]
    release = {"release_name": detector.release.name, "release_sha256": detector.release.sha256}
    with store.write() as rows:
        rows.execute(insert(shadow).values(cadence_id=cadence_id, at=now(), found=found, **release))


def compare(store: Store, name: str) -> Iterator[str]:
    """Yield the signals that only one of the shadow release `name` and the active releases reported.

    Of a cadence that was searched several times, the last search by each counts.

    Raises:
        SentinelError: no shadow release of that name has searched a cadence.
    """
    both = active_only = shadow_only = 0
    lines = list[str]()
    last = select(func.max(shadow.c.id)).where(shadow.c.release_name == name).group_by(shadow.c.cadence_id)
    searches = select(shadow, cadence.c.target).join(cadence).where(shadow.c.id.in_(last)).order_by(shadow.c.id)
    columns = (candidate.c.frequency_mhz, candidate.c.probability)
    with store.read() as rows:
        searched = rows.execute(searches).all()
        if not searched:
            others = ", ".join(rows.scalars(select(shadow.c.release_name).distinct().order_by(shadow.c.release_name)))
            raise SentinelError(f"{name}: expected a shadow release that searched cadences, found {others or 'none'}")
        for search in searched:
            of_cadence = select(*columns).where(candidate.c.cadence_id == search.cadence_id, ~superseded())
            active = rows.execute(of_cadence).mappings().all()
            missed = [row for row in active if not _among(row, search.found)]
            added = [row for row in search.found if not _among(row, active)]
            both += len(active) - len(missed)
            active_only += len(missed)
            shadow_only += len(added)
            for release, different in (("active release", missed), (name, added)):
                where = f"cadence {search.cadence_id} {search.target}: only {release}"
                lines += [f"{where}: {row['frequency_mhz']:.6f} MHz, {score_text(dict(row))}" for row in different]
    yield f"{len(searched)} cadences: {both} signals in both, {active_only} only active, {shadow_only} only {name}"
    yield from lines


def _among(row: Any, others: Sequence[Any]) -> bool:
    return any(abs(row["frequency_mhz"] - other["frequency_mhz"]) * 1e6 < SAME_HZ for other in others)
