"""A worker joins before it has compiled the search. Searches that it is given meanwhile wait and keep their leases."""

import fcntl
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import make_detector
from rows import queue

from aetherscan.search.bandpass import normalize_bandpass
from sentinel.config import Config
from sentinel.store.queue import SearchRecord
from sentinel.workers import preload, process, task


@pytest.fixture
def compiling():
    process.COMPILED.clear()
    yield process.COMPILED
    process.COMPILED.set()


def test_a_search_waits_until_its_worker_has_compiled_and_keeps_its_lease(compiling, store, tmp_path, monkeypatch):
    queue(store)
    lease, renewed = store.claim(60), []

    def renew(token):
        assert token == lease.token
        renewed.append(compiling.is_set())
        if len(renewed) == 3:
            compiling.set()

    def search_files(*_):
        assert renewed == [False] * 3
        return SearchRecord(candidates=[], pictures=[], release=("r", "0" * 64), run={}, message=None)

    monkeypatch.setattr(type(store), "renew", lambda _, token, *__, **___: renew(token))
    monkeypatch.setattr(task, "WAIT_S", 0.01)
    monkeypatch.setattr(task, "RENEWALS", 1e9)
    monkeypatch.setattr(task, "cached_store", lambda _: store)
    monkeypatch.setattr(task, "detector_for", lambda _: make_detector())
    monkeypatch.setattr("sentinel.workers.search.search_files", search_files)
    config = Config(state_dir=tmp_path)
    assert task.search_task(lease.cadence_id, lease.token, config.model_dump_json())["outcome"] == "done"


def test_one_worker_of_a_machine_compiles_at_a_time(compiling, monkeypatch, tmp_path):
    def warm_up(_, scratch):
        path = Path(normalize_bandpass.stats.cache_path) / "compiling.lock"
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        warmed.append((compiling.is_set(), scratch))

    warmed = []
    monkeypatch.setattr(preload, "warm_up", warm_up)
    preload.compile_search(None, tmp_path)
    assert warmed == [(False, tmp_path)]
    assert compiling.is_set()


def test_a_heartbeat_tells_that_searches_wait(compiling, monkeypatch):
    release = SimpleNamespace(name="r", sha256="0" * 64)
    monkeypatch.setattr(preload, "loaded_detector", lambda: SimpleNamespace(release=release))
    assert preload.heartbeat_facts()["search"] == preload.COMPILING
    compiling.set()
    assert preload.heartbeat_facts() == {"release": "r", "sha256": "0" * 64}


def test_searches_begin_although_the_search_was_not_compiled(compiling, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(preload, "warm_up", lambda *_: 1 / 0)
    preload.compile_search(None, tmp_path)
    assert compiling.is_set()
    assert "the search was not compiled" in caplog.text


def test_a_worker_compiles_where_it_cannot_lock(compiling, monkeypatch, tmp_path):
    warmed = []
    stats = SimpleNamespace(cache_path=str(tmp_path / "none"))
    monkeypatch.setattr("aetherscan.search.bandpass.normalize_bandpass", SimpleNamespace(stats=stats))
    monkeypatch.setattr(preload, "warm_up", lambda detector, _: warmed.append(detector))
    preload.compile_search("detector", tmp_path)
    assert warmed == ["detector"]
