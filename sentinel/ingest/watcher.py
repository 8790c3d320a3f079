"""Scan the watched folders, and decide which files are complete. Events only start the next scan earlier.

inotify loses events in bursts, sends none for the content of folders that are moved in, and none for writes of other
hosts. A scan of 10,000 files takes milliseconds. Therefore each pass compares the directory entries with the rows. A
file is stable when size, mtime and inode have not changed for `settle_s`. Header and content identify the observation,
so a renamed, moved or copied file is the same observation under another path, and a file that replaces another is a new
one. Only regular files are opened. Nothing is written below a watched folder.
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

from sqlalchemy import Connection, Row, delete, exists, literal, select, update

from aetherscan.cadence.grouping import SAME_SCAN_S
from aetherscan.errors import TruncatedFileError
from aetherscan.header import SECONDS_PER_DAY, Header
from sentinel.config import Signals, Watch
from sentinel.errors import Cause, cause_of
from sentinel.failpoint import failpoint
from sentinel.monitor.probes import RootReports
from sentinel.store.filesystem import content_digest, file_system, is_network, kind_of, open_regular, read_regular
from sentinel.store.migrations import lock_writers
from sentinel.store.queue import Store, batches, insert_if_absent
from sentinel.store.schema import file, now

LOG = logging.getLogger(__name__)
FILES_PER_PASS, OPENING_S = 50, 1.0
"""Files opened in one pass, newest first, and the time limit, seconds. A backlog must not delay queued cadences."""
STABLE = {"state": "stable", "stable_at": now()}
MANIFEST = "zmanifest.csv"
MANIFEST_BYTES = 1 << 20
"""Longest manifest that is read: about 10,000 files."""
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
    """Attributes of a file in one scan.

    Attributes:
        complete: what a completion signal (`watch.signals`) says; None without a signal.
    """

    path: str
    size: int
    mtime_ns: int
    inode: str
    complete: bool | None = None


def scan(root: Path, watch: Watch, unread: list[str]) -> Iterator[FileStat]:
    """Yield every file under `root` that matches `watch`; add folders that cannot be read to `unread`.

    Names that begin with a dot are temporary copies. Links to folders are followed, each folder once.
    """
    folders, visited = [os.fspath(root)], set[tuple[int, int]]()
    include, exclude = _path_pattern(watch.include), _path_pattern(watch.exclude)
    root_length = len(folders[0].rstrip("/"))
    while folders:
        folder = folders.pop()
        try:
            at = Path(folder).stat()
            with os.scandir(folder) as listing:
                entries = [] if (at.st_dev, at.st_ino) in visited else list(listing)
        except OSError as error:
            LOG.warning("%r cannot be read; its files keep their states: %s", folder, error)
            unread.append(folder)
            continue
        visited.add((at.st_dev, at.st_ino))
        names = {entry.name for entry in entries if _is(entry.is_file)}  # a folder named move.done is no signal
        listed = _manifest_sizes(folder) if watch.signals.manifest and MANIFEST in names else {}
        for entry in entries:
            below = entry.path[root_length:]
            if entry.name.startswith(".") or exclude.match(below):
                continue
            if _is(entry.is_dir):
                folders.append(entry.path)
            elif include.match(below) and entry.name not in names:
                _warn_once(f"{entry.path!r}: expected a regular file, found {kind_of(Path(entry.path))}: not opened")
            elif include.match(below) and (stat := _file_stat(entry, names, listed, watch.signals)):
                yield stat


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # stale handle, or circular link
        return False


@lru_cache(maxsize=1000)
def _warn_once(text: str) -> None:
    LOG.warning("%s", text)


@lru_cache
def _path_pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern for paths below a root, with a leading slash. `**/` matches any number of folders, also none."""
    slashed = [f"/{pattern}" for pattern in patterns]
    expressions = [translate(glob) for pattern in slashed for glob in (pattern, pattern.replace("/**/", "/"))]
    return re.compile("|".join(expressions) or "(?!)")


