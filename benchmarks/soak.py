"""Run a real service for hours under faults of all kinds at once; check that nothing is lost and nothing done twice.

Run from the repository root: `python benchmarks/soak.py [--hours 2] [--seed 1] [--output soak.json]`. A cadence lands
about every 20 seconds: with or without a tone, out of order, truncated and completed later, copied, replaced, corrupt,
beside a FIFO, moved, or with a hostile name. Meanwhile one lane breaks the machine (disks, roots, store, pictures,
cache, clock, Slack) and another the programs (killed, stopped, without descriptors, port or release). The seed decides
what is drawn; what happens at the same moment also depends on the machine.

The service runs with its own mounts (`unshare`, Linux only), without the right of root to open every file, and with a
clock that can be set (a C compiler is needed for that). A fault that has a check must be in `status` within 60 s, and
gone from it within 60 s after its cause. While a fault of the other lane hides the facts of a check, as long as the
store is away for instance, that time does not count. SIGTERM ends the faults; the check and the summary follow.
"""

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fake_slack import FakeSlack
from running import Service, Telescope
from sqlalchemy import select
from supervisor.xmlrpc import Faults, SupervisorTransport

from sentinel.errors import StoreError
from sentinel.programs.supervisor import program_states, service_pids, socket_path
from sentinel.store.schema import CANARY, attempt, cadence, candidate, heartbeat, injection, outbox

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S, LONGEST_S = 60.0, 900.0
"""Longest time until a fault is in `status`, or gone from it, without and with the time that other faults hide it."""
POLL_S, LANDING_S = 4.0, 20.0
"""From one `status` to the next, and from one cadence to the next."""
HIDDEN_S, LATE_S = 30.0, 35.0
"""Time after a fault in which it still hides others, and in which heartbeats of a dead process still count."""
DISK_MIB = 3072
OWN_MOUNTS = "SENTINEL_SOAK"
"""Environment variable that is set once the soak has mounts of its own."""
PAUSES_S = {"machine": (1.0, 8.0), "programs": (20.0, 60.0)}
"""Between two faults of a lane. The programs need a while without faults, in which those of the machine are seen."""
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
PROGRAM_CHECKS = ("service", "programs", "watcher", "heartbeats", "workers", "errors")
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
static long ahead_s(void) {
    static long none;
    if (!ahead) {
        int file = open(getenv("SENTINEL_SOAK_CLOCK"), O_RDONLY);
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        ahead = page == MAP_FAILED ? &none : page;
        if (file >= 0) close(file);
    }
    return *ahead;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && clock == CLOCK_REALTIME) at->tv_sec += ahead_s();
    return failed;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(at, zone);
    if (!failed) at->tv_sec += ahead_s();
    return failed;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def mount(*arguments: object) -> None:
    for _ in range(5):  # mount reads the table of mounts, which another thread may change
        if subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(1)
    subprocess.run(["mount", *map(str, arguments)], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@dataclass(frozen=True, kw_only=True)
class Look:
    """The checks that failed in one `status`, and when it was asked."""

    began: float
    ended: float
    failed: frozenset[str]
    readable: bool


@dataclass(kw_only=True)
class Outcome:
    """One fault that was made: when, after how long it was seen and gone, and how much of that others hid; seconds."""

    name: str
    lane: str
    at_s: float
    seen_s: float | None = None
    gone_s: float | None = None
    hidden_s: float = 0.0
    wrong: str = ""


class Field(Telescope):
    """Lands cadences in every way that files land; knows what must be found in them."""

    def __init__(self, disk: Path, linked: Path, scratch: Path, rng: random.Random) -> None:
        super().__init__(disk, scratch)
        self.places, self.rng = (disk, linked), rng
        self.done: Counter[str] = Counter()  # of each target: searches that must be recorded
        self.tones: Counter[str] = Counter()  # of each target: those that must find the tone
        self.forming: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.later: list[tuple[float, Callable[[], bool]]] = []
        self.tone_wanted = threading.Event()

    def _ways(self) -> dict[str, Callable[..., None]]:
        return {
            "plain": self._plain, "out of order": self._shuffled, "truncated": self._truncated,
            "dead writer": self._dead, "zero tail": self._zero_tail, "copied": self._copied,
            "replaced": self._replaced, "corrupt": self._corrupt, "FIFO": self._fifo, "moved": self._moved,
            "moved in": self._moved_in, "hostile name": self._hostile,
        }  # fmt: skip

    def one(self) -> None:
        """Land the next cadence in a random way, and do what is due to earlier ones."""
        wanted = self.tone_wanted.is_set()
        self.tone_wanted.clear()
        number = self.landed = self.landed + 1
        tone = wanted or self.rng.random() < 0.5
        kind = "plain" if wanted else self.rng.choice([*self._ways(), "plain", "plain", "plain"])
        self.kinds[kind] += 1
        folder = self.rng.choice(self.places) / f"c{number:04d}"
        folder.mkdir()
        self._expect(number, tone=tone)
        self._ways()[kind](number, folder, tone=tone)
        self.catch_up()

    def catch_up(self) -> None:
        """Do what is due to cadences that landed earlier."""
        due = [action for at, action in self.later if at <= time.monotonic()]
        self.later = [(at, action) for at, action in self.later if at > time.monotonic()]
        self.later += [(time.monotonic() + 10, action) for action in due if not action()]

    def _after(self, low_s: float, high_s: float, action: Callable[[], bool]) -> None:
        self.later.append((time.monotonic() + self.rng.uniform(low_s, high_s), action))

    def _expect(self, number: int, *, tone: bool) -> None:
        self.done[f"T{number}"] += 1
        self.tones[f"T{number}"] += tone

    def _plain(self, number: int, folder: Path, *, tone: bool, pause_s: float = 0.0) -> None:
        for i in self.rng.sample(range(6), 6) if pause_s else range(6):
            self.write(number, i, folder / f"{number:04d}-{i}.fil", tone=tone)
            time.sleep(self.rng.uniform(0, pause_s))

    def _shuffled(self, number: int, folder: Path, *, tone: bool) -> None:
        self._plain(number, folder, tone=tone, pause_s=3.0)

    def _cut(self, number: int, folder: Path, *, tone: bool) -> tuple[Path, bytes]:
        self._plain(number, folder, tone=tone)
        path = folder / f"{number:04d}-{self.rng.randrange(6)}.fil"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * self.rng.uniform(0.1, 0.9))])
        return path, whole

    def _truncated(self, number: int, folder: Path, *, tone: bool) -> None:
        path, whole = self._cut(number, folder, tone=tone)

        def complete() -> bool:
            with path.open("ab") as file:
                file.write(whole[path.stat().st_size :])
            self.whole[path] = path.stat().st_mtime_ns
            return True

        self._after(3, 60, complete)

    def _dead(self, number: int, folder: Path, *, tone: bool) -> None:
        path, _ = self._cut(number, folder, tone=tone)
        self.whole[path] = path.stat().st_mtime_ns
        self._unsearched(number)

    def _unsearched(self, number: int) -> None:
        for expected in (self.done, self.tones):
            del expected[f"T{number}"]
        self.forming.add(f"T{number}")

    def _zero_tail(self, number: int, folder: Path, *, tone: bool) -> None:
        path, whole = self._cut(number, folder, tone=tone)
        with path.open("r+b") as file:
            file.truncate(len(whole))

        def complete() -> bool:
            path.write_bytes(whole)
            self.whole[path] = path.stat().st_mtime_ns
            return True

        self._after(20, 60, complete)

    def _copied(self, number: int, folder: Path, *, tone: bool) -> None:
        self._plain(number, folder, tone=tone)

        def copy() -> bool:
            other = self.rng.choice(self.places) / f"copy{number:04d}"
            shutil.copytree(folder, other)
            self.whole |= {path: path.stat().st_mtime_ns for path in other.iterdir()}
            return True

        self._after(0, 30, copy)

    def _replaced(self, number: int, folder: Path, *, tone: bool) -> None:
        del tone  # the tone comes with the replacement: two searches of one target would share a message
        self.tones[f"T{number}"] = 0
        self._plain(number, folder, tone=False)

        def replace() -> bool:
            if not self.is_done(f"T{number}"):
                return False
            self._expect(number, tone=True)
            self._plain(number, folder, tone=True)
            return True

        self._after(10, 60, replace)

    is_done: Callable[[str], bool] = staticmethod(lambda _: True)

    def _corrupt(self, number: int, folder: Path, *, tone: bool) -> None:
        self._plain(number, folder, tone=tone)
        i = self.rng.randrange(6)
        path = folder / f"{number:04d}-{i}.fil"
        path.write_bytes(self.rng.randbytes(path.stat().st_size))
        self.whole[path] = path.stat().st_mtime_ns
        if self.rng.random() < 0.3:
            self._unsearched(number)
            return

        def again() -> bool:
            self.write(number, i, folder / f"{number:04d}-{i}-again.fil", tone=tone)
            return True

        self._after(10, 60, again)

    def _fifo(self, number: int, folder: Path, *, tone: bool) -> None:
        for name in ("zmanifest.csv", f"{number:04d}-9.fil"):
            os.mkfifo(folder / name)
        self._plain(number, folder, tone=tone)

    def _rename(self, old: Path, new: Path) -> None:
        old.rename(new)
        self.whole = {new / path.name if path.parent == old else path: at for path, at in self.whole.items()}

    def _moved(self, number: int, folder: Path, *, tone: bool) -> None:
        self._plain(number, folder, tone=tone)
        self._after(0, 40, lambda: self._rename(folder, folder.with_name(f"moved{number:04d}")) or True)

    def _moved_in(self, number: int, folder: Path, *, tone: bool) -> None:
        hidden = folder.with_name(f".{folder.name}")
        folder.rename(hidden)
        self._plain(number, hidden, tone=tone)
        self._rename(hidden, folder)

    def _hostile(self, number: int, folder: Path, *, tone: bool) -> None:
        name = self.rng.choice(["a b;%s$(x)", "\udcff\udcfe", "<b>'\"", "x\ny", "-rf *"])
        self._plain(number, folder, tone=tone)
        self._rename(folder, folder.with_name(f"{number:04d}{name}"))


