"""Draw the waterfalls of recorded candidates, and write their training examples and stamps.

A search is recorded first. Its files are rows of the table `artefact` without a checksum (`OWED`) until they are
written. What could not be written, because the folder or the disk was full or unwritable, a drawing failed or the
worker died, is tried again by any worker while the observations are there. A picture is uploaded to the thread of the
message once it exists.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update

from aetherscan.errors import AetherscanError
from aetherscan.io import open_cadence
from aetherscan.plotting.waterfall import waterfall_png
from aetherscan.search.candidates import Candidate
from sentinel.errors import StoreError
from sentinel.failpoint import failpoint
from sentinel.notify.outbox import resume_uploads
from sentinel.store.filesystem import missing_mount
from sentinel.store.queue import OWED, Store, retry_while_away
from sentinel.store.schema import artefact, cadence, candidate, in_last, latents_of, now
from sentinel.workers.search import fill_missing, on_positions, scan_count
from sentinel.workers.stamps import described, make_room, write_stamp

LOG = logging.getLogger(__name__)
EXAMPLES: dict[str, bytes] = {}
"""Training examples of this process that are not written yet, by path. Lost with the process."""
MAX_EXAMPLES = 200
"""About 50 KB each."""
WRITER_S = 120.0
"""For this long after a record, in seconds, only the worker that made it writes its files."""
GIVE_UP_S = 7 * 86_400.0
"""After this time, in seconds, a file is not owed any more."""
LONGEST_WAIT_S = 3600.0
_waits: dict[int, tuple[float, float]] = {}
"""For a cadence whose files could not be written: the time of the next attempt, and the wait after it, in seconds."""


def draw_recorded(
    store: Store, cadence_id: int, examples: Sequence[tuple[int, str, bytes]], stamp_bytes: int = 0
) -> int:
    """Write the files of a cadence that was just recorded; log any error, since the candidates are safe.

    Args:
        store: that holds the record.
        cadence_id: the recorded cadence.
        examples: rank of the candidate, path and content.
        stamp_bytes: budget of all stamps.

    Returns:
        The number of files written.
    """
    EXAMPLES.update({path: content for _, path, content in examples})
    while len(EXAMPLES) > MAX_EXAMPLES:
        LOG.warning("%s: too many training examples wait for the disk: dropped", drop := next(iter(EXAMPLES)))
        del EXAMPLES[drop]
    return _draw(store, cadence_id, stamp_bytes)


def draw_owed(store: Store, wait_s: float = 30.0, stamp_bytes: int = 0) -> int:
    """Write the files that earlier attempts could not, one cadence after another; return the number written.

    Args:
        store: that holds the records.
        wait_s: wait after the first failure at a cadence, seconds; it doubles with each.
        stamp_bytes: budget of all stamps.
    """
    owed = artefact.c.sha256 == OWED
    drawn = ("waterfall", "stamp") if stamp_bytes else ("waterfall",)
    possible = artefact.c.kind.in_(drawn) | artefact.c.path.in_(list(EXAMPLES))
    which = select(artefact.c.cadence_id).join(cadence).where(owed).distinct().order_by(artefact.c.cadence_id)
    with store.read() as rows:
        old = list(rows.scalars(which.where(cadence.c.ended_at < now() - GIVE_UP_S)))
        ids = list(rows.scalars(which.where(possible, ~in_last(cadence.c.ended_at, WRITER_S))))
    for cadence_id in old:
        _forget(store, cadence_id)
    written = 0
    for cadence_id in ids:
        at, wait = _waits.get(cadence_id, (0.0, wait_s))
        if time.monotonic() < at:
            continue
        count = _draw(store, cadence_id, stamp_bytes)
        written += count
        _waits[cadence_id] = (time.monotonic() + wait, min(2 * wait, LONGEST_WAIT_S))
        if not count:
            break  # most likely the others would fail for the same reason
    for cadence_id in _waits.keys() - set(ids):
        del _waits[cadence_id]
    return written


def waterfalls(
    paths: Sequence[Path],
    pattern: str,
    rows: Sequence[Mapping[str, Any]],
    polarization: int | None = None,
    *,
    track: bool = True,
) -> Iterator[Callable[[], bytes]]:
    """Yield for each row of the table `candidate` a function that draws its waterfall and returns the PNG.

    Args:
        paths: the observations that exist, in time order.
        pattern: of the cadence.
        rows: of the table `candidate`.
        polarization: product that was searched.
        track: whether lines show where the track is.
    """
    on = on_positions(pattern)
    with open_cadence(paths, polarization) as opened:
        observations = fill_missing(opened, pattern)
        for row in rows:
            yield partial(waterfall_png, observations, _candidate(row), on, track=track)


def write_file(path: Path, content: bytes) -> tuple[str, str]:
    """Write a file whole or not at all; return its path and sha256.

    Raises:
        OSError: it cannot be written, or its disk is not mounted.
    """
    if missing := missing_mount(path):
        raise FileNotFoundError(f"{path}: {missing}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial_file.write_bytes(content)
        failpoint("mid-picture")
        partial_file.replace(path)
    except OSError:
        partial_file.unlink(missing_ok=True)
        raise
    return str(path), hashlib.sha256(content).hexdigest()


def _draw(store: Store, cadence_id: int, stamp_bytes: int) -> int:
    """Write the files that a cadence owes, as far as possible; return how many were written."""
    written: dict[int, dict[str, Any]] = {}

    def write(row: Mapping[str, Any], content: bytes) -> None:
        written[row["file"]] = {"sha256": write_file(Path(row["path"]), content)[1]}

    try:
        pattern, run, files = retry_while_away(lambda: _owed_files(store, cadence_id))
        for row in files["example"]:
            if row["path"] in EXAMPLES:
                write(row, EXAMPLES[row["path"]])
                del EXAMPLES[row["path"]]
        owed = files["waterfall"] or (files["stamp"] and stamp_bytes)
        paths = store.paths(cadence_id) if owed else ()
        if len(paths) == scan_count(pattern):
            _draw_waterfalls(waterfalls(paths, pattern, files["waterfall"], run.get("polarization")), files, write)
            if stamp_bytes:
                _write_stamps(store, (paths, pattern, run), files["stamp"], stamp_bytes, written)
    except Exception as error:  # noqa: BLE001
        LOG.warning(
            "cadence %d is recorded; its pictures are drawn later: %s: %s", cadence_id, type(error).__name__, error
        )
    if written:
        retry_while_away(lambda: _mark_written(store, cadence_id, written))
    return len(written)


def _draw_waterfalls(
    draws: Iterator[Callable[[], bytes]],
    files: Mapping[str, Sequence[Mapping[str, Any]]],
    write: Callable[[Mapping[str, Any], bytes], None],
) -> None:
    for row, draw in zip(files["waterfall"], draws, strict=True):
        try:
            write(row, draw())
        except (OSError, AetherscanError, StoreError):
            raise
        except Exception:
            LOG.exception("%s: not drawn; the candidate is recorded", row["path"])


def _write_stamps(
    store: Store,
    of: tuple[Sequence[Path], str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    budget: int,
    written: dict[int, dict[str, Any]],
) -> None:
    """Write the stamps of a cadence, and note each in `written`; give up those beyond the budget.

    Args:
        store: that holds the record.
        of: paths of the observations that exist, pattern and run of the cadence.
        rows: of the table `candidate`, with the stamp that each owes.
        budget: of all stamps, bytes.
        written: receives checksum and size of each.
    """
    paths, pattern, run = of
    on = on_positions(pattern)
    with open_cadence(paths, run.get("polarization")) as opened:
        observations = fill_missing(opened, pattern)
        for row in rows:
            folder = Path(row["path"])
            sha256, size = write_stamp(folder, observations, row, on, described(store, row, run))
            unmarked = sum(each.get("bytes", 0) for each in written.values())
            if make_room(store, unmarked + size, budget):
                written[row["file"]] = {"sha256": sha256, "bytes": size}
            else:
                LOG.warning("%s: no stamp: the budget is used up by stamps labeled candidate", folder)
                shutil.rmtree(folder, ignore_errors=True)
                with store.write() as changes:
                    changes.execute(delete(artefact).where(artefact.c.id == row["file"]))


def _owed_files(store: Store, cadence_id: int) -> tuple[str, dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return pattern and run of a cadence, and its candidates' rows that owe a file, by its kind."""
    mine = (artefact.c.cadence_id == cadence_id) & (artefact.c.sha256 == OWED)
    columns = select(artefact.c.id.label("file"), artefact.c.kind, artefact.c.path, candidate)
    owed = columns.join(candidate, artefact.c.candidate_id == candidate.c.id).where(mine).order_by(artefact.c.id)
    with store.read() as rows:
        pattern, run = rows.execute(select(cadence.c.pattern, cadence.c.run).where(cadence.c.id == cadence_id)).one()
        files = [dict(row) for row in rows.execute(owed).mappings()]
    kinds = {kind: [row for row in files if row["kind"] == kind] for kind in ("waterfall", "example", "stamp")}
    return str(pattern), run or {}, kinds