def _manifest_sizes(folder: str) -> dict[str, str]:
    """Return the size of each file in a manifest of `name,size` lines, as text; empty if it cannot be read."""
    try:
        lines = read_regular(Path(folder, MANIFEST), MANIFEST_BYTES).decode(errors="surrogateescape").splitlines()
    except OSError as error:
        _warn_once(f"{Path(folder, MANIFEST)}: not used: {error}")
        return {}
    return {name: size.strip() for name, _, size in (line.rpartition(",") for line in lines)}


def _file_stat(
    entry: os.DirEntry[str], names: AbstractSet[str], listed: Mapping[str, str], signals: Signals
) -> FileStat | None:
    try:
        at = entry.stat()
    except OSError as error:
        LOG.info("skipped %r: %s", entry.path, error)
        return None
    base, product, _ = entry.name.rpartition(".rawspec.")
    done = signals.done_file and bool(product) and f"{base}.rawspec.done" in names
    complete = True if signals.renamed or done or (signals.move_done and "move.done" in names) else None
    if size := listed.get(entry.name):
        complete = size == str(at.st_size)
    return FileStat(path=entry.path, size=at.st_size, mtime_ns=at.st_mtime_ns, inode=str(at.st_ino), complete=complete)


@dataclass(slots=True, kw_only=True)
class Scanner:
    """Scans at most every `scan_s`, or earlier after an event, and opens stable files in every pass.

    After an event, the next scan waits for four times as long as the last one took, so that a burst of events does not
    make it scan all the time; but not for longer than `scan_s`, since that one may have waited for a disk or the store.

    Attributes:
        store: that holds the rows of files.
        watch: roots, patterns and intervals.
        verify: reads a file and returns its header; raises if the file is not valid or not complete.
        wake: starts the next pass at once.
        reports: takes the state of each root after a scan.
        progress: is called for each file of a scan.
    """

    store: Store
    watch: Watch
    verify: Callable[[Path], Header]
    wake: Callable[[], None]
    reports: RootReports | None = None
    progress: Callable[[], object] = lambda: None
    _notified: bool = True
    _began: float = -math.inf
    _took: float = 0.0

    def on_event(self) -> None:
        """Start the next pass at once, with a scan: a file may have arrived."""
        self._notified = True
        self.wake()

    def scan_and_open(self) -> None:
        """Scan if it is due, and open stable files; wake the loop if more are waiting."""
        began = time.monotonic()
        if began - self._began >= min(self.watch.scan_s, 4 * self._took if self._notified else math.inf):
            self._notified, self._began = False, began
            scan_roots(self.store, self.watch, self.reports, self.progress)
            self._took = time.monotonic() - began
        if open_stable(self.store, self.watch, self.verify):
            self.wake()


def scan_roots(
    store: Store, watch: Watch, reports: RootReports | None = None, progress: Callable[[], object] = lambda: None
) -> None:
    """Update the rows of files from the folders.

    Args:
        store: that holds the rows of files.
        watch: roots and patterns.
        reports: takes the state of each root.
        progress: is called for each file.
    """
    for root in watch.roots:
        began, unread, stats = time.monotonic(), list[str](), dict[str, FileStat]()
        for stat in scan(root, watch, unread):
            stats[stat.path] = stat
            progress()
        _reconcile(store, root, stats, unread, watch)
        if reports:
            reports.scanned(root, unread, time.monotonic() - began)