class World:
    """The service, its machine and its telescope, and what `status` says about them."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.rng = place, random.Random(seed)
        self.state, self.pictures, self.disk = place / "var", place / "pictures", place / "disk"
        self.incoming, self.linked, self.cache = place / "incoming", place / "linked", place / "cache"
        for folder in (self.state, self.pictures, self.disk, self.incoming, place / "second", place / "scratch"):
            folder.mkdir()
        for folder in (self.state, self.pictures, self.disk):
            mount("-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", folder)
        self.bind()
        self.linked.symlink_to("second")
        if compiled := os.environ.get("NUMBA_CACHE_DIR"):
            shutil.copytree(compiled, self.cache)
        self.cache.mkdir(exist_ok=True)
        self.release = place / "release"
        shutil.copytree(ROOT / "models" / "equinox", self.release)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.slack = FakeSlack()
        self.slack.retry_after = "5"
        self.service = Service(
            place, self.slack, WITHOUT_RIGHTS,
            state_dir=str(self.state), picture_dir=str(self.pictures), release=str(self.release), max_attempts=10,
            watch={"roots": [str(self.incoming), str(self.linked)], "scan_s": 2, "settle_s": 2, "look_again_s": 5},
            web={"port": self.port}, injections={"canary_s": 120, "alarm_s": 600, "blind_share": 0.1},
        )  # fmt: skip
        self.service.environment |= {
            "NUMBA_CACHE_DIR": str(self.cache),
            "SENTINEL_FAILPOINT": "mid-read:sleep=3",  # so that faults meet searches
        }
        self.clock, self.ahead_s = self._settable_clock(), 0
        self.field = Field(self.disk, place / "second", place / "scratch", random.Random(seed + 1))
        self.field.is_done = self._is_done
        self.began, self.end, self.over = time.monotonic(), math.inf, False
        self.looks: list[Look] = []
        self.outcomes: list[Outcome] = []
        self.hiding = {"machine": 0.0, "programs": 0.0}  # lane: until when its fault hides others
        self.away = threading.Lock()  # held while the state directory is away: nobody starts the service then
        self.problems: list[str] = []

    def bind(self) -> None:
        """Mount the disk at the watched folder."""
        mount("--bind", self.disk, self.incoming)

    def _is_done(self, target: str) -> bool:
        """Return whether a cadence is known to be done; it is not while its store is away."""
        try:
            done = select(cadence.c.id).where(cadence.c.target == target, cadence.c.state == "done")
            return bool(self.service.rows(done))
        except StoreError:
            return False

    def _settable_clock(self) -> Path | None:
        library, clock = self.place / "clock.so", self.place / "clock"
        clock.write_bytes(struct.pack("l", 0))
        compiler = shutil.which("cc")
        if not compiler:
            return None
        (self.place / "clock.c").write_text(CLOCK)
        source = [str(self.place / "clock.c"), "-o", str(library)]
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", *source, "-ldl"], check=True)
        self.service.environment |= {"LD_PRELOAD": str(library), "SENTINEL_SOAK_CLOCK": str(clock)}
        return clock

    def set_clock(self, ahead_s: int) -> None:
        """Set the clock of the service ahead of that of the machine, or back to it."""
        self.ahead_s = ahead_s
        if self.clock:
            with self.clock.open("r+b") as file:
                file.write(struct.pack("l", ahead_s))

    def up(self) -> None:
        """Start the service as a person or systemd does: again until it runs."""
        end = time.monotonic() + 300
        while True:
            with self.away:
                ran = self.service.run("up", check=False)
            if ran.returncode == 0:
                return
            say(f"up: {ran.returncode}: {ran.stderr.strip().splitlines()[:1]}")
            assert time.monotonic() < end, f"up fails for five minutes: {ran.stderr}"
            time.sleep(5)

    def supervisor(self, method: str, name: str) -> None:
        """Let supervisord start or stop a program."""
        transport = SupervisorTransport(serverurl=f"unix://{socket_path(self.service.config)}")
        with contextlib.closing(transport):
            proxy: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            try:
                getattr(proxy.supervisor, method)(name)
            except xmlrpc.client.Fault as refused:
                if refused.faultCode != Faults.SPAWN_ERROR:  # the other lane broke its log: supervisord tries again
                    raise

    def pid(self, name: str) -> int:
        """Return the process of a program; `worker` is the one that searches."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if name == "worker":
                alive, beats = service_pids(self.service.config), select(heartbeat.c.pid, heartbeat.c.name)
                found = next((pid for pid, beat in self.service.rows(beats) if beat[:6] == name and pid in alive), 0)
            else:
                found = program_states(self.service.config).get(name, {}).get("pid", 0)
            if found:
                return int(found)
            time.sleep(0.5)
        raise AssertionError(f"no process of {name} for two minutes")

    def watch(self) -> None:
        """Ask for the status again and again."""
        while not self.over:
            began = time.monotonic()
            ran = self.service.run("status", "--json", check=False)
            try:
                report = json.loads(ran.stdout)
                failed, readable = {name for name, level in report["checks"].items() if level}, "ledger" in report
            except ValueError:
                failed, readable = {"store"}, False
                if not ran.stdout.startswith("unknown:"):
                    self.problems.append(f"status: {ran.returncode}: {ran.stdout[-500:]}{ran.stderr[-2000:]}")
            if not self.looks or self.looks[-1].failed != failed:
                say(f"status    {', '.join(sorted(failed)) or 'ok'}")
            self.looks.append(Look(began=began, ended=time.monotonic(), failed=frozenset(failed), readable=readable))
            time.sleep(max(0.0, POLL_S - (time.monotonic() - began)))

    def until(self, outcome: Outcome, holds: Callable[[Look], bool]) -> float | None:
        """Wait for a status, asked from now on, that holds; return the seconds until then, None if it came too late."""
        began = last = time.monotonic()
        counted, others = 0.0, [lane for lane in self.hiding if lane != outcome.lane]
        while counted <= LIMIT_S and last - began < LONGEST_S:
            if found := next((look for look in self.looks[-99:] if look.began >= began and holds(look)), None):
                outcome.hidden_s = round(outcome.hidden_s + max(0.0, found.ended - began - counted), 1)
                return round(found.ended - began, 1)
            time.sleep(0.5)
            now = time.monotonic()
            counted += (now - last) * all(self.hiding[lane] < last for lane in others)
            last = now
        return None