def _mark_written(store: Store, cadence_id: int, written: Mapping[int, Mapping[str, Any]]) -> None:
    with store.write() as rows:
        for file_id, values in written.items():
            rows.execute(update(artefact).where(artefact.c.id == file_id).values(**values))
            drawn = (artefact.c.id == file_id) & (artefact.c.kind == "waterfall")
            path = select(artefact.c.path).where(drawn).scalar_subquery()
            picture = update(candidate).where(candidate.c.id.in_(select(artefact.c.candidate_id).where(drawn)))
            rows.execute(picture.values(picture=path))
        resume_uploads(rows, cadence_id)


def _forget(store: Store, cadence_id: int) -> None:
    """Give up the files that a cadence still owes."""
    owed = (artefact.c.cadence_id == cadence_id) & (artefact.c.sha256 == OWED)
    with store.write() as rows:
        paths = list(rows.scalars(delete(artefact).where(owed).returning(artefact.c.path)))
        resume_uploads(rows, cadence_id, without=paths)
    LOG.warning("cadence %d: not drawn for %g days, given up: %d files", cadence_id, GIVE_UP_S / 86_400, len(paths))


def _candidate(row: Mapping[str, Any]) -> Candidate:
    values = {field.name: row.get(field.name) for field in fields(Candidate)}
    names = {"allocations": tuple(filter(None, str(row.get("allocations") or "").split(", ")))}
    numbers = {"snr": tuple(row["snr"]), "latents": tuple(latents_of(row))}
    numbers["valid"] = tuple(row["valid"] or [1.0] * len(row["snr"]))
    bend = {"curvature_hz_s2": row["curvature_hz_s2"] or 0.0}  # null before version 9 of the store
    return Candidate(**{**values, **names, **numbers, **bend, "release": row["release_name"]})