def open_stable(store: Store, watch: Watch, verify: Callable[[Path], Header]) -> bool:
    """Open stable files for at most `OPENING_S`; return whether more may be waiting.

    Args:
        store: that holds the rows of files.
        watch: intervals and rules.
        verify: reads a file and returns its header; raises if the file is not valid or not complete.
    """
    with store.read() as rows:
        # A later time was written before the clock was set back.
        due = (file.c.look_at <= now()) | (file.c.look_at > now() + watch.look_again_s)
        openable = (file.c.state == "stable") & file.c.present.is_(True) & due
        stable = rows.execute(
            select(*COLUMNS, (now() - file.c.changed_at).label("age_s"))
            .where(openable)
            .order_by(file.c.mtime_ns.desc())
            .limit(FILES_PER_PASS)
        ).all()
    opened: list[tuple[Row[Any], dict[str, Any]]] = []
    end = time.monotonic() + OPENING_S
    for row in stable:
        opened.append((row, _examine(store, row, watch, verify)))
        if time.monotonic() > end:
            break
    if opened:
        with store.write() as rows:
            lock_writers(rows)  # against deadlock: two watchers may update the same files in different order
            for row, values in opened:
                unchanged = (file.c.id == row.id) & (file.c.mtime_ns == row.mtime_ns) & (file.c.size == row.size)
                rows.execute(update(file).where(unchanged).values(**values))
    return len(opened) == FILES_PER_PASS or len(opened) < len(stable)


def _reconcile(store: Store, root: Path, stats: Mapping[str, FileStat], unread: Sequence[str], watch: Watch) -> None:
    """Update the rows of one root from its scan."""
    below = file.c.path.startswith(f"{root}{os.sep}", autoescape=True)
    with store.read() as rows:
        known = {row.path: row for row in rows.execute(select(*COLUMNS).where(below))}
    hidden = tuple(f"{folder}{os.sep}" for folder in unread)
    new = [stat for path, stat in stats.items() if path not in known]
    changed = [stat for path, stat in stats.items() if path in known and not _same(known[path], stat)]
    lost = [row for path, row in known.items() if row.present and path not in stats]
    gone = [row.id for row in lost if not row.path.startswith(hidden)]
    back = [row.id for path, row in known.items() if not row.present and path in stats]
    waiting = [
        (row.id, stats[path].complete)
        for path, row in known.items()
        if row.state == "seen" and path in stats and _same(row, stats[path])
    ]
    if new:
        failpoint("seen")
    if not (new or changed or gone or back or waiting):
        return
    with store.write() as rows:
        lock_writers(rows)
        for complete in (True, False, None):
            if values := [_columns(stat) for stat in new if stat.complete is complete]:
                rows.execute(insert_if_absent(rows, file).values(_seen(complete=complete)), values)
        for stat in changed:
            reset = {**_columns(stat), **_seen(complete=stat.complete), "observation": None, "tstart": None}
            rows.execute(update(file).where(file.c.path == stat.path).values(**reset, header=None))
        _mark(rows, gone, present=False)
        _mark(rows, back, present=True)
        for complete in (True, False, None):
            ids = [i for i, signal in waiting if signal is complete]
            _mark(rows, ids, _settled(watch, complete=complete), **STABLE)
        # A file that left before it was opened has no observation; under a new name it is a new file.
        rows.execute(delete(file).where(file.c.present.is_(False), file.c.state.in_(("seen", "stable"))))
    if new:
        failpoint("file-row")


def _mark(rows: Connection, ids: Sequence[int], *where: Any, **values: Any) -> None:
    for batch in batches(ids):
        rows.execute(update(file).where(file.c.id.in_(batch), *where).values(**values))


def _columns(stat: FileStat) -> dict[str, Any]:
    return {"path": stat.path, "size": stat.size, "mtime_ns": stat.mtime_ns, "inode": stat.inode}


def _seen(*, complete: bool | None) -> dict[str, Any]:
    """Return the values of a file that is new or has changed."""
    values = {"state": "seen", "present": True, "cause": None, "grouped": False, "changed_at": now(), "look_at": now()}
    return {**values, **(STABLE if complete else {})}


def _settled(watch: Watch, *, complete: bool | None) -> Any:
    """Return, as SQL, whether an unchanged file may be opened."""
    if complete is not None or not watch.complete.settled:
        return literal(complete is not False)
    # A later time was written before the clock was set back.
    return (file.c.changed_at <= now() - watch.settle_s) | (file.c.changed_at > now() + watch.settle_s)


