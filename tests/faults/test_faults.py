"""Faults of a small observatory lose no cadence, and announce none twice."""

import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector
from rig import Observatory, in_child
from sqlalchemy import func, select

from aetherscan.detector.detector import load_detector
from aetherscan.errors import ReleaseError
from aetherscan.header import gbt_header
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from benchmarks import backlog
from sentinel.config import Config
from sentinel.errors import Cause, StoreAwayError
from sentinel.store.queue import open_store
from sentinel.store.schema import attempt, candidate
from sentinel.workers.pictures import write_file
from sentinel.workers.search import PICTURES, search_files
from sentinel.workers.task import search_lease

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models" / "equinox"


@pytest.fixture
def observatory(tmp_path, slack, monkeypatch):
    made = Observatory(tmp_path, slack, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def killable(tmp_path, slack):
    """An observatory whose processes are real: they are killed by the kernel."""
    made = Observatory(tmp_path, slack)
    yield made
    made.close()


@pytest.fixture
def cadence_of_one_tone(tmp_path):
    header = gbt_header(4096)
    place = {"frequency_mhz": header.frequency(1200), "drift_hz_s": 0.3, "width_hz": 4.0}
    return write_cadence(tmp_path, Sky(header=header, emitters=(Emitter(**place, snr=(40.0, 0.0) * 3),)), 1)


def killed(observatory, where, does):
    """Check that a process that calls `does` is killed at the failpoint `where`; then let its leases end."""
    assert in_child(does, observatory.store, SENTINEL_FAILPOINT=f"{where}:kill") == -9
    observatory.at += 300


@pytest.mark.fault(1, promise="P1")
@pytest.mark.parametrize("where", ["seen", "file-row", "ready", "leased", "result-known"])
def test_a_watcher_killed_at_any_step_loses_and_repeats_nothing(killable, where):
    whole = killable.land(1)

    def watch():
        for _ in range(4):
            killable.at += 6
            killable.one_pass()
        killable.dead.append((killable.flights.pop(), "its worker died", Cause.DEATH))
        killable.one_pass()

    killed(killable, where, watch)
    killable.passes(8)
    killable.ended_well(whole)


@pytest.mark.fault(2, promise="P2")
@pytest.mark.parametrize("where", ["started", "mid-read", "before-commit", "after-commit"])
def test_a_worker_killed_at_any_step_leaves_one_record(killable, where):
    whole = killable.land(1)
    for _ in range(4):
        killable.at += 6
        killable.one_pass()
    killed(killable, where, killable.work)
    killable.flights.clear()
    killable.passes(8)
    killable.ended_well(whole)


@pytest.mark.fault(2, promise="P2")
def test_a_worker_killed_while_the_encoder_runs_leaves_one_record(killable, cadence_of_one_tone):
    for path in cadence_of_one_tone:
        path.rename(killable.root / path.name)
    detector, config = make_detector(), killable.config

    def search(encode):
        for _ in range(4):
            killable.at += 6
            killable.one_pass()
        (lease,) = killable.flights
        by = replace(detector, encode=encode)
        return search_lease(
            killable.store, config, lease.cadence_id, lease.token,
            lambda claimed, progress: search_files(claimed.paths, "ABACAD", progress, config, by, lease.cadence_id),
        )  # fmt: skip

    assert in_child(lambda: search(lambda _: os.kill(os.getpid(), 9)), killable.store) == -9
    killable.at += 300
    assert search(detector.encode) == "done"
    with killable.store.read() as rows:
        assert list(rows.scalars(select(attempt.c.outcome).order_by(attempt.c.id))) == ["expired", "done"]
        assert len(rows.execute(select(candidate)).all()) == 1


@pytest.mark.fault(31, promise="P3")
def test_all_candidates_of_a_storm_are_recorded_some_are_drawn_and_no_picture_is_attached(
    cadence_of_one_tone, tmp_path, monkeypatch
):
    def storm(*arguments):
        result = search_cadence(*arguments)
        many = [replace(result.candidates[0], probability=i / 5000) for i in range(5000)]
        arrays = {name: np.repeat(getattr(result, name)[:1], 5000, axis=0) for name in ("snippets", "measurements")}
        return replace(result, candidates=tuple(many), **arrays)

    monkeypatch.setattr("sentinel.workers.search.search_cadence", storm)
    config = Config(state_dir=tmp_path)
    found = search_files(cadence_of_one_tone, "ABACAD", lambda _: None, config, make_detector(), 1)
    assert (len(found.candidates), len(found.pictures), len(found.examples)) == (5000, PICTURES, PICTURES)
    message = found.message(found.candidates)
    assert message["pictures"] == []
    assert "*5000 candidates*" in message["text"]


@pytest.mark.slow
@pytest.mark.fault(38, promise="P5")
def test_the_memory_of_a_worker_does_not_grow_over_a_hundred_searches(cadence_of_one_tone, tmp_path):
    config, detector = Config(state_dir=tmp_path), load_detector(SHIPPED)
    sizes = []
    for _ in range(100):
        search_files(cadence_of_one_tone, "ABACAD", lambda _: None, config, detector, 1)
        sizes.append(backlog.size(tmp_path))
    assert sizes[-1].rss_mb < sizes[49].rss_mb + 20
    assert sizes[-1].descriptors == sizes[49].descriptors


@pytest.mark.fault(2, promise="P2")
def test_a_half_written_picture_never_has_its_final_name(tmp_path):
    def drawn():
        return write_file(tmp_path / "000001.png", b"PNG" * 1000)

    assert in_child(drawn, SENTINEL_FAILPOINT="mid-picture:kill") == -9
    assert list(tmp_path.glob("[!.]*")) == []
    assert Path(drawn()[0]).read_bytes() == b"PNG" * 1000


@pytest.mark.fault(3, promise="P3")
@pytest.mark.parametrize("where", ["before-send", "after-accept", "mid-upload"])
def test_a_poster_killed_at_any_step_sends_each_message_once(killable, where):
    whole = killable.land(1)
    for _ in range(4):
        killable.at += 6
        killable.one_pass()
    killable.work()
    killed(killable, where, killable.deliver)
    killable.passes(4, step_s=60)
    killable.ended_well(whole)


@pytest.mark.fault(12, promise="P1")
def test_a_cadence_that_kills_every_worker_is_set_aside_and_the_others_are_searched(observatory):
    whole = observatory.land(1) | observatory.land(2) | observatory.land(3)
    finish = observatory.finish

    def deadly(lease):
        observatory.failing = "started:kill" if lease.target == "T2" else ""
        finish(lease)

    observatory.finish = deadly
    observatory.passes(20, step_s=20)
    observatory.ended_well(whole, quarantined=1)
    with pytest.raises(AssertionError):
        observatory.ended_well(whole)


@pytest.mark.parametrize(("leases", "attempts"), [(10, 1), (70, 2)])
def test_a_cadence_that_waits_for_a_busy_worker_loses_no_attempt_for_as_long_as_a_search_may_take(
    observatory, leases, attempts
):
    whole = observatory.land(1)
    for _ in range(4):
        observatory.at += 6
        observatory.one_pass()
    assert observatory.states() == ["leased"]
    for _ in range(3 * leases):
        observatory.at += observatory.config.lease_s / 3
        observatory.one_pass()
    observatory.passes(2)
    observatory.ended_well(whole)
    with observatory.store.read() as rows:
        assert rows.scalar(select(func.count()).select_from(attempt)) == attempts


@pytest.mark.fault(25, promise="P1")
def test_cadences_wait_while_the_state_disk_is_full(observatory):
    whole = observatory.land(1)
    for _ in range(4):
        observatory.at += 6
        observatory.one_pass()
    observatory.full = True
    whole |= observatory.land(2) | observatory.land(3)
    with pytest.raises(StoreAwayError, match="full"):
        observatory.store.record_heartbeat("ballast", 1, pid=1, host=500_000 * "h")
    with pytest.raises(StoreAwayError, match="full"):
        observatory.store.record_heartbeat("ballast", 1, pid=1, host=5_000 * "h")
    with pytest.raises(StoreAwayError, match="full"):
        observatory.one_pass()
    with suppress(StoreAwayError):  # pages that are free may be just enough
        observatory.work()
    observatory.full = False
    observatory.passes(20)
    observatory.ended_well(whole)


@pytest.mark.fault(26, promise="P1")
def test_a_store_that_is_locked_for_too_long_is_tried_again(observatory, monkeypatch):
    whole = observatory.land(1)
    observatory.passes(1)
    with sqlite3.connect(observatory.config.state_dir / "sentinel.db") as other:
        observatory.store.engine.dispose()
        monkeypatch.setattr("sentinel.store.queue.BUSY_S", 0.1)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAwayError, match="locked"):
            observatory.passes(2)
        other.rollback()
    other.close()
    observatory.passes(6)
    observatory.ended_well(whole)


