"""Write stamps: the power around a candidate, kept to look at it again when the files of its cadence are gone.

A stamp is a folder with an .h5 file for each scan, which `blimpy.Waterfall` and `aetherscan.io` open, and `stamp.json`,
which says what it was cut from. A file holds every row of 4,096 channels of the recording, as float32 with bitshuffle.
Noise takes 4 of the 24 bits of a float32, so the last 12 are rounded to zero, and bitshuffle packs these to nothing: a
stamp takes about 0.7 MB. float16 is no smaller, ends at 65,504, where recorders write 1e10, and for blimpy 16 bits are
integers.

All stamps together have a budget in bytes. When it is used up, the oldest stamps without a label are deleted first,
then those labeled otherwise; those labeled `candidate` are never deleted, and no further stamps are written then.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import case, delete, func, select

from aetherscan.header import ABSENT, SECONDS_PER_DAY, Header
from aetherscan.io import Observation, write_h5
from sentinel.errors import StoreError
from sentinel.failpoint import failpoint
from sentinel.store.filesystem import missing_mount, read_regular
from sentinel.store.queue import OWED, Store
from sentinel.store.schema import artefact, cadence_file, candidate, file

LOG = logging.getLogger(__name__)
CHANNELS = 4096
MOST_PIXELS = 2**23
"""In all scans together; of long recordings a stamp has fewer channels."""
ROUNDED_BITS = 12
SUFFIX = ".stamp"
DESCRIPTION = "stamp.json"
MOST_JSON = 2**20
FORMAT = 1
LEAST_FREE = 2**30
"""Bytes that stay free where stamps are written: the store may be on the same disk."""
BATCH = 50
"""Stamps that are deleted at a time."""


def scan_name(position: int) -> str:
    """Return the name of a scan's file; scans are counted from 1."""
    return f"scan-{position + 1}.h5"


