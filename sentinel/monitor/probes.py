"""Probes of this machine: folders, free space, caches, clock and watched roots.

A system call on a network disk that is away may never return. Each probe therefore runs in a thread of its own and is
abandoned after `PATIENCE_S`.
"""

import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

import aetherscan
from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.notify.messages import one_line
from sentinel.store.filesystem import missing_mount, mount_point
from sentinel.store.queue import Store
from sentinel.store.schema import heartbeat, now

PATIENCE_S = 5.0
JUMP_S = 2.0
"""Steps of the clock between two heartbeats that are no jump."""
JUMP_REPORTED_S = 45.0
"""How long a jump is reported after the first heartbeat that tells it."""
SLOWEST_SCAN_S = 45.0
"""A root may always go this long without a complete scan."""
_looking: dict[str, tuple[threading.Thread, dict[str, Any]]] = {}
_lock = threading.Lock()


def look(name: str, probe: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a probe found, or `error`: the exception, or that there was no reply within `PATIENCE_S`."""

    def run(found: dict[str, Any]) -> None:
        try:
            found.update(probe())
        except OSError as error:
            found["error"] = one_line(error)
        except Exception as error:  # noqa: BLE001 - what was not looked at is not in order
            found["error"] = one_line(f"{type(error).__name__}: {error}")

    with _lock:  # several threads probe
        thread, found = _looking.get(name, (None, {}))
        if thread is None or not thread.is_alive():  # else the last look still runs, or hangs
            found = {}
            thread = threading.Thread(target=run, args=(found,), daemon=True)
            thread.start()
            _looking[name] = thread, found
    thread.join(PATIENCE_S)
    return {"error": f"no reply within {PATIENCE_S:g} s"} if thread.is_alive() else dict(found)


def folder(path: Path) -> dict[str, Any]:
    """Return the path of a folder, and its free space; a folder that does not exist yet is one that can be made.

    Raises:
        OSError: no file can be written there, or its disk is not mounted.
    """
    if missing := missing_mount(path):
        raise FileNotFoundError(f"{path}: {missing}")
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing == path:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"can be written")
    elif not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} does not exist and cannot be made in {existing}")
    return {"path": str(path), "free_gib": round(shutil.disk_usage(existing).free / 2**30, 2)}


def compiled_cache() -> dict[str, Any]:
    """Return the folder in which numba keeps compiled functions: named, beside the code, or of the user.

    Raises:
        OSError: none of them can be written.
    """
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return folder(Path(named))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        return folder(Path(aetherscan.__file__).parent / "search" / "__pycache__")
    except OSError:
        return folder(home / "numba")


def root_problem(root: Path) -> str:
    """Return why a watched root cannot be scanned, or an empty string if it can."""
    try:
        with os.scandir(root) as listing:
            next(listing, None)
    except FileNotFoundError:
        return "expected a folder, found none"
    except OSError as error:
        return f"expected a readable folder, found: {os.strerror(error.errno or 0)}"
    return missing_mount(root)


def machine(config: Config, store: Store | None = None) -> dict[str, Any]:
    """Return what was found in each place of this machine. `error` is in an entry that failed."""
    places = {
        "state": lambda: folder(config.state_dir),
        "pictures": lambda: folder(config.pictures),
        "cache": compiled_cache,
    }
    return {name: look(name, probe) for name, probe in places.items()} | {"clock": _clock(store)}


def _clock(store: Store | None) -> dict[str, Any]:
    """Return the offset of the clock from the monotonic one, and its last jump.

    The offset is compared with that in the last heartbeat of `web`. A jump is therefore found by a `web` that was
    restarted, and after a time in which no heartbeat could be written.
    """
    steady = time.monotonic()
    offset_s = time.time() - steady
    facts = {"boot": _boot(), "offset_s": round(offset_s, 1)}
    if store is None:
        return facts
    try:
        with store.read() as rows:
            facts["ahead_s"] = round(time.time() - rows.scalars(select(now())).one(), 1)
            last = select(heartbeat.c.facts).where(heartbeat.c.name == f"web@{socket.gethostname()}")
            before = (rows.scalar(last) or {}).get("machine", {}).get("clock", {})
    except StoreError:
        return facts  # another check reports it
    if before.get("boot") != facts["boot"]:
        return facts
    jump_s = offset_s - before["offset_s"]
    if abs(jump_s) > JUMP_S:
        return facts | {"jump_s": round(jump_s, 1), "jumped_at": round(steady, 1)}
    if 0 <= steady - before.get("jumped_at", -math.inf) < JUMP_REPORTED_S:
        return facts | {name: before[name] for name in ("jump_s", "jumped_at")}
    return facts


def _boot() -> str:
    """Return the identity of this start of the machine, or of this process where the machine tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()}"


@dataclass(slots=True, kw_only=True)
class RootReports:
    """The state of each watched root after each scan, for the heartbeat of the watcher.

    The mount point that holds a root is remembered in `memory`, across restarts: a folder that was on a mount and is
    no longer looks like an empty folder. Mounting a disk changes the memory; to forget one, delete the file.

    Attributes:
        memory: JSON file with the mount point of each root.
        scan_s: interval of the scans, seconds.
    """

    memory: Path
    scan_s: float
    _scanned: dict[Path, float] = field(default_factory=dict)
    _facts: dict[Path, dict[str, Any]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _took_s: float = 0.0

    def scanned(self, root: Path, unread: Sequence[str], took_s: float) -> None:
        """Note a scan of a root, with the folders that could not be read."""
        problem = root_problem(root) or self._mount_problem(root)
        below = [path for path in unread if path != str(root)]
        self._facts[root] = {"problem": problem, "unread": below[:3], "unread_count": len(below)}
        self._took_s = max(took_s, 0.9 * self._took_s)
        if str(root) not in unread:
            self._scanned[root] = time.monotonic()

    def facts(self, roots: Sequence[Path]) -> dict[str, Any]:
        """Return for each root its problem, unread folders, age of the last complete scan and its limit, seconds."""
        limit_s = max(SLOWEST_SCAN_S, 3 * self.scan_s, 10 * self._took_s)
        return {
            str(root): {
                **self._facts.get(root, {"problem": "", "unread": [], "unread_count": 0}),
                "scan_age_s": round(time.monotonic() - self._scanned.get(root, self._began), 1),
                "limit_s": round(limit_s, 1),
            }
            for root in roots
        }

    def _mount_problem(self, root: Path) -> str:
        try:
            known = json.loads(self.memory.read_text())
        except (OSError, ValueError):
            known = {}
        before, mount = known.get(str(root), "/"), str(mount_point(root))
        if missing := missing_mount(root, [Path(before)]):
            return missing
        if before != mount:
            try:
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                self.memory.write_text(json.dumps(known | {str(root): mount}))
            except OSError:
                pass  # another check reports the state directory
        return ""
