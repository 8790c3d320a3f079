"""A cadence passes through the service with plain functions in place of telescope, worker and Slack."""

import json
import logging
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rig import in_child
from rows import MESSAGE, RUNNING, alive, found, queue, row, status_of
from sqlalchemy import insert, select

from aetherscan.errors import CadenceError, FormatError, ReleaseError, TruncatedFileError
from sentinel.config import ROOT, Config
from sentinel.errors import BusyError, Cause
from sentinel.ingest import service
from sentinel.ingest.service import one_pass
from sentinel.monitor import status
from sentinel.monitor.probes import RootReports
from sentinel.programs.logs import JsonFormatter, log_context
from sentinel.programs.program import PROGRAMS, only_copy
from sentinel.programs.supervisor import socket_path, write_conf
from sentinel.store.queue import Lease
from sentinel.store.schema import attempt, cadence, candidate, file, heartbeat, now, outbox
from sentinel.workers.task import search_lease


def lease(number):
    return Lease(cadence_id=number, token=str(number), attempt=1, target="T")


def run_pass(free, ready, ended=()):
    """Run a pass with `free` workers; return its steps."""
    waiting, steps = iter(ready), []
    one_pass(
        scan=lambda: steps.append("scan"),
        group=lambda: steps.append("group"),
        renew_waiting=lambda: steps.append("renew"),
        expire=lambda: steps.append("expire"),
        collect=lambda: ended,
        record_failure=lambda lost, why, cause: steps.append(f"{lost.cadence_id} failed: {why}: {cause.value}"),
        free_workers=lambda: free,
        claim=lambda: next(waiting, None),
        submit=lambda claimed: steps.append(f"submit {claimed.cadence_id}"),
    )
    return steps


def test_a_pass_scans_groups_and_submits_no_more_cadences_than_there_is_room_for():
    steps = run_pass(2, [lease(1), lease(2), lease(3)])
    assert steps == ["scan", "group", "renew", "expire", "submit 1", "submit 2"]


def test_no_cadence_is_claimed_without_a_worker():
    for free in (0, -1):
        assert run_pass(free, [lease(1)]) == ["scan", "group", "renew", "expire"]


@pytest.mark.fault(4, promise="P5")
def test_a_scan_without_a_scheduler_is_not_held_up_at_every_file(tmp_path):
    beats, asked = [], []
    loop = SimpleNamespace(period_s=0.0, heartbeat=lambda **facts: beats.append(facts))
    reports = RootReports(memory=tmp_path / "mounts.json", scan_s=1.0)
    heartbeat = service._Heartbeat(loop=loop, reports=reports, roots=(), capacity=lambda: asked.append(1) or 2)
    for _ in range(3):
        heartbeat.progress()
    assert (len(beats), asked) == (3, [])
    heartbeat.write()
    assert beats[-1]["workers"] == 2
    loop.period_s = 60.0
    heartbeat.progress()
    assert len(beats) == 4


def test_an_attempt_of_a_dead_worker_is_ended_before_others_begin():
    ended = [(lease(1), "killed", Cause.DEATH)]
    assert run_pass(1, [lease(2)], ended)[4:] == ["1 failed: killed: death", "submit 2"]


def search(store, config, does):
    taken = (queue(store), store.claim(60))[1]
    return search_lease(store, config, taken.cadence_id, taken.token, does)


def test_a_search_reports_progress_and_its_end_is_recorded(store):
    def does(claimed, progress):
        assert len(claimed.paths) == 6
        for step in range(5):
            progress(step / 4)
        return found(2, MESSAGE)

    assert search(store, Config(), does) == "done"
    assert row(store, cadence).state == "done"
    assert row(store, outbox).state == "pending"
    assert ":" in row(store, attempt).worker


@pytest.mark.fault(47, promise="P1")
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TruncatedFileError("cut short"), "retry_at"),
        (FormatError("not a filterbank"), "quarantined"),
        (CadenceError("five files"), "quarantined"),
        (ReleaseError("altered"), "retry_at"),
        (MemoryError("too wide"), "retry_at"),
        (OSError(28, "No space left on device"), "retry_at"),
        (ConnectionError("the connection to the scheduler was lost"), "retry_at"),
        (TimeoutError("no reply"), "retry_at"),
        (ZeroDivisionError("bandwidth"), "retry_at"),
    ],
)
def test_the_class_of_an_error_decides_what_follows_a_failed_search(store, error, state):
    def does(_claimed, _progress):
        raise error

    assert search(store, Config(), does) == state
    assert row(store, cadence).why == f"{type(error).__name__}: {error}"
    assert row(store, cadence).attempts == (0 if isinstance(error, MemoryError | OSError | ReleaseError) else 1)