def write_stamp(
    folder: Path,
    observations: Sequence[Observation],
    row: Mapping[str, Any],
    on: Sequence[int],
    about: Mapping[str, Any],
) -> tuple[str, int]:
    """Write the stamp of a candidate, whole or not at all; return the sha256 of its description and its size in bytes.

    Args:
        folder: of the stamp, which is replaced if it exists.
        observations: open, in time order; those without power are left out.
        row: of the table `candidate`.
        on: positions of the ONs.
        about: what else the description says.

    Raises:
        OSError: it cannot be written.
        ReadError: a file could not be read.
    """
    if missing := missing_mount(folder):
        raise FileNotFoundError(f"{folder}: {missing}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < LEAST_FREE:
        raise OSError(errno.ENOSPC, f"expected {LEAST_FREE} bytes free, found {free}", str(folder.parent))
    for part in folder.parent.glob(f".{escape(folder.name)}.*"):  # of a process that was killed
        shutil.rmtree(part, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        part.mkdir()
        scans = [_write_scan(part, i, observation, row, observations, on) for i, observation in enumerate(observations)]
        text = json.dumps({"format": FORMAT, **about, "scans": scans}, indent=1)
        (part / DESCRIPTION).write_text(text, encoding="utf-8")
        failpoint("mid-stamp")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return hashlib.sha256(text.encode()).hexdigest(), sum(path.stat().st_size for path in folder.iterdir())


def _write_scan(
    folder: Path,
    position: int,
    observation: Observation,
    row: Mapping[str, Any],
    observations: Sequence[Observation],
    on: Sequence[int],
) -> dict[str, Any] | None:
    """Write the part of one scan; return what the description says of it, None of one without power."""
    header = observation.header
    if header.source_name == ABSENT:
        return None
    start, stop = _channels(header, _middle_mhz(row, observations, on), sum(each.header.ntime for each in observations))
    power = observation.read(start, stop)
    cut = replace(header, fch1=header.frequency(start), nchans=stop - start, nifs=1, nbits=32, nfpc=None)
    path = folder / scan_name(position)
    kept = power if header.nbits < 32 else rounded(power)
    write_h5(path, cut, [kept], chunks=(header.ntime, 1, stop - start), writer="blimpy")
    whole = asdict(header)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "role": "ON" if position in on else "OFF",
        "channels": [start, stop],
        "header": whole,
        "header_sha256": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest(),
    }


def rounded(power: Any) -> Any:
    """Return float32 with its last `ROUNDED_BITS` bits rounded to zero: wrong by 1 part in 8,192 at most."""
    bits = power.view(np.uint32)
    half, mask = np.uint32(1 << (ROUNDED_BITS - 1)), np.uint32(0xFFFFFFFF << ROUNDED_BITS & 0xFFFFFFFF)
    near = ((bits + half) & mask).view(np.float32)
    return np.where(np.isfinite(power) & np.isfinite(near), near, power)


def _middle_mhz(row: Mapping[str, Any], observations: Sequence[Observation], on: Sequence[int]) -> float:
    """Return the frequency of a track half-way through the cadence."""
    headers = [observation.header for observation in observations]
    first, end = headers[on[0]].tstart, headers[-1].tstart + headers[-1].duration_s / SECONDS_PER_DAY
    at_s = ((headers[0].tstart + end) / 2 - first) * SECONDS_PER_DAY
    bend = row["curvature_hz_s2"] or 0.0
    return float(row["frequency_mhz"] + (row["drift_rate_hz_s"] * at_s + bend / 2 * at_s**2) * 1e-6)


def _channels(header: Header, mhz: float, rows: int) -> tuple[int, int]:
    """Return the first channel of a stamp and the one after its last: around a frequency, within the band."""
    count = min(CHANNELS, header.nchans, max(1, MOST_PIXELS // rows))
    start = min(max(0, round(header.channel(mhz)) - count // 2), header.nchans - count)
    return start, start + count


def described(store: Store, row: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the description of a stamp says beside its scans: candidate, release, files, counts of every stage.

    Args:
        store: that holds the candidate.
        row: of the table `candidate`.
        run: of its cadence.
    """
    names = ("cadence_id", "frequency_mhz", "drift_rate_hz_s", "curvature_hz_s2", "bandwidth_hz", "snr", "probability")
    origin = ("release_name", "release_sha256", "code_version", "config_sha256", "target", "tstart_mjd")
    columns = (cadence_file.c.position, file.c.observation, file.c.path, file.c.size)
    members = select(*columns).join(file, file.c.observation == cadence_file.c.observation)
    members = members.where(cadence_file.c.cadence_id == row["cadence_id"], file.c.present.is_(True))
    with store.read() as rows:
        files = [dict(line) for line in rows.execute(members.order_by(cadence_file.c.position)).mappings()]
    facts = {name: row[name] for name in (*names, *origin)}
    searched = {name: run.get(name) for name in ("counts", "polarization", "roles", "warnings")}
    return {"candidate_id": row["id"], **facts, **searched, "files": files}


def make_room(store: Store, needed: int, budget: int) -> bool:
    """Delete stamps until one more fits into the budget; return whether it does.

    Args:
        store: that holds the names of all stamps.
        needed: size of the next one, bytes.
        budget: of all together, bytes.
    """
    stamps = artefact.outerjoin(candidate, artefact.c.candidate_id == candidate.c.id)
    written = (artefact.c.kind == "stamp") & (artefact.c.sha256 != OWED)
    order = case((candidate.c.label_in_force.is_(None), 0), else_=1), artefact.c.id
    spare = select(artefact.c.id, artefact.c.path, artefact.c.bytes).select_from(stamps)
    spare = spare.where(written, candidate.c.label_in_force.is_distinct_from("candidate")).order_by(*order).limit(BATCH)
    while True:
        with store.read() as rows:
            used = rows.scalar(select(func.sum(artefact.c.bytes)).where(written)) or 0
            oldest = rows.execute(spare).all() if used + needed > budget else ()
        if used + needed <= budget:
            return True
        if needed > budget or not oldest:
            return False
        gone = []
        for row in oldest:
            if Path(row.path).suffix == SUFFIX:
                shutil.rmtree(row.path, ignore_errors=True)
            gone.append(row.id)
            used -= row.bytes or 0
            if used + needed <= budget:
                break
        with store.write() as rows:
            rows.execute(delete(artefact).where(artefact.c.id.in_(gone)))


def read_stamp(folder: Path, sha256: str) -> tuple[dict[str, Any], list[Path]]:
    """Return the description of a stamp and the paths of its scans, after a check of all checksums.

    Args:
        folder: of the stamp.
        sha256: of its description, as the store has it.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        text = read_regular(folder / DESCRIPTION, MOST_JSON)
        found = json.loads(text)
        scans = [scan for scan in found["scans"] if scan]
        sums = {folder / scan_name(found["scans"].index(scan)): scan["sha256"] for scan in scans}
        sound = hashlib.sha256(text).hexdigest() == sha256
        damaged = [path for path, expected in sums.items() if hashlib.sha256(path.read_bytes()).hexdigest() != expected]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder}: expected a stamp, found {error}") from error
    if damaged or not sound:
        raise StoreError(f"{(damaged or [folder / DESCRIPTION])[0]}: expected the checksum of the store, found another")
    return found, list(sums)
