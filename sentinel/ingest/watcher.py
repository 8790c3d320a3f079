"""Which files are there, and which of them are whole. A scan is the truth; events only make the next one come sooner.

Events of inotify are lost in bursts, are not sent for whole folders moved in, and never tell of another host's
writes, while a scan of 10,000 files takes milliseconds. So a pass compares what `scandir` sees with the rows, and a
file moves on only when size, time and inode stood still for `settle_s`. What a file *is*, its header says; a file
that was renamed, moved or copied is the same observation under another path. Nothing under a watched folder is ever
written.
"""

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, literal, select, update

from aetherscan.cadence.grouping import SAME_SCAN_S
from aetherscan.errors import ReadError, TruncatedFileError
from aetherscan.header import SECONDS_PER_DAY, Header
from sentinel.config import Signals, Watch
from sentinel.failpoint import failpoint
from sentinel.store.filesystem import file_system, is_network
from sentinel.store.migrations import lock_writers
from sentinel.store.queue import Store, batches, insert_if_absent
from sentinel.store.schema import file, now

LOG = logging.getLogger(__name__)
AT_ONCE, OPENING_S = 50, 1.0
"""Files opened in one pass, newest first, and how long that may take: a backlog must not hold up what is ready."""
STABLE = {"state": "stable", "stable_at": now()}
MANIFEST = "zmanifest.csv"
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
class FileStat:
    """A file as one scan saw it."""

    path: str
    size: int
    mtime_ns: int
    inode: str
    whole: bool | None = None  # what a signal says; None where there is none


SIGNALED = (True, False, None)


def scan(root: Path, watch: Watch, unread: list[str]) -> Iterator[FileStat]:
    """Yield every file under `root` that is wanted; folders that cannot be read are added to `unread`.

    Dot-files are temporary copies. A link to a folder is followed, once however often it is met.
    """
    folders, met = [os.fspath(root)], set[tuple[int, int]]()
    wanted, unwanted, above = _like(watch.include), _like(watch.exclude), len(folders[0].rstrip("/"))
    while folders:
        folder = folders.pop()
        try:
            at = Path(folder).stat()
            with os.scandir(folder) as found:
                entries = [] if (at.st_dev, at.st_ino) in met else list(found)
        except OSError as error:
            LOG.warning("%r cannot be read, its files keep their states: %s", folder, error)
            unread.append(folder)
            continue
        met.add((at.st_dev, at.st_ino))
        listed = _listed(folder) if watch.signals.manifest and any(one.name == MANIFEST for one in entries) else {}
        names = {entry.name for entry in entries}
        for entry in entries:
            below = entry.path[above:]
            if entry.name.startswith(".") or unwanted.match(below):
                continue
            if _is_folder(entry):
                folders.append(entry.path)
            elif wanted.match(below) and (seen := _sighting(entry, names, listed, watch.signals)):
                yield seen


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a stale handle, a link in a circle
        return False