@pytest.mark.fault(9, promise="P2")
def test_a_worker_that_loses_its_lease_during_a_search_stops_and_records_nothing(store):
    def does(_claimed, progress):
        store.expire()
        progress(0.5)
        return found()

    queue(store)
    taken = store.claim(60)
    other = {}

    def stolen(claimed, progress):
        store.release_lease(taken.token)
        other["lease"] = store.claim(60)
        return does(claimed, progress)

    assert search_lease(store, Config(), taken.cadence_id, taken.token, stolen) == "fenced"
    with store.read() as rows:
        assert rows.execute(select(candidate)).all() == []
    store.complete(other["lease"].token, found())
    assert row(store, attempt, token=taken.token).outcome == "fenced"


@pytest.mark.fault(10, promise="P1")
def test_a_search_that_hangs_is_ended_with_its_process_and_the_cause(store):
    taken = (queue(store), store.claim(60))[1]
    config = Config(search_limit_s=0.2)

    def hangs():
        search_lease(store, config, taken.cadence_id, taken.token, lambda *_: time.sleep(60))

    assert in_child(hangs, store) == 1
    assert (row(store, cadence).state, row(store, cadence).why) == ("retry_at", "over search_limit_s, 0.2 s")


def test_a_failpoint_does_nothing_unless_it_is_enabled():
    code = "from sentinel.failpoint import failpoint; failpoint('seen'); failpoint('leased'); print('alive')"
    for action, exit_code, output in (
        ("", 0, "alive"),
        ("seen:exit", 1, ""),
        ("leased:kill", -9, ""),
        ("seen:sleep=0", 0, "alive"),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"SENTINEL_FAILPOINT": action},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout.strip()) == (exit_code, output)


@pytest.mark.fault(36, promise="P2")
def test_a_second_copy_of_a_program_refuses_to_start(tmp_path):
    lock = tmp_path / "watcher.lock"
    with only_copy(lock), pytest.raises(BusyError, match="held by process"), only_copy(lock):
        pass
    with only_copy(lock):
        pass


def test_a_log_line_is_json_with_the_cadence_and_the_attempt(caplog):
    record = logging.LogRecord("sentinel.worker", logging.INFO, "f", 1, "done: %d\ncandidates", (2,), None)
    with log_context(cadence=7, attempt="ab12"):
        line = JsonFormatter("worker").format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["cadence"], entry["attempt"], entry["message"]) == (7, "ab12", "done: 2\ncandidates")


def test_supervisord_restarts_programs_and_only_its_owner_can_connect(tmp_path):
    config = Config(state_dir=tmp_path / ("deep" * 30))
    text = write_conf(config, foreground=False).read_text()
    assert text.count("autorestart=true") == len(PROGRAMS)
    assert "chmod=0600" in text
    assert len(str(socket_path(config))) < 108


def test_a_service_with_a_worker_and_no_fault_is_ok(store, monkeypatch):
    store.record_heartbeat("worker-0", 10, pid=1, host="h", release="r1")
    store.record_heartbeat("watcher", 10, pid=2, host="h")
    seen = status_of(Config(), store, monkeypatch, RUNNING)
    assert (seen.level, seen.remarks) == (status.OK, ())
    assert "release r1" in "\n".join(status.lines(seen))


def test_a_service_without_a_worker_is_critical_and_a_late_program_a_warning(store, monkeypatch):
    assert status_of(Config(), store, monkeypatch, RUNNING).level == status.CRITICAL
    store.record_heartbeat("worker-0", 10, pid=1, host="h")
    with store.write() as rows:
        late = {"name": "watcher", "at": now() - 31, "period_s": 10, "pid": 1, "host": "h", "facts": {}}
        rows.execute(insert(heartbeat).values(**late))
    seen = status_of(Config(), store, monkeypatch, RUNNING)
    assert (seen.level, seen.remarks) == (status.WARNING, ("no heartbeat from watcher (31 s), new files are not seen",))
    assert status_of(Config(), store, monkeypatch, RUNNING | {"poster": "FATAL"}).level == status.CRITICAL


def test_the_status_lists_why_cadences_wait_and_why_they_are_quarantined(store, monkeypatch):
    alive(store)
    queue(store, state="forming")
    with store.write() as rows:
        rows.execute(cadence.update().values(why="waiting for position 3"))
        stamp = {"size": 1, "mtime_ns": 1, "inode": "1", "changed_at": now()}
        rows.execute(insert(file).values(path="/d/a.h5", state="stable", cause="half of it", **stamp))
        rows.execute(insert(file).values(path="/d/b.h5", state="invalid", cause="not HDF5", **stamp))
    (
        queue(store, 60000.0),
        store.fail(store.claim(60).token, "foff is 0", Cause.FILE, max_attempts=3, retry_after_s=1),
    )
    seen = status_of(Config(), store, monkeypatch, RUNNING)
    text = "\n".join(status.lines(seen))
    for part in ("T: waiting for position 3", "/d/a.h5: half of it", "/d/b.h5: not HDF5", "T: foff is 0"):
        assert part in text
    assert "ledger     2 seen = 0 done + 1 quarantined + 0 skipped + 1 waiting" in text
    assert seen.level == status.WARNING
