"""Workers that cannot start are started again when they can, and what ended a search is told from its future."""

import os
import time
from types import SimpleNamespace

import pytest
from distributed import KilledWorker, LocalCluster
from distributed.comm import CommClosedError
from distributed.core import Status

from sentinel.config import Config
from sentinel.errors import Cause
from sentinel.workers.cluster import Searchers, start_failed_again


@pytest.mark.fault(34, promise="P1")
@pytest.mark.fault(46, promise="P1")
@pytest.mark.parametrize("status", [Status.closed, Status.failed])
def test_workers_that_could_not_start_are_started_again_and_others_left_alone(status):
    nannies = {name: SimpleNamespace(status=how) for name, how in enumerate([Status.running, status, Status.starting])}
    scaled = []
    cluster = SimpleNamespace(workers=dict(nannies), scale=scaled.append)
    start_failed_again(cluster, 3)
    assert (sorted(cluster.workers), scaled) == ([0, 2], [3])
    cluster.workers[1] = nannies[0]
    start_failed_again(cluster, 3)
    assert scaled == [3]


@pytest.mark.slow
@pytest.mark.fault(34, promise="P1")
@pytest.mark.fault(46, promise="P1")
def test_a_killed_worker_comes_back_although_its_first_start_fails(tmp_path):
    away = tmp_path / "away"
    (tmp_path / "preload.py").write_text(f"import os\nif os.path.exists({str(away)!r}): raise RuntimeError('away')\n")
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options, preload=[str(tmp_path / "preload.py")], local_directory=str(tmp_path)) as cluster:

        def until(holds):
            end = time.monotonic() + 60
            while not holds():
                assert time.monotonic() < end
                time.sleep(0.1)

        away.touch()
        lost = cluster.workers[0]
        os.kill(lost.pid, 9)
        until(lambda: lost.status == Status.closed)
        start_failed_again(cluster, 2)
        away.unlink()
        until(lambda: start_failed_again(cluster, 2) or len(cluster.scheduler.workers) == 2)


@pytest.mark.fault(4, promise="P1")
@pytest.mark.fault(12, promise="P1")
@pytest.mark.parametrize(
    ("status", "error", "cause"),
    [
        ("error", KilledWorker("search-1", None, 0), Cause.DEATH),
        ("error", CommClosedError("in <TCP>: Stream is closed"), Cause.MACHINE),
        ("error", ConnectionError("no store"), Cause.MACHINE),
        ("error", ValueError("shape"), Cause.UNKNOWN),
        ("lost", None, Cause.MACHINE),
        ("cancelled", None, Cause.MACHINE),
    ],
)
def test_a_dead_worker_is_told_from_a_lost_scheduler_and_from_an_error(status, error, cause):
    searchers = Searchers(Config(), ended=lambda: None)
    future = type("Future", (), {"status": status, "exception": lambda _: error})()
    searchers._futures = {future: "lease"}
    ((lease, why, found),) = searchers.collect()
    assert (lease, found) == ("lease", cause)
    assert why
    assert list(searchers.collect()) == []
