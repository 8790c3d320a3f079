"""The table of checks: each check passes on a service without faults, and fails when its subject is broken."""

import copy
import os
import socket
import time
from pathlib import Path

import pytest
from rows import RUNNING, alive, status_of
from sqlalchemy import text

from sentinel import cli
from sentinel.config import Config
from sentinel.monitor import probes
from sentinel.monitor.checks import CHECKS, CRITICAL, OK, WARNING, problems
from sentinel.monitor.probes import RootReports
from sentinel.store import filesystem

ROOT = {"problem": "", "unread": [], "unread_count": 0, "scan_age_s": 3.0, "limit_s": 45.0}
PLACE = {"path": "/state", "free_gib": 50.0}
BEATS = [
    {"name": f"{name}@h", "age_s": 1.0, "period_s": 10.0, "pid": 1, "host": "h", "facts": facts}
    for name, facts in (
        ("cluster", {}),
        ("poster", {}),
        ("watcher", {"roots": {"/data": ROOT}}),
        ("web", {"web": "http://127.0.0.1:9421"}),
        ("worker-0", {"release": "r1"}),
    )
]
WELL = {
    "host": "h",
    "programs": dict.fromkeys(("cluster", "poster", "watcher", "web"), "RUNNING"),
    "heartbeats": BEATS,
    "store": "",
    "ledger": {"seen": 4, "done": 1, "quarantined": 1, "skipped": 1, "waiting": 1},
    "machines": {"h": {"state": PLACE, "pictures": PLACE, "cache": PLACE, "clock": {"ahead_s": 0.1}}},
    "canary": {"age_s": 60.0, "recovered": True, "took_s": 9.0, "every_s": 3600.0, "alarm_s": 900.0},
    "outbox": {"oldest_s": None, "cause": None, "states": {}},
    "oldest_ready_s": 2.0,
    "stamps": {"kept_bytes": 0, "budget_bytes": 10**9},
    "quarantined_today": 0,
    "setup": {},
}


def beat(name, facts=None, **values):
    """Return a fault: other values in the heartbeat of a program."""

    def fault(well):
        (chosen,) = (beat for beat in well["heartbeats"] if beat["name"] == name)
        chosen.update(values)
        chosen["facts"].update(facts or {})

    return fault


def fact(name, value):
    """Return a fault: another value of a fact."""
    return lambda well: well.update({name: value})


def root(**values):
    return beat("watcher@h", {"roots": {"/data": ROOT | values}})


def place(name, **values):
    return lambda well: well["machines"]["h"].update({name: values})


def without(name):
    def fault(well):
        well["heartbeats"] = [beat for beat in well["heartbeats"] if not beat["name"].startswith(name)]

    return fault


def other_host(well):
    well["heartbeats"].append({**BEATS[0], "name": "cluster@old", "host": "old", "age_s": 99.0})


FAULTS = (
    ("service", CRITICAL, fact("programs", {}), "not running"),
    ("service", CRITICAL, lambda well: well.update(programs={}, supervisord="supervisord, process 7, runs"), "restart"),
    ("programs", CRITICAL, fact("programs", {"web": "FATAL", "watcher": "RUNNING"}), "web"),
    ("store", CRITICAL, fact("store", "attempt to write a readonly database"), "readonly"),
    ("watcher", WARNING, beat("watcher@h", age_s=31.0), "watcher@h (31 s)"),
    ("watcher", CRITICAL, beat("watcher@h", age_s=61.0), "watcher@h (61 s)"),
    ("watcher", CRITICAL, beat("watcher@h", age_s=-3600.0), "watcher@h"),
    ("watcher", CRITICAL, without("watcher"), "no heartbeat from the watcher"),
    ("heartbeats", WARNING, beat("poster@h", age_s=31.0), "poster@h"),
    ("errors", CRITICAL, beat("poster@h", {"error": "KeyError: a"}), "poster@h fails: KeyError: a"),
    ("workers", CRITICAL, without("worker"), "no worker"),
    ("hosts", WARNING, other_host, "old"),
    ("ledger", CRITICAL, fact("ledger", WELL["ledger"] | {"seen": 5}), "5 seen, 4 done"),
    ("roots", CRITICAL, root(problem="expected a folder, found none"), "/data: expected a folder"),
    ("folders", WARNING, root(unread=["/data/x"], unread_count=1), "/data/x"),
    ("scans", CRITICAL, root(scan_age_s=45.0), "/data: no complete scan for 46 s"),
    ("state", CRITICAL, place("state", error="[Errno 28] No space left on device"), "No space left"),
    ("disk", WARNING, place("pictures", path="/pictures", free_gib=1.9), "/pictures: 1.9 GiB"),
    ("disk", CRITICAL, place("state", path="/state", free_gib=0.1), "/state: 0.1 GiB"),
    ("pictures", WARNING, place("pictures", error="no reply within 5 s"), "no reply"),
    ("stamps", WARNING, fact("stamps", {"kept_bytes": 9 * 10**8, "budget_bytes": 10**9}), "0.90 of 1 GB"),
    ("cache", CRITICAL, place("cache", error="Permission denied"), "Permission denied"),
    ("web", WARNING, beat("web@h", {"web": "not listening on ::1, port 1: in use"}), "port 1: in use"),
    ("clock", WARNING, place("clock", ahead_s=-9.0), "-9 s"),
    ("clock", WARNING, place("clock", ahead_s=0.0, jump_s=3600.0), "+3600 s"),
    ("canary", CRITICAL, fact("canary", WELL["canary"] | {"recovered": False}), "not found"),
    ("canary", CRITICAL, fact("canary", WELL["canary"] | {"recovered": None, "age_s": 901.0}), "901 s"),
    ("canary", WARNING, fact("canary", WELL["canary"] | {"age_s": 10_801.0}), "no canary was sent"),
    ("backlog", WARNING, fact("oldest_ready_s", 3601.0), "more than an hour"),
    ("messages", WARNING, fact("outbox", WELL["outbox"] | {"cause": "invalid_auth"}), "invalid_auth"),
    ("messages", WARNING, fact("outbox", WELL["outbox"] | {"oldest_s": 3601.0}), "more than an hour"),
    ("quarantine", WARNING, fact("quarantined_today", 2), "2 cadences"),
    ("inotify", CRITICAL, fact("setup", {"inotify": "expected 8192 watches"}), "8192"),
    ("release", CRITICAL, fact("setup", {"release": "ReleaseError: no"}), "ReleaseError"),
    ("slack", CRITICAL, fact("setup", {"slack": "invalid_auth"}), "invalid_auth"),
)


