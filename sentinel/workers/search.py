"""Search the files of a cadence: rows and the message that the store records together.

Pictures and training examples are named here and written after the record: see `sentinel.workers.pictures`. Only
workers and `replay` import this module: it loads the search kernels.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from aetherscan.cadence.plausible import warnings_of
from aetherscan.cadence.roles import roles_of
from aetherscan.errors import TruncatedFileError
from aetherscan.header import NOT_MEASURED, Header, utc_of
from aetherscan.io import Observation, absent_observation, open_cadence
from aetherscan.search.candidates import Candidate
from aetherscan.search.features import pack_example
from aetherscan.search.pipeline import SearchResult, search_cadence
from sentinel import VERSION
from sentinel.config import Config, MuteZone
from sentinel.notify.followup import observer_line
from sentinel.notify.messages import STORM, message_text, rank
from sentinel.store.filesystem import open_regular
from sentinel.store.occupancy import Memory, Occupancy
from sentinel.store.queue import SearchRecord
from sentinel.store.schema import candidate
from sentinel.workers.stamps import SUFFIX

FOLLOWED = 3
"""Candidates of a cadence for which the next observation is predicted: a message shows that of the highest rank."""
PICTURES = 20
"""Candidates per cadence that get a waterfall, a training example and a stamp, most probable first; they fill disks."""


def search_files(
    paths: Sequence[Path],
    pattern: str,
    progress: Callable[[float], None],
    config: Config,
    detector: Any,
    cadence_id: int,
) -> SearchRecord:
    """Search a cadence and return what the store records. Of a canary, only the run.

    Args:
        paths: the observations that exist, in time order.
        pattern: a letter for each scan: A for an ON, any other letter for an OFF, a dot for a missing OFF.
        progress: called with the searched fraction, 0 to 1.
        config: of the service.
        detector: the release that scores the tracks.
        cadence_id: names the pictures.
    """
    on = on_positions(pattern)
    if len(paths) != (expected := scan_count(pattern)):
        raise TruncatedFileError(
            f"expected {expected} files for {pattern}, found {len(paths)}: the others are gone from the watched folders"
        )
    for path in paths:  # a FIFO or a device in the place of a file would never end
        with open_regular(path):
            pass
    is_canary = paths[0].is_relative_to(config.canaries)
    polarization = None if is_canary else config.search.polarization  # a canary has one product
    with open_cadence(paths, polarization) as opened:
        observations = fill_missing(opened, pattern)
        result = search_cadence(observations, detector, config.search.settings(), progress, on)
        run: dict[str, Any] = {
            "counts": result.counts,
            "stage_s": result.stage_s,
            "bytes_read": result.bytes_read,
            "polarization": polarization,
            "release": detector.release.sha256,
            "roles": roles_of([observation.header for observation in observations], on),
            "warnings": [*warnings_of([observation.header for observation in opened]), *result.warnings],
        }
        release = (detector.release.name, detector.release.sha256)
        result = by_probability(result)
        if is_canary:
            run["found"] = [(row.frequency_mhz, row.drift_rate_hz_s, row.probability) for row in result.candidates]
            return SearchRecord(candidates=[], pictures=[], release=release, run=run, message=None)
        header, first_on = observations[0].header, observations[on[0]].header
    # Frequency and rank are in the names, so that no two candidates share a file.
    stems = [
        str(config.pictures / f"{cadence_id:06d}-{row.frequency_mhz:.6f}MHz-{rank + 1}")
        for rank, row in enumerate(result.candidates[:PICTURES])
    ]
    pictures = [(rank, f"{stem}.png") for rank, stem in enumerate(stems)]
    examples = [
        (rank, f"{stem}.npz", pack_example(snippet, result.measurements[rank]))
        for rank, (stem, snippet) in enumerate(zip(stems, result.snippets, strict=False))  # none if not scored
    ]
    stamps = [(rank, f"{stem}{SUFFIX}") for rank, stem in enumerate(stems)] if config.stamp_bytes else []
    rows = candidate_rows(result, release, config.sha256, config.mute)
    lines = occupancy_of(config, first_on, header.band_mhz, result.rejected_mhz)
    follow_up = follow_ups(rows, run)  # before the transaction that records them, because it takes longer
    message = partial(build_message, config, header, cadence_id, [path for _, path in pictures], follow_up=follow_up)
    return SearchRecord(
        candidates=rows,
        pictures=pictures,
        examples=examples,
        stamps=stamps,
        release=release,
        run=run,
        message=message if any(map(is_announced, rows)) else None,
        occupancy=lines,
    )


def occupancy_of(config: Config, first_on: Header, band_mhz: tuple[float, float], rejected_mhz: Any = ()) -> Occupancy:
    """Return what the memory of interference keeps of a cadence, or is asked with.

    Args:
        config: of the service.
        first_on: header of the first ON.
        band_mhz: lowest and highest frequency.
        rejected_mhz: frequencies of the lines that the search rejected.
    """
    return Occupancy(
        telescope_id=first_on.telescope_id,
        target=first_on.source_name,
        tstart=first_on.tstart,
        band_mhz=band_mhz,
        lines_mhz=rejected_mhz,
        memory=Memory(**config.memory.model_dump()),
    )


def on_positions(pattern: str) -> tuple[int, ...]:
    """Return the positions of the ONs in a pattern such as ABACAD."""
    return tuple(i for i, letter in enumerate(pattern) if letter == "A")


def scan_count(pattern: str) -> int:
    """Return how many observations a cadence has; a dot in its pattern is one that it is searched without."""
    return len(pattern.replace(".", ""))


def fill_missing(opened: Sequence[Observation], pattern: str) -> list[Observation]:
    """Return the observations in time order, with an observation without power for each dot in the pattern.

    A missing observation is dated by the median spacing of the others. A rest between two scans does not change it.
    """
    rest = iter(opened)
    present = {i: next(rest) for i, letter in enumerate(pattern) if letter != "."}
    starts = [(i, present[i].header.tstart) for i in sorted(present)]
    step_days = median((b - a) / (j - i) for (i, a), (j, b) in pairwise(starts))

    def absent(i: int) -> Observation:
        neighbor, steps = (present[i - 1].header, 1) if i else (present[1].header, -1)  # an ON, which is never missing
        tstart = neighbor.tstart + steps * step_days
        return absent_observation(replace(neighbor, tstart=tstart))

    return [present[i] if i in present else absent(i) for i in range(len(pattern))]


def by_probability(result: SearchResult) -> SearchResult:
    """Return a search result with the most probable candidate first; the brightest hit, if they are not scored."""

    def rank(row: Candidate) -> float:
        return row.proposer_score if row.probability is None else row.probability

    order = sorted(range(len(result.candidates)), key=lambda i: -rank(result.candidates[i]))
    return replace(
        result,
        candidates=tuple(result.candidates[i] for i in order),
        snippets=result.snippets[order] if len(result.snippets) else result.snippets,
        measurements=result.measurements[order],
    )


def candidate_rows(
    result: SearchResult, release: tuple[str, str], config_sha256: str, zones: Sequence[MuteZone] = ()
) -> list[dict[str, Any]]:
    """Return the rows of the `candidate` table.

    Args:
        result: candidates by decreasing probability.
        release: name and sha256.
        config_sha256: hash of the search options.
        zones: whose candidates are not announced.
    """
    origin = {
        "release_name": release[0],
        "release_sha256": release[1],
        "code_version": VERSION,
        "config_sha256": config_sha256,
    }
    rows = []
    for row in result.candidates:
        columns = {name: value for name, value in asdict(row).items() if name in candidate.c}
        columns["allocations"] = ", ".join(row.allocations)
        columns["latents_f32"], columns["latents"] = columns["latents"], []
        columns["muted"] = mute_reason(zones, row.frequency_mhz, row.tstart_mjd)
        rows.append(columns | origin)
    return rows


def mute_reason(zones: Sequence[MuteZone], mhz: float, mjd: float) -> str | None:
    """Return the reason of the first mute zone that holds a frequency on the day of an observation, None outside."""
    day = utc_of(int(mjd)).date()
    return next((zone.reason for zone in zones if zone.holds(mhz, day)), None)


def is_announced(row: Mapping[str, Any]) -> bool:
    """Return whether messages count a row: ONs and OFFs were measured, and no mute zone holds it."""
    return NOT_MEASURED not in (row.get("note") or "") and not row.get("muted")


def follow_ups(rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[int, str]:
    """Return a line for the observer for the first rows that are announced, by their numbers; none in a storm."""
    shown = [i for i, row in enumerate(rows) if is_announced(row)]
    return {i: observer_line(rows[i], run, time.time()) for i in shown[:FOLLOWED] if len(shown) <= STORM}


def build_message(
    config: Config,
    header: Header,
    cadence_id: int,
    pictures: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    follow_up: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the columns of the `outbox` table that announce a cadence.

    Args:
        config: of the service.
        header: of the first observation.
        cadence_id: of the page that the message links to.
        pictures: paths of those of the first rows. Not attached where `rows` are a storm.
        rows: as recorded in the `candidate` table, most probable first. Those that are not announced are left out.
        follow_up: lines for the observer, of the rows with these numbers.
    """
    drawn = dict(enumerate(pictures))
    shown = sorted((i for i, row in enumerate(rows) if is_announced(row)), key=lambda i: -rank(rows[i]))
    pictures, rows = [drawn[i] for i in shown if i in drawn], [rows[i] for i in shown]
    target, link = rows[0]["target"], config.web.url and f"{config.web.url}/cadences/{cadence_id}"
    names = (target, header.band_mhz, header.tstart, rows[0]["release_name"])
    text = message_text(*names, rows, link=link or "", follow_up=follow_up.get(shown[0], ""))
    return {
        "posters": config.posters or ("slack",),
        "state": "pending" if config.posters else "off",
        "text": text,
        "pictures": list(pictures[: config.slack.pictures]) if len(rows) <= STORM else [],
        "sequence": f"{header.telescope_id} {target}",
    }