@pytest.mark.fault(32, promise="P2")
@pytest.mark.parametrize("when", ["landing", "leased", "dead", "announced"])
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_changes_nothing_in_the_end(observatory, hours, when):
    whole = observatory.land(1)
    observatory.passes(1 if when == "landing" else 2)
    observatory.at += 6
    if when != "landing":
        observatory.one_pass()
    if when == "announced":
        observatory.work()
        observatory.deliver()
    if when == "dead":
        observatory.flights.clear()
    observatory.at += 3600 * hours
    whole |= observatory.land(2)
    observatory.passes(12, step_s=600 if when == "dead" else 20)
    observatory.ended_well(whole)


@pytest.mark.fault(22, promise="P1")
def test_the_cost_of_a_claim_grows_no_faster_than_the_queue(tmp_path):
    from rows import queue

    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    steps = [0]
    queued, cost = 0, []
    for length in (50, 200):
        while queued < length:
            queue(store, 59000 + queued)
            queued += 1
        with store.engine.connect() as rows:
            rows.connection.driver_connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 100)
        before = steps[0]
        assert store.claim(60)
        cost.append(steps[0] - before)
    assert cost[1] < 6 * cost[0]
    store.engine.dispose()


@pytest.mark.fault(34, promise="P5")
def test_an_altered_release_is_refused_and_the_loaded_one_stays_in_use(monkeypatch, tmp_path):
    from sentinel.workers import process

    loaded = type("Detector", (), {"release": type("Release", (), {"name": "r1"})})
    monkeypatch.setattr(process, "_LOADED", {"ab": loaded})
    for broken in ("expected sha256 ab, found cd", "expected an encoder of 16 rows"):

        def refuse(_, broken=broken):
            raise ReleaseError(broken)

        monkeypatch.setattr("aetherscan.detector.release.read_release", refuse)
        assert process.detector_for(tmp_path) is loaded
    monkeypatch.setattr(process, "_LOADED", {})
    with pytest.raises(ReleaseError):
        process.detector_for(tmp_path)


