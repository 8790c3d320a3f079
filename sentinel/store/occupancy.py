"""Memory of interference: at which frequencies each cadence had lines that its search rejected.

A candidate says nothing of what else was seen at its frequency. Therefore a search records the frequencies of the lines
that it let go of, in bins of 1 kHz, and each candidate is compared with the cadences nearest in time that cover its
frequency. An emitter in a side lobe is bright in other pointings, so its frequency is known there. What is remembered
is a remark and an order, and never removes a candidate.

A cadence takes a few KB. The newest cadences are kept, by the order in which they were recorded, so that a clock which
was set back deletes nothing.
"""

import logging
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, insert, select

from sentinel.store.schema import occupancy

LOG = logging.getLogger(__name__)
BIN_HZ = 1000.0
REACH = 0.5
"""Bins to either side in which a line counts as the same. A transmitter on the ground moves by less than 500 Hz."""
APART_DAYS = 1 / 48
"""Cadences that start within this time may share scans, as copies or band slices, so they do not count."""
MOST_LINES = 255
"""Largest count in a bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much is remembered.

    Attributes:
        cadences: nearest in time that a candidate is compared with; 0 for none.
        keep: cadences whose lines are kept.
    """

    cadences: int = 40
    keep: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """The lines that the search of a cadence rejected.

    Attributes:
        telescope_id: SIGPROC number.
        target: of the cadence.
        tstart: MJD, UTC, of its first ON.
        band_mhz: lowest and highest frequency.
        lines_mhz: frequencies of the lines.
        memory: how much is remembered.
    """

    telescope_id: int
    target: str
    tstart: float
    band_mhz: tuple[float, float]
    lines_mhz: Any
    memory: Memory = Memory()


def pack_lines(lines_mhz: Any) -> bytes:
    """Return a histogram of frequencies as bytes: bins of `BIN_HZ` that hold a line, and how many."""
    bins, counts = np.unique(_bins(lines_mhz), return_counts=True)
    steps = np.diff(bins, prepend=0).astype("<u4")
    return zlib.compress(
        struct.pack("<I", len(bins)) + steps.tobytes() + counts.clip(0, MOST_LINES).astype("u1").tobytes()
    )


def unpack_lines(packed: bytes) -> tuple[Any, Any]:
    """Return the bins of a packed histogram, ascending, and the count of each.

    Raises:
        ValueError: the bytes are damaged.
    """
    try:
        raw = zlib.decompress(packed)
        (count,) = struct.unpack_from("<I", raw)
        bins = np.cumsum(np.frombuffer(raw, "<u4", count, 4), dtype=np.int64)
        return bins, np.frombuffer(raw, "u1", count, 4 + 4 * count)
    except (zlib.error, struct.error) as error:
        raise ValueError(str(error)) from error


def remember(rows: Connection, cadence_id: int, lines: Occupancy) -> None:
    """Record the rejected lines of a cadence, in place of those of an earlier search of it, and forget the oldest.

    Args:
        rows: of the open transaction.
        cadence_id: of the cadence.
        lines: what its search rejected.
    """
    rows.execute(delete(occupancy).where(occupancy.c.cadence_id == cadence_id))
    values = {
        "telescope_id": lines.telescope_id,
        "target": lines.target,
        "tstart": lines.tstart,
        "band_low_mhz": lines.band_mhz[0],
        "band_high_mhz": lines.band_mhz[1],
        "bin_hz": BIN_HZ,
        "lines": len(lines.lines_mhz),
        "bins": pack_lines(lines.lines_mhz),
    }
    if lines.memory.keep:
        rows.execute(insert(occupancy).values(cadence_id=cadence_id, **values))
    kept = select(occupancy.c.id).order_by(occupancy.c.id.desc())
    oldest = rows.scalar(kept.offset(lines.memory.keep).limit(1))
    rows.execute(delete(occupancy).where(occupancy.c.id <= (oldest or 0)))


