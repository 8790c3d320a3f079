"""Canaries: simulated cadences that run through the whole service."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from factories import make_detector
from rows import RUNNING, alive, count, found, queue, record, row, status_of
from sqlalchemy import insert, select, update

from sentinel.config import ROOT, Config
from sentinel.injection.canary import Canaries
from sentinel.monitor import status
from sentinel.monitor.metrics import StageHistograms, exposition
from sentinel.store.schema import CANARY, attempt, cadence, cadence_file, candidate, file, injection, now, outbox
from sentinel.workers.search import search_files

TONE = {"frequency_mhz": 1500.0, "drift_rate_hz_s": 0.5, "width_hz": 4.0, "snr": 40.0}


def land_canary(store, config, tmp_path):
    """Land a canary of empty files, and queue it as grouping does."""

    def write(folder, _seed):
        (folder / "a.h5").touch()
        return TONE

    canaries = Canaries(config=config, store=store, write=write)
    canaries.tend()
    canaries.tend()
    (folder,) = config.canaries.iterdir()
    made = queue(store, 60000.0)
    with store.write() as rows:
        seen = select(cadence_file.c.observation).where(cadence_file.c.cadence_id == made)
        for number, observation in enumerate(rows.scalars(seen).all()):
            rows.execute(update(file).where(file.c.observation == observation).values(path=f"{folder}/{number}.h5"))
    return canaries


def test_the_program_that_sends_canaries_loads_no_search_or_simulation_code(tmp_path):
    code = """
import sys
from sentinel.injection import canary
import sentinel.web.server
from pathlib import Path
if __name__ == "__main__":
    tone = canary.write_canary(Path(sys.argv[1]), 1)
    print(sorted({"numba", "scipy", "sklearn", "h5py", "onnxruntime"} & set(sys.modules)), tone["drift_rate_hz_s"] > 0)
"""
    (tmp_path / "lands.py").write_text(code)
    command = [sys.executable, "-P", tmp_path / "lands.py", tmp_path]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[] True\n"
    assert len(list(tmp_path.glob("*.h5"))) == 6


@pytest.mark.parametrize(("mhz", "recovered"), [(1500.00005, True), (1500.001, False)])
def test_a_searched_canary_is_recorded_and_its_cadence_and_files_are_deleted(store, tmp_path, mhz, recovered):
    config = Config(state_dir=tmp_path)
    for _ in range(2):
        record(store, CANARY)  # a real target of that name
    canaries = land_canary(store, config, tmp_path)
    run = {"release": "ab" * 32, "found": [(mhz, 0.45, 0.9)]}
    store.complete(store.claim(60).token, replace(found(0), run=run, pictures=[]))
    text = exposition(config, store, StageHistograms()).decode()
    assert 'sentinel_attempts_total{outcome="done"} 2.0' in text
    assert 'sentinel_stage_seconds_count{stage="leased_to_recorded"} 2.0' in text
    canaries.tend()
    injected = row(store, injection)
    assert (injected.recovered, injected.probability) == (recovered, 0.9 if recovered else None)
    assert [count(store, table) for table in (cadence, attempt, candidate, outbox)] == [2, 2, 2, 2]
    assert count(store, file) == 12
    assert list(config.canaries.iterdir()) == []


def test_an_overdue_canary_and_a_canary_without_its_tone_are_alarms(store, tmp_path, monkeypatch):
    config = Config(state_dir=tmp_path)
    canaries = land_canary(store, config, tmp_path)
    alive(store)
    assert status_of(config, store, monkeypatch, RUNNING).level == status.OK
    with store.write() as rows:
        rows.execute(update(injection).values(made_at=now() - config.injections.alarm_s - 1))
    seen = status_of(config, store, monkeypatch, RUNNING)
    assert seen.level == status.CRITICAL
    assert "is not searched" in seen.remarks[0]
    with store.write() as rows:
        rows.execute(update(injection).values(made_at=now() - 11 * config.injections.alarm_s))
    canaries.tend()
    assert row(store, injection, id=1).recovered is False
    assert "canary" in status_of(config, store, monkeypatch, RUNNING).remarks[0]
    assert count(store, cadence) == 0


@pytest.mark.fault(32, promise="P5")
@pytest.mark.parametrize(("age_s", "landed"), [(-3600, 1), (60, 0), (3601, 1)])
def test_a_canary_is_due_after_its_interval_also_if_the_clock_was_set_back(store, tmp_path, age_s, landed):
    config = Config(state_dir=tmp_path)
    with store.write() as rows:
        earlier = {"kind": "canary", "name": "1", "made_at": now() - age_s, "ended_at": now(), "recovered": True}
        rows.execute(insert(injection).values(**earlier, **TONE))
    canaries = Canaries(config=config, store=store, write=lambda *_: TONE)
    for _ in range(3):
        canaries.tend()
    assert len(list(config.canaries.glob("*"))) == landed


def test_a_canary_that_cannot_be_written_leaves_no_files(store, tmp_path):
    def write(folder, _seed):
        (folder / "a.h5").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    config = Config(state_dir=tmp_path)
    with pytest.raises(OSError, match="No space left"):
        Canaries(config=config, store=store, write=write).tend()
    assert list(config.canaries.iterdir()) == []
    assert count(store, injection) == 0


def test_the_search_of_a_canary_records_its_tone_and_no_candidate(sky, tmp_path):
    paths, tone = sky
    config = Config(state_dir=paths[0].parent.parent, injections={"canary_s": 1})
    inside = config.canaries
    inside.symlink_to(paths[0].parent)
    kept = search_files([inside / path.name for path in paths], "ABABAB", lambda _: None, config, make_detector(), 1)
    inside.unlink()
    assert (list(kept.candidates), list(kept.pictures), kept.message) == ([], [], None)
    assert any(abs(mhz - tone.frequency_mhz) < 1e-4 for mhz, _, _ in kept.run["found"])