WITH_MOUNTS = """
import subprocess, sys
from pathlib import Path
from rig import Observatory
place = Path(sys.argv[1])
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)
def passes(observatory, count=8):
    for _ in range(count):
        observatory.at += 6
        observatory.one_pass()
        observatory.work()
    return observatory.states()
"""


def run_with_mounts(place, code):
    """Run code in a namespace in which it may mount file systems."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -rm does not work here: no user namespaces")
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ran = subprocess.run(
        ["unshare", "-rm", sys.executable, "-P", "-c", WITH_MOUNTS + code, str(place)],
        env=os.environ | path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.fault(25, promise="P1")
def test_a_file_system_without_space_loses_no_cadence(tmp_path):
    code = """
mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
observatory = Observatory(place, None)
observatory.land(1)
passes(observatory, 3)
observatory.store.engine.dispose()  # deletes the write-ahead log
with (place / "ballast").open("wb", buffering=0) as ballast:
    try:
        while True:
            ballast.write(bytes(4096))
    except OSError:
        pass
failed = 0
for _ in range(8):
    try:
        passes(observatory, 1)
    except Exception as error:
        assert "full" in str(error) or "I/O" in str(error) or "unable to open" in str(error), error
        failed += 1
assert failed, observatory.states()
(place / "ballast").unlink()
observatory.at += 100
assert passes(observatory, 20) == ["done"], observatory.states()
observatory.adds_up()
"""
    run_with_mounts(tmp_path, code)


@pytest.mark.slow
@pytest.mark.fault(23, promise="P4")
def test_a_read_only_folder_is_searched_like_any_other(tmp_path):
    code = """
observatory = Observatory(place, None)
observatory.land(1)
mount("--bind", str(place / "in"), str(place / "in"))
mount("-o", "remount,ro,bind", str(place / "in"))
try:
    (place / "in" / "x").touch()
    raise SystemExit("it can be written")
except OSError:
    pass
assert passes(observatory) == ["done"], observatory.states()
"""
    run_with_mounts(tmp_path, code)


@pytest.mark.slow
@pytest.mark.fault(24, promise="P1")
def test_a_folder_that_is_unmounted_between_queue_and_search_is_searched_when_it_is_back(tmp_path):
    code = """
mount("-t", "tmpfs", "tmpfs", "/mnt")
mount("--bind", "/mnt", str(place / "in")) if (place / "in").mkdir() is None else 0
observatory = Observatory(place, None)
observatory.land(1)
observatory.workers = 0
assert passes(observatory) == ["ready"]
subprocess.run(["umount", str(place / "in")], check=True)
observatory.workers = 1
assert passes(observatory) == ["ready"]
mount("--bind", "/mnt", str(place / "in"))
assert passes(observatory) == ["done"], observatory.states()
"""
    run_with_mounts(tmp_path, code)


@pytest.mark.slow
@pytest.mark.fault(26, promise="P5")
def test_a_store_in_a_read_only_state_directory_is_named(tmp_path):
    code = """
from sentinel.errors import StoreError
from sentinel.store.queue import open_store
mount("--bind", str(place), str(place))
mount("-o", "remount,ro,bind", str(place))
try:
    open_store(f"sqlite:///{place}/sentinel.db")
    raise SystemExit("it was opened")
except StoreError as error:
    assert f"{place}/sentinel.db: cannot be used" in str(error), error
"""
    run_with_mounts(tmp_path, code)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.fault(22, promise="P1")
@pytest.mark.fault(38, promise="P5")
def test_live_cadences_are_searched_first_and_no_resource_grows_during_a_backlog_of_two_thousand():
    found = backlog.run(2000, 60, 30, drain=True, workers=8)
    assert found["ledger"]["done"] == found["ledger"]["seen"] == 2000 + len(found["idle_s"]) + len(found["loaded_s"])
    idle, loaded = (np.percentile(found[name], 95) for name in ("idle_s", "loaded_s"))
    assert loaded < 2 * idle
    quarter = found["sizes"][len(found["sizes"]) // 4]
    last = found["sizes"][-1]
    assert last.rss_mb < 1.1 * quarter.rss_mb + 20
    assert last.descriptors <= quarter.descriptors + 4
    assert max(size.wal_mb for size in found["sizes"]) < 64
