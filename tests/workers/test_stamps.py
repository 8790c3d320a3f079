"""Stamps keep the power around a candidate in files that blimpy opens, within a budget."""

import hashlib
import json
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector, observe
from rig import in_child
from rows import count
from sqlalchemy import select, update
from watched import Folder

from aetherscan.header import gbt_header
from aetherscan.io import absent_observation, open_cadence, open_observation
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands import evidence
from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.store.labels import put_labels
from sentinel.store.queue import OWED, open_store
from sentinel.store.schema import artefact, cadence, candidate, now
from sentinel.workers import pictures, stamps
from sentinel.workers.pictures import draw_owed
from sentinel.workers.search import search_files
from sentinel.workers.stamps import make_room, read_stamp, rounded, scan_name, write_stamp
from sentinel.workers.task import search_lease

HEADER = gbt_header(2**14)
ROW = {"frequency_mhz": HEADER.frequency(9000), "drift_rate_hz_s": 0.5, "curvature_hz_s2": 0.0}


@pytest.fixture
def sky(tmp_path):
    """Return six files with one tone in the ONs, found by the watcher of a store."""
    tone = Emitter(frequency_mhz=HEADER.frequency(9000), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
    folder = Folder(tmp_path / "in", open_store(f"sqlite:///{tmp_path}/sentinel.db"))
    write_cadence(folder.root, Sky(header=HEADER, emitters=(tone,)), 1)
    folder.passes()
    yield folder
    folder.store.engine.dispose()


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(pictures, "EXAMPLES", {})
    monkeypatch.setattr(pictures, "_waits", {})


def searched(folder, config):
    lease = folder.store.claim(600)

    def search(claimed, progress):
        return search_files(claimed.paths, "ABACAD", progress, config, make_detector(), lease.cadence_id)

    return search_lease(folder.store, config, lease.cadence_id, lease.token, search)


def stamp_of(store):
    with store.read() as rows:
        return rows.execute(select(artefact).where(artefact.c.kind == "stamp")).one()


def waterfall(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of blimpy's import
        from blimpy import Waterfall

        opened = Waterfall(str(path))
        opened.container.h5.close()
        return opened


def test_blimpy_opens_each_scan_of_a_stamp_with_its_frequencies_times_and_source(sky, tmp_path):
    assert searched(sky, Config(state_dir=tmp_path)) == "done"
    kept = stamp_of(sky.store)
    told, scans = read_stamp(Path(kept.path), kept.sha256)
    assert kept.bytes == sum(path.stat().st_size for path in Path(kept.path).iterdir()) < 1.5e6
    with open_cadence(sky.store.paths(1)) as observations:
        for path, observation, scan in zip(scans, observations, told["scans"], strict=True):
            ours, (start, stop), theirs = observation.header, scan["channels"], waterfall(path)
            assert stop - start == 4096
            assert start + 1800 < 9000 < stop - 1800
            for name in ("foff", "tsamp", "tstart", "source_name", "telescope_id"):
                assert theirs.header[name] == getattr(ours, name)
            assert theirs.header["fch1"] == ours.frequency(start)
            assert theirs.data.dtype == np.float32
            power = observation.read(start, stop)
            np.testing.assert_allclose(theirs.data[:, 0, :], power, rtol=2**-12)
            assert scan["header"]["nchans"] == ours.nchans
    assert told["release_sha256"] == "0" * 64
    assert told["config_sha256"] == Config().sha256
    assert told["counts"]["candidates"] == 1
    assert [Path(file["path"]).exists() for file in told["files"]] == [True] * 6


def test_a_signal_in_a_stamp_is_found_by_a_search_of_its_files(sky, tmp_path):
    searched(sky, Config(state_dir=tmp_path))
    kept = stamp_of(sky.store)
    _, scans = read_stamp(Path(kept.path), kept.sha256)
    again = search_files(scans, "ABACAD", lambda _: None, Config(state_dir=tmp_path), make_detector(), 1)
    assert [row["frequency_mhz"] for row in again.candidates] == [pytest.approx(HEADER.frequency(9000), abs=5e-6)]


def test_a_stamp_lies_within_the_band_and_has_no_file_of_a_missing_scan(tmp_path):
    observations = observe("ABACAD", header=replace(HEADER, nchans=5000, source_name="../../x"))
    observations[1] = absent_observation(observations[1].header)
    sha256, _ = write_stamp(tmp_path / "a.stamp", observations, {**ROW, "frequency_mhz": HEADER.fch1}, (0, 2, 4), {})
    told, scans = read_stamp(tmp_path / "a.stamp", sha256)
    assert [path.name for path in scans] == [scan_name(i) for i in (0, 2, 3, 4, 5)]
    assert [scan and scan["channels"] for scan in told["scans"]] == [[0, 4096], None, *[[0, 4096]] * 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.stamp"]
    with open_observation(scans[0]) as opened:
        assert opened.header.source_name == "../../x"


def test_a_stamp_of_a_long_recording_has_fewer_channels(monkeypatch, tmp_path):
    monkeypatch.setattr(stamps, "MOST_PIXELS", 96 * 100)
    sha256, _ = write_stamp(tmp_path / "a.stamp", observe("ABACAD", header=HEADER), ROW, (0, 2, 4), {})
    channels = {tuple(scan["channels"]) for scan in read_stamp(tmp_path / "a.stamp", sha256)[0]["scans"]}
    assert {stop - start for start, stop in channels} == {100}


def test_rounding_keeps_what_is_not_measured_and_every_size_of_power():
    power = np.array([np.nan, np.inf, 0.0, 1e-30, 3.4028235e38, 1e12, 4095.0, -2.5], np.float32)
    power = np.append(power, np.array([0x7FFFFFFF], np.uint32).view(np.float32))
    kept = rounded(power)
    np.testing.assert_allclose(kept, power, rtol=2**-12)
    assert kept[6] == 4095.0


@pytest.mark.fault(43, promise="P3")
def test_a_full_disk_costs_no_detection_and_the_stamp_is_written_later(sky, tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(stamps, "write_h5", no_space)
        assert searched(sky, Config(state_dir=tmp_path)) == "done"
    assert count(sky.store, candidate) == 1
    assert stamp_of(sky.store).sha256 == OWED
    assert [path.suffix for path in (tmp_path / "pictures").iterdir() if path.name.startswith(".")] == []
    with sky.store.write() as rows:
        rows.execute(update(cadence).values(ended_at=now() - pictures.WRITER_S - 1))
    assert draw_owed(sky.store, wait_s=0) == 0  # without a budget none is written
    assert draw_owed(sky.store, wait_s=0, stamp_bytes=10**9) == 1
    assert read_stamp(Path(stamp_of(sky.store).path), stamp_of(sky.store).sha256)


def test_a_disk_that_is_nearly_full_is_left_to_the_store(monkeypatch, tmp_path):
    monkeypatch.setattr(stamps, "LEAST_FREE", 2**62)
    with pytest.raises(OSError, match="expected 4611686018427387904 bytes free, found"):
        write_stamp(tmp_path / "a.stamp", [], ROW, (0, 2, 4), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(2, promise="P2")
def test_what_a_killed_worker_left_of_a_stamp_never_has_its_name_and_is_deleted_when_it_is_written(tmp_path):
    def write():
        write_stamp(tmp_path / "a[1].stamp", observe("ABACAD", header=HEADER), ROW, (0, 2, 4), {})

    (tmp_path / ".a1.stamp.4242").mkdir()  # of another stamp
    assert in_child(write, SENTINEL_FAILPOINT="mid-stamp:kill") == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    assert "a[1].stamp" not in left
    write()
    assert {path.name for path in tmp_path.iterdir()} == {".a1.stamp.4242", "a[1].stamp"}


def test_a_budget_of_zero_writes_no_stamp(sky, tmp_path):
    searched(sky, Config(state_dir=tmp_path, stamps={"budget_gb": 0}))
    assert count(sky.store, candidate) == 1
    with sky.store.read() as rows:
        assert set(rows.scalars(select(artefact.c.kind))) == {"waterfall", "example"}


def test_a_stamp_beyond_the_whole_budget_is_given_up(sky, tmp_path):
    searched(sky, Config(state_dir=tmp_path, stamps={"budget_gb": 1e-6}))
    with sky.store.read() as rows:
        assert "stamp" not in set(rows.scalars(select(artefact.c.kind)))
    assert list((tmp_path / "pictures").glob("*.stamp")) == []


def test_the_oldest_stamps_without_a_label_go_first_and_candidates_stay(sky, tmp_path):
    searched(sky, Config(state_dir=tmp_path))
    store = sky.store
    with store.write() as rows:
        (row,) = rows.execute(select(candidate)).mappings()
        rows.execute(artefact.delete())
        for number in range(1, 6):
            if number > 1:
                rows.execute(candidate.insert().values({**row, "id": number}))
            folder = tmp_path / f"{number}.stamp"
            folder.mkdir()
            values = {"cadence_id": 1, "candidate_id": number, "kind": "stamp", "sha256": "a" * 64, "bytes": 100}
            rows.execute(artefact.insert().values(path=str(folder), **values))
        for number, word in ((1, "candidate"), (2, "RFI")):
            put_labels(rows, [number], word, "ann", via="page")

    def there():
        return sorted(int(path.stem) for path in tmp_path.glob("*.stamp"))

    assert make_room(store, 100, 600)
    assert there() == [1, 2, 3, 4, 5]
    assert make_room(store, 100, 500)
    assert there() == [1, 2, 4, 5]
    assert make_room(store, 100, 300)
    assert there() == [1, 2]
    assert not make_room(store, 150, 200)
    assert there() == [1]
    assert not make_room(store, 201, 200)
    assert there() == [1]


@pytest.mark.parametrize("name", ["stamp.json", "scan-3.h5"])
def test_a_damaged_stamp_is_named_and_is_no_evidence(sky, tmp_path, name):
    searched(sky, Config(state_dir=tmp_path))
    path = Path(stamp_of(sky.store).path) / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=f"{name}: expected the checksum of the store, found another"):
        evidence.pack(Config(state_dir=tmp_path), sky.store, 1, tmp_path / "a.zip")
    path.unlink()
    with pytest.raises(StoreError, match="expected a stamp, found"):
        evidence.pack(Config(state_dir=tmp_path), sky.store, 1, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {Path(name).relative_to(path.stem).as_posix(): archive.read(name) for name in archive.namelist()}


def test_evidence_holds_power_row_labels_trace_and_checksums(sky, tmp_path, monkeypatch):
    config = Config(state_dir=tmp_path)
    monkeypatch.setattr(evidence, "detector_for", lambda _: make_detector())
    searched(sky, config)
    with sky.store.write() as rows:
        put_labels(rows, [1], "candidate", "ann", via="page", note="looks right")
    found = contents(evidence.pack(config, sky.store, 1, tmp_path / "a.zip"))
    sums = dict(line.split("  ")[::-1] for line in found.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert {f"stamp/{scan_name(i)}" for i in range(6)} | {"stamp/stamp.json"} <= set(found)
    assert json.loads(found["candidate.json"])["frequency_mhz"] == pytest.approx(HEADER.frequency(9000), abs=5e-6)
    assert json.loads(found["labels.json"])[0]["note"] == "looks right"
    assert json.loads(found["cadence.json"])["state"] == "done"
    assert b"a candidate" in found["trace.txt"]
    assert {Path(name).suffix for name in found} == {".json", ".h5", ".txt", ".png", ".npz"}
    assert contents(evidence.pack(config, sky.store, 1, tmp_path / "a.zip")) == contents(tmp_path / "a.zip")


def test_evidence_is_cut_from_the_files_if_there_is_no_stamp_and_refused_if_they_are_gone_too(sky, tmp_path):
    config = Config(state_dir=tmp_path, stamps={"budget_gb": 0})
    searched(sky, config)
    found = contents(evidence.pack(config, sky.store, 1, tmp_path / "a.zip"))
    assert {f"stamp/{scan_name(i)}" for i in range(6)} <= set(found)
    assert found["trace.txt"].startswith(b"no trace: ")  # the release of this test is in memory only
    (tmp_path / "a.zip").unlink()
    for path in sky.root.iterdir():
        path.unlink()
    sky.passes()
    with pytest.raises(StoreError, match="expected a stamp or the files of its cadence, found neither"):
        evidence.pack(config, sky.store, 1, tmp_path / "a.zip")
    with pytest.raises(StoreError, match="candidate 9: no such row"):
        evidence.pack(config, sky.store, 9, tmp_path / "a.zip")
    assert list(tmp_path.glob("*.zip")) == []