def test_a_service_without_faults_fails_no_check():
    assert problems(WELL) == {}


@pytest.mark.parametrize(
    ("name", "level", "fault", "part"), FAULTS, ids=lambda value: value if value in RUNNING else ""
)
def test_each_fault_fails_its_check_and_no_other(name, level, fault, part):
    broken = copy.deepcopy(WELL)
    fault(broken)
    found = problems(broken)
    assert {check: found[check][0] for check in found} == {name: level}
    assert part in found[name][1]


def test_each_check_has_a_fault_that_reaches_its_highest_level():
    worst = {name: max(level for other, level, *_ in FAULTS if other == name) for name, *_ in FAULTS}
    assert worst == {check.name: check.level for check in CHECKS}


def test_a_store_that_cannot_be_read_hides_no_fault_of_the_machine(store, tmp_path, monkeypatch):
    config = Config(state_dir=tmp_path, picture_dir=tmp_path / "file" / "pictures")
    (tmp_path / "file").write_text("")

    def away():
        return store.engine.dispose() or cli._store(Config(store={"url": "sqlite:////proc/none/sentinel.db"}))

    seen = status_of(config, store, monkeypatch, RUNNING)
    assert seen.checks["pictures"] == WARNING
    from sentinel.monitor.status import UNKNOWN, lines, read_status

    seen = read_status(config, away)
    assert seen.level == UNKNOWN
    assert (seen.checks["store"], seen.checks["pictures"]) == (CRITICAL, WARNING)
    assert lines(seen)[0].startswith("unknown: store: ")
    assert "backlog" not in seen.checks


@pytest.mark.fault(26, promise="P5")
def test_a_read_only_store_is_reported_until_it_can_be_written(store, tmp_path, monkeypatch):
    config = Config(state_dir=tmp_path)
    alive(store)
    sqlite = store.engine.dialect.name == "sqlite"
    with store.engine.connect() as rows:  # stays in the pool
        rows.exec_driver_sql(
            "PRAGMA query_only=ON" if sqlite else "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
        )
        rows.commit()
    seen = status_of(config, store, monkeypatch, RUNNING)
    assert (seen.level, seen.checks["store"]) == (CRITICAL, CRITICAL), seen.remarks
    assert any("read" in remark for remark in seen.remarks)
    store.engine.dispose()
    assert status_of(config, store, monkeypatch, RUNNING).checks["store"] == OK


@pytest.mark.fault(26, promise="P5")
def test_a_store_that_another_process_locks_is_reported_soon(tmp_path, monkeypatch):
    from sentinel.monitor import status
    from sentinel.store.queue import open_store

    config = Config(state_dir=tmp_path)
    store = open_store(config.store_url)
    monkeypatch.setattr(status, "LOCKED_S", 0.1)
    with store.write():
        for upgrade in (True, False):
            seen = status.read_status(config, lambda upgrade=upgrade: status.quick_store(config, upgrade=upgrade))
            assert seen.checks["store"] == CRITICAL
            assert "locked" in seen.facts["store"]
    assert status.read_status(config, lambda: status.quick_store(config)).checks["store"] == OK
    store.engine.dispose()


@pytest.mark.fault(41, promise="P5")
def test_the_state_of_a_root_follows_the_folder(tmp_path):
    root = tmp_path / "data"
    reports = RootReports(memory=tmp_path / "run" / "mounts.json", scan_s=1.0)

    def problem(unread=()):
        reports.scanned(root, unread, 0.1)
        return reports.facts([root])[str(root)]["problem"]

    assert problem([str(root)]) == "expected a folder, found none"
    root.write_text("")
    assert "Not a directory" in problem([str(root)])
    root.unlink()
    root.mkdir()
    assert problem() == ""


