"""Which files are there, and which of them are whole. A scan is the truth; events only make the next one come sooner.

Events of inotify are lost in bursts, are not sent for whole folders moved in, and never tell of another host's
writes, while a scan of 10,000 files takes milliseconds. So a pass compares what `scandir` sees with the rows, and a
file moves on only when size, time and inode stood still for `settle_s`. What a file *is*, its header says; a file
that was renamed, moved or copied is the same observation under another path. Nothing under a watched folder is ever
written.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, select, update

from aetherscan.errors import ReadError, TruncatedFileError
from aetherscan.observation import Header
from sentinel.config import Watch
from sentinel.failpoint import failpoint
from sentinel.mounts import file_system, is_network
from sentinel.schema import file, now
from sentinel.store import Store, insert_once

LOG = logging.getLogger(__name__)
AT_ONCE = 50
"""Files verified in one pass, newest first, so that a backlog does not hold up what is ready to be searched."""
COLUMNS = (
    file.c.id,
    file.c.path,
    file.c.size,
    file.c.mtime_ns,
    file.c.inode,
    file.c.state,
    file.c.present,
    file.c.cause,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A file as one scan saw it."""

    path: str
    size: int
    mtime_ns: int
    inode: str


def scan(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Sighting]:
    """Yield every file under `root` whose path below it matches; dot-files are temporary copies."""
    folders = [os.fspath(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                below = os.path.relpath(entry.path, root)
                if entry.name.startswith(".") or any(fnmatch(below, pattern) for pattern in exclude):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif any(fnmatch(below, pattern) for pattern in include) and (seen := _sighting(entry)):
                    yield seen


def _sighting(entry: os.DirEntry[str]) -> Sighting | None:
    try:
        entry.path.encode()  # a name that is no text cannot be written to the store
        if not entry.is_file():
            return None
        at = entry.stat()
    except (OSError, UnicodeEncodeError):
        LOG.warning("passed over %r: it vanished, or its name is not UTF-8", entry.path)
        return None
    return Sighting(path=entry.path, size=at.st_size, mtime_ns=at.st_mtime_ns, inode=str(at.st_ino))


def look(store: Store, watch: Watch, verify: Callable[[Path], Header]) -> int:
    """Make one pass over all roots; return how many files have just been found valid."""
    for root in watch.roots:
        try:
            sightings = {one.path: one for one in scan(root, watch.include, watch.exclude)}
        except OSError as error:
            LOG.warning("%s: cannot be scanned, its files keep their states: %s", root, error)
            continue
        _reconcile(store, root, sightings, watch.settle_s)
    with store.read() as rows:
        wanted = (file.c.state == "stable") & file.c.present.is_(True) & (file.c.look_at <= now())
        stable = rows.execute(
            select(*COLUMNS, (now() - file.c.changed_at).label("age_s"))
            .where(wanted)
            .order_by(file.c.mtime_ns.desc())
            .limit(AT_ONCE)
        ).all()
    return sum([_examine(store, row, watch, verify) for row in stable])


def _reconcile(store: Store, root: Path, sightings: Mapping[str, Sighting], settle_s: float) -> None:
    """Bring the rows of one root in line with what was seen there."""
    below = file.c.path.startswith(f"{root}{os.sep}", autoescape=True)
    with store.read() as rows:
        known = {row.path: row for row in rows.execute(select(*COLUMNS).where(below))}
    new = [one for path, one in sightings.items() if path not in known]
    changed = [one for path, one in sightings.items() if path in known and not _same(known[path], one)]
    gone = [row.id for path, row in known.items() if row.present and path not in sightings]
    back = [row.id for path, row in known.items() if not row.present and path in sightings]
    unsettled = [
        row.id
        for path, row in known.items()
        if row.state == "seen" and path in sightings and _same(row, sightings[path])
    ]
    if new:
        failpoint("seen")
    if not (new or changed or gone or back or unsettled):
        return
    again: dict[str, Any] = {"state": "seen", "changed_at": now(), "look_at": now(), "present": True, "cause": None}
    with store.write() as rows:
        for one in new:
            rows.execute(insert_once(rows, file).values(**asdict(one), **again))
        for one in changed:
            unread = {"observation": None, "tstart": None, "header": None}
            rows.execute(update(file).where(file.c.path == one.path).values(**asdict(one), **again, **unread))
        for ids, values in ((gone, {"present": False}), (back, {"present": True})):
            for i in ids:
                rows.execute(update(file).where(file.c.id == i).values(**values))
        for i in unsettled:
            settled = (file.c.id == i) & (file.c.changed_at <= now() - settle_s)
            rows.execute(update(file).where(settled).values(state="stable", stable_at=now()))
        # A file that left before it was understood is no observation: under its new name it is seen anew.
        rows.execute(delete(file).where(file.c.present.is_(False), file.c.state.in_(("seen", "stable"))))
    if new:
        failpoint("file-row")


def _same(row: Any, one: Sighting) -> bool:
    return (row.size, row.mtime_ns, row.inode) == (one.size, one.mtime_ns, one.inode)


def _examine(store: Store, row: Row[Any], watch: Watch, verify: Callable[[Path], Header]) -> bool:
    """Open a stable file and say what it is; return whether it is valid.

    Whatever a reader raises must not keep the other files waiting: what is not known to be final is looked at again.
    """
    values: dict[str, Any]
    try:
        header = verify(Path(row.path))
    except Exception as error:  # noqa: BLE001
        final = isinstance(error, ReadError) and not isinstance(error, TruncatedFileError)
        cause = f"{type(error).__name__}: {error}"
        if final or row.age_s > watch.give_up_s:
            LOG.warning("invalid: %s", cause)
            values = {"state": "invalid", "cause": cause}
        else:
            values = {"look_at": now() + watch.look_again_s, "cause": cause}
    else:
        identity = f"{header.identity}-{row.size}"
        values = {
            "state": "valid",
            "cause": None,
            "observation": identity,
            "tstart": header.tstart,
            "header": asdict(header),
            "grouped": False,
        }
    unchanged = (file.c.id == row.id) & (file.c.mtime_ns == row.mtime_ns) & (file.c.size == row.size)
    with store.write() as rows:
        rows.execute(update(file).where(unchanged).values(**values))
    return values.get("state") == "valid"


def listen(roots: Sequence[Path], ring: Callable[[], None]) -> Callable[[], None]:
    """Call `ring` when something may have landed in a root on a local disk; return what ends the listening."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Waker(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in ("created", "moved", "closed"):
                ring()

    observer = Observer()
    for root in roots:
        if is_network(kind := file_system(root)):
            LOG.info("%s: %s shows no other host's writes: scanned only", root, kind)
        else:
            observer.schedule(Waker(), str(root), recursive=True)
    try:
        observer.start()
    except OSError as error:
        LOG.warning("no events, scanned only: %s (raise fs.inotify.max_user_watches)", error)
        return lambda: None
    return observer.stop