def recall(rows: Connection, lines: Occupancy, frequencies_mhz: Sequence[float]) -> list[dict[str, Any]]:
    """Return for each frequency the columns `seen_*` of a candidate of this cadence.

    Args:
        rows: of the open transaction.
        lines: of the cadence itself, which does not count.
        frequencies_mhz: of its candidates.
    """
    seen: list[dict[str, Any]] = [
        {"seen_cadences": 0, "seen_of": 0, "seen_targets": 0, "last_seen_mjd": None} for _ in frequencies_mhz
    ]
    targets: list[set[str]] = [set() for _ in frequencies_mhz]
    place = np.asarray(frequencies_mhz, dtype=np.float64) * 1e6 / BIN_HZ
    wanted = np.floor(place - REACH), np.floor(place + REACH)
    for entry, bins in _nearest(rows, lines) if frequencies_mhz else ():
        first, last = np.searchsorted(bins, wanted[0]), np.searchsorted(bins, wanted[1], side="right")
        for facts, names, mhz, near in zip(seen, targets, frequencies_mhz, last > first, strict=True):
            if facts["seen_of"] >= lines.memory.cadences or not entry.band_low_mhz <= mhz <= entry.band_high_mhz:
                continue
            facts["seen_of"] += 1
            if near:
                facts["seen_cadences"] += 1
                facts["last_seen_mjd"] = max(entry.tstart, facts["last_seen_mjd"] or 0.0)
                names.update({entry.target} - {lines.target})
    for facts, names in zip(seen, targets, strict=True):
        facts["seen_targets"] = len(names)
    return seen


def lines_at(rows: Connection, mhz: float, memory: Memory) -> dict[str, Any] | None:
    """Return the columns `seen_*` of a frequency in the newest cadences of a telescope, or None if none covers it.

    Args:
        rows: of the open transaction.
        mhz: the frequency. The telescope is that of the newest cadence which covers it.
        memory: how many cadences are compared.
    """
    covers = (occupancy.c.band_low_mhz <= mhz) & (occupancy.c.band_high_mhz >= mhz)
    newest = select(occupancy.c.telescope_id, occupancy.c.tstart).where(covers).order_by(occupancy.c.tstart.desc())
    found = rows.execute(newest.limit(1)).first()
    if found is None or not memory.cadences:
        return None
    afterwards = Occupancy(
        telescope_id=found.telescope_id,
        target="",
        tstart=found.tstart + 1.0,
        band_mhz=(mhz, mhz),
        lines_mhz=(),
        memory=memory,
    )
    return recall(rows, afterwards, [mhz])[0]


def _bins(mhz: Any) -> Any:
    return np.floor(np.asarray(mhz, dtype=np.float64) * 1e6 / BIN_HZ).astype(np.int64)


def _nearest(rows: Connection, lines: Occupancy) -> list[tuple[Any, Any]]:
    """Return the recorded cadences of the telescope that overlap the band, nearest in time first, with their bins."""
    low, high = lines.band_mhz
    same = (occupancy.c.telescope_id == lines.telescope_id) & (occupancy.c.bin_hz == BIN_HZ)
    covers = same & (occupancy.c.band_low_mhz <= high) & (occupancy.c.band_high_mhz >= low)
    before = occupancy.c.tstart < lines.tstart - APART_DAYS, occupancy.c.tstart.desc()
    after = occupancy.c.tstart > lines.tstart + APART_DAYS, occupancy.c.tstart
    entries = [
        entry
        for which, order in (before, after)
        for entry in rows.execute(select(occupancy).where(covers, which).order_by(order).limit(lines.memory.cadences))
    ]
    nearest = []
    for entry in sorted(entries, key=lambda entry: abs(entry.tstart - lines.tstart)):
        try:
            nearest.append((entry, unpack_lines(entry.bins)[0]))
        except ValueError as error:
            LOG.warning("occupancy of cadence %d: left out, damaged: %s", entry.cadence_id, error)
    return nearest