def _same(row: Any, stat: FileStat) -> bool:
    return (row.size, row.mtime_ns, row.inode) == (stat.size, stat.mtime_ns, stat.inode)


def _examine(store: Store, row: Row[Any], watch: Watch, verify: Callable[[Path], Header]) -> dict[str, Any]:
    """Open a stable file and return the new values of its row.

    Any exception of a reader is caught, so that one file does not hold up the others. The file is opened again later
    unless the error is final.
    """
    path = Path(row.path)
    try:
        with open_regular(path):
            header = verify(path)
        if watch.complete.siblings:
            _check_siblings(store, path, header)
        observation = observation_of(store, header, path, row.size)
    except Exception as error:  # noqa: BLE001
        blame, cause = cause_of(error), f"{type(error).__name__}: {error}"
        if blame is Cause.FILE or (blame is Cause.UNKNOWN and row.age_s > watch.give_up_s):
            LOG.warning("invalid: %s", cause)
            return {"state": "invalid", "cause": cause}
        return {"look_at": now() + watch.look_again_s, "cause": cause}
    identity = {"observation": observation, "tstart": header.tstart, "header": asdict(header)}
    return {"state": "valid", "cause": None, "grouped": False, **identity}


def observation_of(store: Store, header: Header, path: Path, size: int) -> str:
    """Return the identity of an observation: its header, and a digest of its size and of parts of its content.

    A copy or a moved file has the same identity. A file that replaces another with the same header and size has
    another one. Stores of earlier versions hold identities of header and size: a copy of such a file keeps it.

    Args:
        store: that may hold the earlier identity.
        header: of the file.
        path: of the file.
        size: of the file, bytes.
    """
    earlier = f"{header.identity}-{size}"
    with store.read() as rows:
        if rows.scalar(select(exists().where(file.c.observation == earlier))):
            return earlier
    return f"{header.identity}-{content_digest(path, size)}"


def _check_siblings(store: Store, path: Path, header: Header) -> None:
    """Compare the number of spectra with the files of other nodes of the same scan.

    Raises:
        TruncatedFileError: the file has fewer.
    """
    days = SAME_SCAN_S / SECONDS_PER_DAY
    same_scan = file.c.tstart.between(header.tstart - days, header.tstart + days)
    with store.read() as rows:
        headers = rows.scalars(select(file.c.header).where(same_scan)).all()
    same = ("telescope_id", "tsamp", "source_name")
    counts = [other["ntime"] for other in headers if all(other[name] == getattr(header, name) for name in same)]
    if header.ntime < max(counts, default=0):
        raise TruncatedFileError(
            f"{path}: expected {max(counts)} rows as in its scan's other files, found {header.ntime}"
        )


class Overflows(logging.Handler):
    """Count the times that the kernel dropped events; watchdog reports them to its log and to no handler."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record about an overflow."""
        self.count += "queue overflowed" in record.getMessage()


OVERFLOWS = Overflows()
logging.getLogger("watchdog.observers.inotify_c").addHandler(OVERFLOWS)


def listen(roots: Sequence[Path], wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` when a file may have arrived in a root on a local disk; return a function that ends this."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Waker(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in ("created", "moved", "closed"):
                wake()

    observer = Observer()
    for root in roots:
        if not root.exists():
            LOG.warning("%s is missing: scanned only, once it exists", root)
        elif is_network(kind := file_system(root)):
            LOG.info("%s: %s sends no events for writes of other hosts: scanned only", root, kind)
        else:
            observer.schedule(Waker(), str(root), recursive=True)
    try:
        observer.start()
    except OSError as error:
        LOG.warning("no file events, scanned only: %s (raise fs.inotify.max_user_watches)", error)
        return lambda: None
    return observer.stop
