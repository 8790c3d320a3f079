"""A demo follows its own files, and reports it if they were not searched."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from rows import CANDIDATE, found, queue
from sqlalchemy import select, update

from sentinel.commands import demo
from sentinel.config import Config
from sentinel.errors import SentinelError
from sentinel.store.queue import SearchRecord
from sentinel.store.schema import cadence, cadence_file, file

QUIET = {"seed": 1, "suffix": ".h5", "slow_s": 0.0, "keep": False, "tell": lambda _: None}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "not_ready", lambda *_: "")
    monkeypatch.setattr(demo, "GIVE_UP_S", 0.5)
    (tmp_path / "incoming").mkdir()
    return Config(state_dir=tmp_path / "var", watch={"roots": [tmp_path / "incoming"]})


@pytest.mark.fault(42, promise="P5")
def test_a_demo_that_is_not_searched_reports_no_earlier_demo_and_keeps_its_files(config, store):
    queue(store)
    done = SearchRecord(candidates=[CANDIDATE], release=("r1", "ab" * 32), pictures=[], run={}, message=None)
    store.complete(store.claim(60).token, done)
    with store.write() as rows:
        rows.execute(update(cadence).values(target="DEMO1", tstart=99_999.0))
    with pytest.raises(SentinelError, match=r"not searched in 0 s .*files stay in"):
        demo.run(config, store, **QUIET)
    assert len(list(config.watch.roots[0].rglob("*.h5"))) == 6


def test_two_demos_in_the_same_second_have_a_folder_each(config, store, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.8e9)
    for _ in "12":
        with pytest.raises(SentinelError, match=r"not searched in 0 s"):
            demo.run(config, store, **QUIET)
    assert [len(list(folder.iterdir())) for folder in config.watch.roots[0].iterdir()] == [6, 6]


@pytest.mark.fault(42, promise="P5")
def test_a_demo_does_not_create_a_missing_watched_folder(config, store):
    config.watch.roots[0].rmdir()
    with pytest.raises(SentinelError, match="expected a watched folder, found none"):
        demo.run(config, store, **QUIET)
    assert not config.watch.roots[0].exists()


@pytest.mark.fault(42, promise="P5")
def test_a_demo_writes_no_files_while_a_program_of_the_service_is_missing(config, store, monkeypatch):
    monkeypatch.setattr(demo, "not_ready", lambda *_: "waiting for watcher")
    with pytest.raises(SentinelError, match="the service is not ready: waiting for watcher"):
        demo.run(config, store, **QUIET)
    assert list(config.watch.roots[0].iterdir()) == []


@pytest.mark.fault(42, promise="P4")
@pytest.mark.parametrize(("state", "left"), [("done", ["notes.txt"]), ("quarantined", ["notes.txt"] + 6 * [".h5"])])
def test_a_demo_deletes_only_its_own_files_and_only_after_a_search(config, store, monkeypatch, state, left):
    def follow(_store, folder, _tell):
        (folder / "notes.txt").touch()
        return [SimpleNamespace(id=1, state=state, why="no reader")]

    monkeypatch.setattr(demo, "_follow", follow)
    assert not demo.run(config, store, **QUIET)
    (folder,) = config.watch.roots[0].iterdir()
    names = sorted(path.name if path.suffix == ".txt" else path.suffix for path in folder.iterdir())
    assert names == sorted(left)


def test_a_demo_reports_several_cadences_messages_and_candidates_without_a_probability(config, store, monkeypatch):
    """As with `cadence.scans: 4`, where six files form two cadences that no forest scores, and with two posters."""
    message = {"posters": ["slack", "webhook"], "state": "off", "text": "text", "pictures": [], "sequence": "6 T"}

    def write_sky(folder, _seed, suffix, _target):
        paths = [folder / f"{i}{suffix}" for i in range(6)]
        for path in paths:
            path.touch()
        return tuple(paths), SimpleNamespace(frequency_mhz=1400.0, drift_hz_s=0.1, width_hz=4.0, snr=(40.0, 0.0) * 3)

    def land(paths, folder, _slow_s):
        for mhz in (1400.0, 1500.0):
            made = queue(store)
            row = {**CANDIDATE, "frequency_mhz": mhz, "drift_rate_hz_s": 0.1, "probability": None}
            record = replace(found(), candidates=[row], pictures=[], message=lambda _: message)
            store.complete(store.claim(60).token, record)
            with store.write() as rows:
                member = select(cadence_file.c.observation).where(cadence_file.c.cadence_id == made)
                own = update(file).where(file.c.observation == member.limit(1).scalar_subquery())
                rows.execute(own.values(path=f"{folder}/{mhz}.h5"))
        queue(store, state="forming")

    monkeypatch.setattr(demo, "write_sky", write_sky)
    monkeypatch.setattr(demo, "land", land)
    monkeypatch.setattr(demo, "PICTURE_S", 0.0)
    lines = []
    assert demo.run(config, store, **{**QUIET, "tell": lines.append})
    text = "\n".join(lines)
    assert "found     1400.000000 MHz  +0.100 Hz/s  not scored" in text
    assert "other     1500.000000 MHz" in text
    assert text.count("message   webhook: off no channel is configured") == 2