Breaking = Callable[[World], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault: made and mended by `breaks`.

    Attributes:
        seen: checks of which one must fail.
        gone: checks that must not fail afterwards.
        hides: whether other faults may be invisible meanwhile.
    """

    name: str
    breaks: Breaking
    seen: tuple[str, ...]
    gone: tuple[str, ...]
    hides: bool


LANES: dict[str, list[Fault]] = {"machine": [], "programs": []}


def fault(lane: str, *seen: str, gone: tuple[str, ...] = (), hides: bool = False, name: str = "") -> Any:
    """Register a generator that makes a fault, yields and mends it."""

    def register(breaks: Callable[[World], Iterator[None]]) -> Any:
        made = contextlib.contextmanager(breaks)
        named = name or breaks.__name__.replace("_", " ")
        LANES[lane].append(Fault(name=named, breaks=made, seen=seen, gone=gone or seen, hides=hides))
        return breaks

    return register


@contextlib.contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Make a tmpfs as small as what it holds."""
    for _ in range(100):
        at = os.statvfs(path)
        pages = max(at.f_blocks - at.f_bfree, 1)  # size 0 would be without limit
        small = ["mount", "-o", f"remount,size={pages * at.f_frsize // 1024}k", str(path)]
        if subprocess.run(small, check=False, capture_output=True).returncode == 0:
            break
    else:
        raise AssertionError(f"{path} cannot be filled")
    try:
        yield
    finally:
        mount("-o", f"remount,size={DISK_MIB}m", path)


@fault("machine", "roots")
def root_renamed(world: World) -> Iterator[None]:
    world.linked.rename(world.place / "linked-away")
    yield
    (world.place / "linked-away").rename(world.linked)


@fault("machine", "roots")
def root_unmounted(world: World) -> Iterator[None]:
    unmount(world.incoming)
    yield
    world.bind()


@fault("machine", "roots")
def root_unreadable(world: World) -> Iterator[None]:
    with mode(world.disk, 0):
        yield


@fault("machine", "folders")
def folder_unreadable(world: World) -> Iterator[None]:
    folder = world.disk / "private"
    folder.mkdir(exist_ok=True)
    with mode(folder, 0):
        yield


@fault("machine")
def root_read_only(world: World) -> Iterator[None]:
    mount("-o", "remount,bind,ro", world.incoming)
    yield
    mount("-o", "remount,bind,rw", world.incoming)


@fault("machine", "state", hides=True)
def state_read_only(world: World) -> Iterator[None]:
    with mode(world.state, 0o555):
        yield


@fault("machine", "state", "disk", hides=True)
def state_disk_full(world: World) -> Iterator[None]:
    with full(world.state):
        yield


@fault("machine", "store", hides=True)
def store_read_only(world: World) -> Iterator[None]:
    with mode(world.state / "sentinel.db", 0o444):
        yield


@fault("machine", "store", hides=True)
def store_locked(world: World) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(world.state / "sentinel.db", timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


@fault("machine", "store", "service", hides=True)
def state_unmounted(world: World) -> Iterator[None]:
    with world.away:
        mount("-t", "tmpfs", "none", world.state)
        yield
        unmount(world.state)


@fault("machine", "pictures")
def pictures_read_only(world: World) -> Iterator[None]:
    with mode(world.pictures, 0o555):
        world.field.tone_wanted.set()
        yield


@fault("machine", "pictures", "disk")
def picture_disk_full(world: World) -> Iterator[None]:
    with full(world.pictures):
        world.field.tone_wanted.set()
        yield


@fault("machine", "cache", hides=True)
def cache_lost(world: World) -> Iterator[None]:
    world.cache.rename(world.place / "cache-away")
    world.cache.write_text("")
    yield
    world.cache.unlink()
    (world.place / "cache-away").rename(world.cache)


@fault("machine", "clock")
def clock_jumps(world: World) -> Iterator[None]:
    world.set_clock(3600 - world.ahead_s)
    yield


def slack_that_says(answer: Any, *seen: str, name: str) -> None:
    """Register an outage of Slack, which is a fault once a message has been refused."""

    def breaks(world: World) -> Iterator[None]:
        called = world.slack.calls.count("chat.postMessage")
        world.slack.always["chat.postMessage"] = answer
        world.field.tone_wanted.set()
        end = time.monotonic() + 300
        while world.slack.calls.count("chat.postMessage") == called and time.monotonic() < end:
            time.sleep(0.5)
        yield
        del world.slack.always["chat.postMessage"]

    fault("machine", *seen, name=name)(breaks)


slack_that_says(500, "messages", name="Slack down")
slack_that_says("reset", "messages", name="Slack out of reach")
slack_that_says(429, "messages", name="Slack says 429")
slack_that_says("invalid_auth", "messages", name="Slack refuses the token")


@fault("machine")
def slack_loses_a_reply(world: World) -> Iterator[None]:
    world.slack.modes["chat.postMessage"].append("lost")
    world.field.tone_wanted.set()
    yield


@fault("machine")
def slack_slow(world: World) -> Iterator[None]:
    world.slack.delay_s = 4.0
    world.field.tone_wanted.set()
    yield
    time.sleep(20)
    world.slack.delay_s = 0.0


def killed(name: str) -> None:
    def breaks(world: World) -> Iterator[None]:
        os.kill(world.pid(name), signal.SIGKILL)
        yield
        time.sleep(LATE_S)  # before that, heartbeats of the dead process still count

    hides = name in {"watcher", "cluster", "worker"}  # without them nothing is found, searched or announced for a while
    fault("programs", gone=PROGRAM_CHECKS, hides=hides, name=f"{name} killed")(breaks)


def stopped(name: str, *seen: str) -> None:
    def breaks(world: World) -> Iterator[None]:
        pid = world.pid(name)
        os.kill(pid, signal.SIGSTOP)
        yield
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    fault("programs", *seen, gone=PROGRAM_CHECKS, hides=name == "watcher", name=f"{name} stopped")(breaks)


for program in ("watcher", "cluster", "poster", "web", "worker"):
    killed(program)
stopped("watcher", "watcher")
stopped("cluster", "heartbeats")
stopped("poster", "heartbeats")
stopped("web", "heartbeats")
stopped("worker", "workers")


@fault("programs", "service", gone=PROGRAM_CHECKS, hides=True)
def supervisord_killed(world: World) -> Iterator[None]:
    heads = [pid for pid in service_pids(world.service.config) if b"supervisord" in _words(pid)]
    for pid in heads:
        os.kill(pid, signal.SIGKILL)
    yield
    world.up()


@fault("programs", "service", gone=PROGRAM_CHECKS, hides=True)
def everything_killed(world: World) -> Iterator[None]:
    for pid in service_pids(world.service.config):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield
    world.up()


@fault("programs", "service", gone=PROGRAM_CHECKS, hides=True)
def service_stopped(world: World) -> Iterator[None]:
    with world.away:
        world.service.run("down")
    yield
    world.up()


@fault("programs", "programs", gone=PROGRAM_CHECKS)
def poster_ended(world: World) -> Iterator[None]:
    world.supervisor("stopProcess", "poster")
    yield
    world.supervisor("startProcess", "poster")


@fault("programs", "web")
def web_port_taken(world: World) -> Iterator[None]:
    world.supervisor("stopProcess", "web")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", world.port))
        taken.listen()
        world.supervisor("startProcess", "web")
        yield


@fault("programs", "workers", gone=PROGRAM_CHECKS, hides=True)
def release_lost(world: World) -> Iterator[None]:
    world.release.rename(world.place / "release-away")
    os.kill(world.pid("worker"), signal.SIGKILL)
    yield
    (world.place / "release-away").rename(world.release)


@fault("programs", "errors", "watcher", "roots", "scans", "folders", gone=PROGRAM_CHECKS, hides=True)
def watcher_without_descriptors(world: World) -> Iterator[None]:
    pid = world.pid("watcher")
    before = subprocess.check_output(["prlimit", f"--pid={pid}", "--nofile", "-o", "SOFT", "--noheadings"], text=True)
    subprocess.run(["prlimit", f"--pid={pid}", "--nofile=4:"], check=True)
    yield
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={before.strip()}:"], check=False)


def _words(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _any_failed(checks: tuple[str, ...], look: Look) -> bool:
    return bool(look.failed & set(checks))


def _none_failed(checks: tuple[str, ...], look: Look) -> bool:
    return look.readable and not look.failed & set(checks)


def run_lane(world: World, lane: str, faults: list[Fault], rng: random.Random) -> None:
    """Make one fault of a lane after another, each until it was seen, all once before one comes again."""
    left: list[Fault] = []
    while time.monotonic() < world.end:
        time.sleep(rng.uniform(*PAUSES_S[lane]))
        left = left or rng.sample(faults, len(faults))
        chosen = left.pop()
        outcome = Outcome(name=chosen.name, lane=lane, at_s=round(time.monotonic() - world.began, 1))
        world.outcomes.append(outcome)
        try:
            if chosen.hides:
                world.hiding[lane] = float("inf")
            with chosen.breaks(world):
                if chosen.seen:
                    outcome.seen_s = world.until(outcome, partial(_any_failed, chosen.seen))
                time.sleep(rng.uniform(0, 8))
            world.hiding[lane] = min(world.hiding[lane], time.monotonic() + HIDDEN_S)
            outcome.gone_s = world.until(outcome, partial(_none_failed, chosen.gone))
            seen = not chosen.seen or outcome.seen_s is not None
            if not seen or outcome.gone_s is None:
                late = "gone" if seen else "seen"
                outcome.wrong = f"not {late} within {LIMIT_S:.0f} s; status: {sorted(world.looks[-1].failed)}"
        except Exception:  # noqa: BLE001
            outcome.wrong = traceback.format_exc()
            world.hiding[lane] = time.monotonic() + HIDDEN_S
        waits = f"seen {outcome.seen_s} s, gone {outcome.gone_s} s, hidden {outcome.hidden_s} s"
        say(f"{lane:<9} {chosen.name:<28} {waits}  {outcome.wrong}")


def land(world: World) -> None:
    while time.monotonic() < world.end:
        began = time.monotonic()
        try:
            world.field.one()
        except Exception:  # noqa: BLE001
            world.problems.append(f"telescope: {traceback.format_exc()}")
        while time.monotonic() < began + LANDING_S and not world.field.tone_wanted.is_set():
            time.sleep(0.5)


def differences(world: World) -> list[str]:
    """Return what is not as it must be once all searches have ended."""
    rows, sky = world.service.rows, world.field
    ours = select(cadence.c.target, cadence.c.state).where(cadence.c.target != CANARY)
    states = [tuple(row) for row in rows(ours)]
    in_order = select(candidate.c.cadence_id, candidate.c.target, candidate.c.frequency_mhz).order_by(candidate.c.id)
    lines: dict[tuple[int, str], tuple[float, ...]] = {}
    for cadence_id, target, mhz in rows(in_order):
        lines[cadence_id, target] = (*lines.get((cadence_id, target), ()), round(mhz, 6))
    records = rows(select(attempt.c.cadence_id).where(attempt.c.outcome == "done"))
    posted = [message for message in world.slack.messages if "thread_ts" not in message]
    uids = [message["metadata"]["event_payload"]["uid"] for message in posted]
    unmarked = [uid for uid, message in zip(uids, posted, strict=True) if "may repeat" not in message["text"]]
    messages = rows(select(outbox.c.uid, outbox.c.state))
    canaries = rows(select(injection.c.recovered).where(injection.c.kind == "canary"))
    ledger = world.service.store.ledger()
    files = [path for place in sky.places for path in place.rglob("*.fil") if path.is_file()]
    pairs: dict[str, tuple[Any, Any]] = {
        "cadences done": (Counter(target for target, state in states if state == "done"), sky.done),
        "cadences forming": (Counter(target for target, state in states if state == "forming"), Counter(sky.forming)),
        "other states": ({pair for pair in states if pair[1] not in ("done", "forming")}, set()),
        "cadences recorded twice": (+(Counter(row[0] for row in records) - Counter({row[0] for row in records})), {}),
        "cadences with candidates": (Counter(target for _, target in lines), +sky.tones),
        "candidates of a cadence": (set(lines.values()), set(list(lines.values())[:1])),
        "messages sent": (set(uids), {row.uid for row in messages}),
        "messages sent twice": (+(Counter(unmarked) - Counter(set(unmarked))), {}),
        "messages": (len(messages), len(+sky.tones)),
        "messages left": ({row.state for row in messages} - {"sent", "reconciled"}, set()),
        "canaries not found": ([row for row in canaries if row.recovered is False], []),
        "ledger": (ledger.pop("seen"), sum(ledger.values())),
        "files": ({(path, path.stat().st_mtime_ns) for path in files}, set(sky.whole.items())),
    }
    return [
        f"{what}: {_less(found, expected)} too many, {_less(expected, found)} missing"
        for what, (found, expected) in pairs.items()
        if found != expected
    ]


def _less(a: Any, b: Any) -> str:
    left = a - b if isinstance(a, Counter | set | int) else a
    return f"{sorted(left.items() if isinstance(left, dict) else left) if isinstance(left, dict | set) else left}"[:300]


def settle(world: World, seconds: float) -> list[str]:
    """Wait until everything is as it must be; return what is not after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        world.field.catch_up()
        try:
            wrong = [f"{len(world.field.later)} steps of the telescope are left"] if world.field.later else []
            wrong += differences(world)
        except Exception:  # noqa: BLE001
            wrong = [traceback.format_exc()]
        if not wrong or time.monotonic() > end:
            return wrong
        time.sleep(5)


def soak(place: Path, seed: int, hours: float) -> dict[str, Any]:
    """Run the soak; return its summary."""
    world = World(place, seed)
    signal.signal(signal.SIGTERM, lambda *_: setattr(world, "end", 0.0))
    threads = []
    try:
        world.up()
        world.began = time.monotonic()
        world.end = min(world.end, world.began + 3600 * hours)
        watching = threading.Thread(target=world.watch, daemon=True)
        watching.start()
        threads = [threading.Thread(target=land, args=(world,), daemon=True)]
        for number, (lane, faults) in enumerate(LANES.items()):
            chosen = [one for one in faults if world.clock or "clock" not in one.seen]
            arguments = (world, lane, chosen, random.Random(f"{seed} {number}"))
            threads.append(threading.Thread(target=run_lane, args=arguments, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        say("the last fault is mended: waiting for what is left")
        world.problems += settle(world, 900)
        if world.until(Outcome(name="end", lane="", at_s=0), lambda look: look.readable and not look.failed) is None:
            world.problems.append(f"status at the end: {sorted(world.looks[-1].failed)}")
        outcomes = Counter(row.outcome for row in world.service.rows(select(attempt.c.outcome)))
        canaries = world.service.rows(select(injection.c.kind, injection.c.recovered))
    finally:
        world.over = True
        world.service.run("down", check=False)
        if left := service_pids(world.service.config):
            world.problems.append(f"processes are left: {left}")
        world.slack.close()
    sky, messages = world.field, [m for m in world.slack.messages if "thread_ts" not in m]
    faults_made = world.outcomes
    return {
        "seed": seed,
        "hours": hours,
        "wall_s": round(time.monotonic() - world.began),
        "landed": sky.landed,
        "ways": dict(sky.kinds),
        "searches": sum(sky.done.values()),
        "with a tone": sum(sky.tones.values()),
        "forming": len(sky.forming),
        "attempts": {str(name): n for name, n in outcomes.items()},
        "injected": dict(Counter(f"{row.kind} {row.recovered}" for row in canaries)),
        "messages": len(messages),
        "marked repeats": sum("may repeat" in m["text"] for m in messages),
        "status": len(world.looks),
        "faults": [asdict(outcome) for outcome in faults_made],
        "problems": world.problems + [f"{o.at_s:.0f} s: {o.name}: {o.wrong}" for o in faults_made if o.wrong],
    }


def as_text(found: dict[str, Any]) -> str:
    """Return the summary as text: a line for each fault, with how often it was made and the longest waits."""
    names = sorted({(one["lane"], one["name"]) for one in found["faults"]})
    table = [f"{'lane':<9} {'fault':<28} {'made':>4} {'seen after':>11} {'gone after':>11} {'missed':>6}"]
    for lane, name in names:
        made = [one for one in found["faults"] if one["name"] == name]
        longest = [
            max((one[key] for one in made if one[key] is not None), default=None) for key in ("seen_s", "gone_s")
        ]
        waits = [f"{'-' if wait is None else f'{wait:.0f} s':>11}" for wait in longest]
        table.append(
            f"{lane:<9} {name:<28} {len(made):>4} {' '.join(waits)} {sum(bool(one['wrong']) for one in made):>6}"
        )
    head = [f"{name}: {value}" for name, value in found.items() if name not in ("faults", "problems")]
    problems = found["problems"] or ["nothing lost, nothing twice, every fault seen and gone in time"]
    return "\n".join([*head, "", *table, "", *problems])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="length of the soak (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides what is drawn (default %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("soak.json"), help="the summary (default %(default)s)")
    options = parser.parse_args()
    if OWN_MOUNTS not in os.environ:
        os.environ[OWN_MOUNTS] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-P", *sys.argv])
    place = Path(tempfile.mkdtemp(prefix="sentinel-soak-"))
    say(f"seed {options.seed}, {options.hours:g} h, in {place}")
    found = soak(place, options.seed, options.hours)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(as_text(found))
    return bool(found["problems"])


if __name__ == "__main__":
    sys.exit(main())