@lru_cache
def _like(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return what matches a path below a root, with a slash before it, as the patterns do; `**/` may be no folder."""
    slashed = [f"/{pattern}" for pattern in patterns]
    either = [translate(one) for pattern in slashed for one in (pattern, pattern.replace("/**/", "/"))]
    return re.compile("|".join(either) or "(?!)")


def _listed(folder: str) -> dict[str, str]:
    """Return the sizes that a manifest of `name,size` lines gives; a line that is none says nothing."""
    try:
        lines = Path(folder, MANIFEST).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return {}
    return {name: size.strip() for name, _, size in (line.rpartition(",") for line in lines)}


def _sighting(
    entry: os.DirEntry[str], names: AbstractSet[str], listed: Mapping[str, str], signals: Signals
) -> FileStat | None:
    try:
        if not entry.is_file():
            return None
        at = entry.stat()
    except OSError as error:
        LOG.info("passed over %r: %s", entry.path, error)
        return None
    base, product, _ = entry.name.rpartition(".rawspec.")
    done = signals.done_file and bool(product) and f"{base}.rawspec.done" in names
    whole = True if signals.renamed or done or (signals.move_done and "move.done" in names) else None
    if size := listed.get(entry.name):
        whole = size == str(at.st_size)
    return FileStat(path=entry.path, size=at.st_size, mtime_ns=at.st_mtime_ns, inode=str(at.st_ino), whole=whole)


@dataclass(slots=True, kw_only=True)
class Scanner:
    """Opens what is stable at every look, but scans only when it is time to.

    That is each `scan_s`, and sooner after an event; but scanning a large tree takes no more than a fifth of the time.
    """

    store: Store
    watch: Watch
    verify: Callable[[Path], Header]
    wake: Callable[[], None]
    _landed: bool = True
    _began: float = -math.inf
    _took: float = 0.0

    def on_event(self) -> None:
        """Take note that something may have landed."""
        self._landed = True
        self.wake()

    def scan_and_open(self) -> None:
        """Scan, if it is time to, and open files that are stable; where more wait, ring to be called again at once."""
        began = time.monotonic()
        if began - self._began >= (4 * self._took if self._landed else self.watch.scan_s):
            self._landed, self._began = False, began
            scan_roots(self.store, self.watch)
            self._took = time.monotonic() - began
        if open_stable(self.store, self.watch, self.verify):
            self.wake()


def scan_roots(store: Store, watch: Watch) -> None:
    """Bring the rows of files in line with what is in the folders."""
    for root in watch.roots:
        unread: list[str] = []
        sightings = {one.path: one for one in scan(root, watch, unread)}
        _reconcile(store, root, sightings, unread, watch)


def open_stable(store: Store, watch: Watch, verify: Callable[[Path], Header]) -> bool:
    """Open files that are stable, for a moment; return whether more may wait."""
    with store.read() as rows:
        # A time in the future was written before the clock was set back.
        due = (file.c.look_at <= now()) | (file.c.look_at > now() + watch.look_again_s)
        wanted = (file.c.state == "stable") & file.c.present.is_(True) & due
        stable = rows.execute(
            select(*COLUMNS, (now() - file.c.changed_at).label("age_s"))
            .where(wanted)
            .order_by(file.c.mtime_ns.desc())
            .limit(AT_ONCE)
        ).all()
    opened: list[tuple[Row[Any], dict[str, Any]]] = []
    end = time.monotonic() + OPENING_S
    for row in stable:
        opened.append((row, _examine(store, row, watch, verify)))
        if time.monotonic() > end:
            break
    if opened:
        with store.write() as rows:
            lock_writers(rows)  # two that change the same files in another order would wait for each other
            for row, values in opened:
                unchanged = (file.c.id == row.id) & (file.c.mtime_ns == row.mtime_ns) & (file.c.size == row.size)
                rows.execute(update(file).where(unchanged).values(**values))
    return len(opened) == AT_ONCE or len(opened) < len(stable)


def _reconcile(
    store: Store, root: Path, sightings: Mapping[str, FileStat], unread: Sequence[str], watch: Watch
) -> None:
    """Bring the rows of one root in line with what was seen there."""
    below = file.c.path.startswith(f"{root}{os.sep}", autoescape=True)
    with store.read() as rows:
        known = {row.path: row for row in rows.execute(select(*COLUMNS).where(below))}
    hidden = tuple(f"{folder}{os.sep}" for folder in unread)
    new = [one for path, one in sightings.items() if path not in known]
    changed = [one for path, one in sightings.items() if path in known and not _same(known[path], one)]
    lost = [row for path, row in known.items() if row.present and path not in sightings]
    gone = [row.id for row in lost if not row.path.startswith(hidden)]
    back = [row.id for path, row in known.items() if not row.present and path in sightings]
    waiting = [
        (row.id, sightings[path].whole)
        for path, row in known.items()
        if row.state == "seen" and path in sightings and _same(row, sightings[path])
    ]
    if new:
        failpoint("seen")
    if not (new or changed or gone or back or waiting):
        return
    with store.write() as rows:
        lock_writers(rows)
        for whole in SIGNALED:
            if some := [_stamp(one) for one in new if one.whole is whole]:
                rows.execute(insert_if_absent(rows, file).values(_seen(whole=whole)), some)
        for one in changed:
            again = {**_stamp(one), **_seen(whole=one.whole), "observation": None, "tstart": None, "header": None}
            rows.execute(update(file).where(file.c.path == one.path).values(again))
        _mark(rows, gone, present=False)
        _mark(rows, back, present=True)
        for whole in SIGNALED:
            _mark(rows, [i for i, told in waiting if told is whole], _settled(watch, whole=whole), **STABLE)
        # A file that left before it was understood is no observation: under its new name it is seen anew.
        rows.execute(delete(file).where(file.c.present.is_(False), file.c.state.in_(("seen", "stable"))))
    if new:
        failpoint("file-row")


def _mark(rows: Connection, ids: Sequence[int], *where: Any, **values: Any) -> None:
    for some in batches(ids):
        rows.execute(update(file).where(file.c.id.in_(some), *where).values(**values))


def _stamp(one: FileStat) -> dict[str, Any]:
    return {"path": one.path, "size": one.size, "mtime_ns": one.mtime_ns, "inode": one.inode}


def _seen(*, whole: bool | None) -> dict[str, Any]:
    """Return what is said of a file that is new, or is not what it was."""
    again = {"state": "seen", "present": True, "cause": None, "grouped": False, "changed_at": now(), "look_at": now()}
    return {**again, **(STABLE if whole else {})}


def _settled(watch: Watch, *, whole: bool | None) -> Any:
    """Return, as SQL, whether a file that has not changed since the last scan may be opened."""
    if whole is not None or not watch.complete.settled:
        return literal(whole is not False)
    # A time in the future was written before the clock was set back.
    return (file.c.changed_at <= now() - watch.settle_s) | (file.c.changed_at > now() + watch.settle_s)


def _same(row: Any, one: FileStat) -> bool:
    return (row.size, row.mtime_ns, row.inode) == (one.size, one.mtime_ns, one.inode)


def _examine(store: Store, row: Row[Any], watch: Watch, verify: Callable[[Path], Header]) -> dict[str, Any]:
    """Open a stable file and return what its row is to say of it.

    Whatever a reader raises must not keep the other files waiting: what is not known to be final is looked at again.
    """
    try:
        header = verify(Path(row.path))
        if watch.complete.siblings:
            _agree(store, Path(row.path), header)
    except Exception as error:  # noqa: BLE001
        final = isinstance(error, ReadError) and not isinstance(error, TruncatedFileError)
        cause = f"{type(error).__name__}: {error}"
        if final or row.age_s > watch.give_up_s:
            LOG.warning("invalid: %s", cause)
            return {"state": "invalid", "cause": cause}
        return {"look_at": now() + watch.look_again_s, "cause": cause}
    identity = {"observation": f"{header.identity}-{row.size}", "tstart": header.tstart, "header": asdict(header)}
    return {"state": "valid", "cause": None, "grouped": False, **identity}


def _agree(store: Store, path: Path, header: Header) -> None:
    """Hold a file to the rows that other nodes' files of the same scan have.

    Raises:
        TruncatedFileError: it has fewer.
    """
    days = SAME_SCAN_S / SECONDS_PER_DAY
    same_scan = file.c.tstart.between(header.tstart - days, header.tstart + days)
    with store.read() as rows:
        others = rows.scalars(select(file.c.header).where(same_scan)).all()
    same = ("telescope_id", "tsamp", "source_name")
    counts = [one["ntime"] for one in others if all(one[name] == getattr(header, name) for name in same)]
    if header.ntime < max(counts, default=0):
        raise TruncatedFileError(
            f"{path}: expected {max(counts)} rows as in its scan's other files, found {header.ntime}"
        )


class Overflows(logging.Handler):
    """Count the times that the kernel dropped events; watchdog reports them to its log and to no handler."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line about an overflow."""
        self.count += "queue overflowed" in record.getMessage()


OVERFLOWS = Overflows()
logging.getLogger("watchdog.observers.inotify_c").addHandler(OVERFLOWS)


def listen(roots: Sequence[Path], wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` when something may have landed in a root on a local disk; return what ends the listening."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Waker(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in ("created", "moved", "closed"):
                wake()

    observer = Observer()
    for root in roots:
        if not root.exists():
            LOG.warning("%s is not there: scanned only, when it is", root)
        elif is_network(kind := file_system(root)):
            LOG.info("%s: %s shows no other host's writes: scanned only", root, kind)
        else:
            observer.schedule(Waker(), str(root), recursive=True)
    try:
        observer.start()
    except OSError as error:
        LOG.warning("no events, scanned only: %s (raise fs.inotify.max_user_watches)", error)
        return lambda: None
    return observer.stop
