"""Keep the candidate of a blind injection for the queue of labels: its row, its waterfall and its stamp."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aetherscan.io import Observation
from aetherscan.plotting.waterfall import waterfall_png
from aetherscan.search.candidates import Candidate
from aetherscan.search.pipeline import SearchResult
from sentinel.config import Config
from sentinel.store.queue import ClaimedCadence, InjectedRecord, Store
from sentinel.workers.pictures import write_file
from sentinel.workers.search import candidate_rows, occupancy_of
from sentinel.workers.stamps import SUFFIX, described, make_room, write_stamp


def keep_injected(
    store: Store,
    config: Config,
    cadence: ClaimedCadence,
    release: tuple[str, str],
    parts: Sequence[Observation],
    result: SearchResult,
    found: Candidate,
) -> InjectedRecord:
    """Draw the candidate of a blind injection and write its stamp; return what the store records.

    Args:
        store: that holds the cadence.
        config: of the service.
        cadence: whose files were searched again.
        release: name and sha256.
        parts: of the observations, with the tone.
        result: of their search.
        found: the candidate of the tone.

    Raises:
        OSError: a file cannot be written.
    """
    (row,) = candidate_rows(replace(result, candidates=(found,)), release, config.sha256, config.mute)
    stem = config.pictures / f"{cadence.cadence_id:06d}-{found.frequency_mhz:.6f}MHz-injected"
    content = waterfall_png(parts, found, cadence.on)
    picture = write_file(stem.with_name(f"{stem.name}.png"), content)
    files = {"waterfall": (*picture, len(content))}
    row["picture"] = picture[0]
    if config.stamp_bytes:
        folder = stem.with_name(stem.name + SUFFIX)
        about = _about(store, row | {"id": None, "cadence_id": cadence.cadence_id})
        sha256, size = write_stamp(folder, parts, row, cadence.on, about)
        if make_room(store, size, config.stamp_bytes):
            files["stamp"] = (str(folder), sha256, size)
    first = parts[cadence.on[0]].header
    return InjectedRecord(row=row, files=files, occupancy=occupancy_of(config, first, first.band_mhz))


def _about(store: Store, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a stamp; whoever finds its folder must know that nobody sent the signal."""
    return {"injected": True, **described(store, row, {})}
