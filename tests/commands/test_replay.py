"""Recorded cadences are searched again; partial cadences are searched."""

import time
from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector
from sqlalchemy import delete, insert, select, update
from watched import Folder

from aetherscan.header import UNIX_EPOCH_MJD, gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands.replay import ADDED, moment, replay
from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.store.schema import artefact, candidate
from sentinel.workers.search import search_files
from sentinel.workers.task import search_lease

NCHANS = 4096


@pytest.fixture
def recorded(tmp_path, store, monkeypatch):
    """Return a folder with one searched cadence, the configuration, and the function that searched it."""
    header = gbt_header(NCHANS)
    place = {"frequency_mhz": header.frequency(0.3 * NCHANS), "drift_hz_s": 0.3, "width_hz": 4.0}
    folder = Folder(tmp_path / "in", store)
    write_cadence(folder.root, Sky(header=header, emitters=(Emitter(**place, snr=(40.0, 0.0) * 3),)), 1, suffix=".fil")
    folder.passes()
    config, detector = Config(state_dir=tmp_path), make_detector()
    monkeypatch.setattr("sentinel.commands.replay.detector_for", lambda _: detector)
    lease = folder.store.claim(600)

    def search(claimed, progress):
        return search_files(claimed.paths, "ABACAD", progress, config, detector, lease.cadence_id)

    assert search_lease(folder.store, config, lease.cadence_id, lease.token, search) == "done"
    return folder, config, detector


def replayed(recorded):
    folder, config, _ = recorded
    lines = []
    same = replay(config, folder.store, 0.0, lines.append)
    return same, lines


def change(recorded, statement):
    with recorded[0].store.write() as rows:
        rows.execute(statement)


def test_a_replay_by_the_same_code_and_release_gives_the_same_bytes(recorded):
    same, lines = replayed(recorded)
    assert same
    (line,) = lines
    assert line.startswith("1 cadences searched again by release test (000000000000), code ")
    assert line.endswith(": 0 differ; 0 have missing files")


def test_every_difference_is_reported(recorded, monkeypatch):
    folder, _, detector = recorded
    with folder.store.read() as rows:
        row = dict(rows.execute(select(candidate)).mappings().first())
    nearly = float(np.nextafter(row["drift_rate_hz_s"], 1))
    change(recorded, update(candidate).where(candidate.c.id == row["id"]).values(drift_rate_hz_s=nearly))
    change(recorded, insert(candidate).values({**row, "id": 999, "frequency_mhz": 1400.0}))
    change(recorded, update(artefact).values(sha256="0" * 64))
    other = replace(detector.release, name="other")
    monkeypatch.setattr("sentinel.commands.replay.detector_for", lambda _: replace(detector, release=other))
    same, lines = replayed(recorded)
    assert not same
    text = "\n".join(lines)
    at = f"cadence 1: HIP99427: {row['frequency_mhz']!r} MHz: "
    assert f"{at}drift_rate_hz_s was {nearly}, is {row['drift_rate_hz_s']}" in text
    assert f'{at}release_name was "test", is "other"' in text
    assert "missing: 1400.0 MHz" in text
    assert "different picture: 000001-" in text
    assert "1 differ" in lines[-1]
    change(recorded, delete(artefact))
    change(recorded, delete(candidate))
    assert any("new: " in line for line in replayed(recorded)[1])


@pytest.mark.parametrize("version", ADDED)
def test_columns_that_a_later_version_added_are_no_difference(recorded, version):
    change(recorded, update(candidate).values(dict.fromkeys(ADDED[version])))
    same, lines = replayed(recorded)
    assert (same, len(lines)) == (True, 1)
    change(recorded, update(candidate).values(rfi_density=1e9))
    assert "rfi_density was 1000000000.0" in "\n".join(replayed(recorded)[1])


def test_cadences_that_cannot_be_searched_again_are_reported(recorded):
    folder, *_ = recorded
    next(folder.root.iterdir()).unlink()
    folder.passes()
    same, lines = replayed(recorded)
    assert not same  # nothing was compared
    assert lines[0] == "cadence 1: HIP99427: its files are missing"
    assert lines[1].endswith("1 have missing files")


def test_a_cadence_whose_files_cannot_be_opened_is_reported_and_the_others_are_searched(recorded, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sentinel.commands.replay.search_files", refuse)
    same, lines = replayed(recorded)
    assert not same
    assert lines[0] == "cadence 1: HIP99427: PermissionError: [Errno 13] Permission denied"
    assert "1 differ" in lines[-1]


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_a_cadence_without_one_off_is_searched_with_nan_in_its_place(recorded, lost):
    folder, config, detector = recorded
    paths = folder.store.paths(1)
    pattern = "".join("." if i == lost else letter for i, letter in enumerate("ABACAD"))
    whole = search_files(paths, "ABACAD", lambda _: None, config, detector, 1).candidates
    part = search_files(paths[:lost] + paths[lost + 1 :], pattern, lambda _: None, config, detector, 1).candidates
    tone = next(row for row in part if row["frequency_mhz"] == whole[0]["frequency_mhz"])
    assert tone["snr"][lost] == 0.0
    assert tone["snr"][0] == whole[0]["snr"][0] > 30


def test_the_start_of_a_period_is_a_date_an_mjd_or_an_age():
    day = (59103 - UNIX_EPOCH_MJD) * 86_400.0
    assert moment("59103.5") == day + 43_200
    assert moment("2020-09-11") == moment("2020-09-11T00:00:00+00:00") == day
    assert time.time() - moment("2d") == pytest.approx(172_800, abs=5)
    with pytest.raises(ConfigError, match="expected a date, an MJD or an age"):
        moment("yesterday")