@pytest.mark.fault(41, promise="P5")
def test_an_unmounted_root_is_reported_also_after_a_restart(tmp_path, monkeypatch):
    root, memory = tmp_path / "data" / "incoming", tmp_path / "run" / "mounts.json"
    root.mkdir(parents=True)
    mounted = [Path("/")]
    for module in (probes, filesystem):
        monkeypatch.setattr(module, "mount_point", lambda _: mounted[0])

    def problem():
        reports = RootReports(memory=memory, scan_s=1.0)
        reports.scanned(root, [], 0.1)
        return reports.facts([root])[str(root)]["problem"]

    assert problem() == ""
    mounted[0] = tmp_path / "data"
    assert problem() == ""
    mounted[0] = Path("/")
    assert problem() == f"expected a disk mounted at {tmp_path / 'data'}, found none"
    mounted[0] = tmp_path / "data"
    assert problem() == ""
    mounted[0] = Path("/")
    memory.unlink()
    assert problem() == ""


@pytest.mark.fault(41, promise="P5")
def test_a_scan_that_reads_everything_but_the_root_does_not_count_as_complete(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(probes.time, "monotonic", lambda: now[0])
    reports = RootReports(memory=tmp_path / "mounts.json", scan_s=5.0)
    reports.scanned(tmp_path, [], 0.0)
    now[0] += 50
    reports.scanned(tmp_path, [str(tmp_path)], 0.0)
    assert reports.facts([tmp_path])[str(tmp_path)]["scan_age_s"] == 50
    reports.scanned(tmp_path, [], 0.0)
    assert reports.facts([tmp_path])[str(tmp_path)]["scan_age_s"] == 0


@pytest.mark.fault(43, promise="P5")
@pytest.mark.fault(45, promise="P5")
@pytest.mark.fault(46, promise="P5")
def test_a_folder_that_cannot_be_written_is_named_and_one_that_hangs_is_abandoned(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    facts = probes.machine(Config(state_dir=tmp_path, picture_dir=tmp_path / "file"))
    assert "Not a directory" in facts["pictures"]["error"]
    assert "cannot be made" in facts["cache"]["error"]
    assert facts["state"]["path"] == str(tmp_path)
    monkeypatch.setattr(probes, "PATIENCE_S", 0.05)
    assert "no reply" in probes.look("slow", lambda: time.sleep(0.5) or {})["error"]
    assert "no reply" in probes.look("slow", dict)["error"]
    time.sleep(0.6)
    assert probes.look("slow", dict) == {}


def test_a_probe_that_fails_in_an_unexpected_way_is_no_sign_of_good_order(tmp_path, monkeypatch):
    assert probes.look("broken", lambda: {}["x"])["error"] == "KeyError: 'x'"
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(probes.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home directory")))
    facts = probes.machine(Config(state_dir=tmp_path))
    assert facts["cache"]["error"] == "RuntimeError: no home directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_state_directory_is_named(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in probes.machine(Config(state_dir=tmp_path))["state"]["error"]


@pytest.mark.fault(32, promise="P5")
def test_a_clock_that_jumps_is_reported_for_less_than_a_minute(store, tmp_path, monkeypatch):
    """Nothing is kept between two looks but the heartbeat: each look could be that of a restarted program."""
    steady, wall = [0.0], [0.0]
    monkeypatch.setattr(probes.time, "monotonic", lambda: steady[0])
    monkeypatch.setattr(probes.time, "time", lambda: wall[0])

    def jump_s(seen_at, clock, *, written=True):
        steady[0], wall[0] = seen_at, clock
        facts = probes.machine(Config(state_dir=tmp_path), store)
        host = socket.gethostname()
        if written:
            store.record_heartbeat(f"web@{host}", 10, pid=1, host=host, machine=facts)
        return facts["clock"].get("jump_s")

    assert jump_s(0.0, 0.0) is None
    assert jump_s(5.0, 5.5) is None
    assert jump_s(10.0, -3590.0, written=False) == -3600.5
    assert jump_s(99.0, -3501.0) == -3600.5, "no heartbeat has told it yet"
    assert jump_s(140.0, -3460.0) == -3600.5
    assert jump_s(145.0, -3455.0) is None
    monkeypatch.setattr(probes, "_boot", lambda: "another start of the machine")
    assert jump_s(1.0, -3450.0) is None


@pytest.mark.fault(52, promise="P5")
def test_heartbeats_of_an_earlier_name_of_this_host_are_removed(tmp_path):
    from sentinel.store.queue import open_store

    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    store.record_heartbeat("watcher@old", 10, pid=1, host="old")
    store.record_heartbeat("watcher@new", 10, pid=1, host="new")
    with store.read() as rows:
        assert [row.name for row in rows.execute(text("SELECT name FROM heartbeat"))] == ["watcher@new"]
    store.engine.dispose()
