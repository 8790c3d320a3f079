"""Blind injections: tones added to live cadences while they are searched a second time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
from factories import GBT, make_detector, observe
from rows import count, found, queue
from sqlalchemy import select

from aetherscan.errors import TruncatedFileError
from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation, open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from sentinel.config import ROOT, Config
from sentinel.injection.blind import InjectedObservation, search_blind
from sentinel.store.queue import OWED, written_file
from sentinel.store.schema import artefact, candidate, injected_candidate, injection, outbox
from sentinel.workers.stamps import make_room, read_stamp
from sentinel.workers.task import inject_blind

TONE = {"frequency_mhz": 1.0, "drift_rate_hz_s": 0.0, "width_hz": 1.0, "snr": 20.0, "recovered": True}


def test_a_blind_injection_is_recovered_and_changes_neither_files_nor_candidates(sky, store):
    paths, _ = sky
    before = [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    injected = search_blind(paths, (0, 2, 4), SearchSettings(), make_detector(), np.random.default_rng(3))
    assert injected["recovered"] is True
    assert 10 <= injected["snr"] <= 100
    assert [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths] == before
    observations = [open_observation(path) for path in paths]
    own = search_cadence(observations, make_detector()).candidates
    for observation in observations:
        observation.close()
    assert all(abs(row.frequency_mhz - injected["frequency_mhz"]) > 1e-5 for row in own)


def test_a_masked_channel_near_the_tone_does_not_mask_the_tone():
    tone = Emitter(frequency_mhz=GBT.frequency(500), drift_hz_s=0.0, width_hz=2.0, snr=(20.0,))
    (observation,) = observe("A")
    before = observation.read(0, GBT.nchans)
    before[:, 510] = np.nan
    part = InjectedObservation(ArrayObservation(GBT, before), 0, GBT.nchans, tone, 0, 0.0)
    power = part.read(0, GBT.nchans)
    assert np.isnan(power).sum() == GBT.ntime
    assert (power[:, 500] > before[:, 500]).all()


def test_a_blind_injection_searches_one_coarse_channel_of_the_configured_width(sky, monkeypatch):
    searched = []

    def search(parts, *_, **__):
        searched.extend(parts)
        return SimpleNamespace(candidates=())

    monkeypatch.setattr("sentinel.injection.blind.search_cadence", search)
    settings = SearchSettings(coarse_channels=2**14)
    search_blind(sky[0], (0, 2, 4), settings, make_detector(), np.random.default_rng(3))
    assert {part.header.nchans for part in searched} == {2**14}


@pytest.mark.parametrize("parts", [1, 4])
def test_a_tone_has_its_snr_in_the_whole_scan_however_many_rows_are_read_at_once(parts):
    header = gbt_header(4096, rows=32)
    quiet = ArrayObservation(header, np.random.default_rng(1).chisquare(204, (32, 4096)).astype(np.float32))
    tone = Emitter(frequency_mhz=header.frequency(1500), drift_hz_s=0.4, width_hz=6.0, snr=(40.0,))
    with_tone = InjectedObservation(quiet, 1000, 2000, tone, 0, 0.0)
    edges = np.linspace(0, 32, parts + 1, dtype=int)
    power = np.concatenate([with_tone.read(0, 2000, rows=(int(a), int(b))) for a, b in pairwise(edges)])
    added = (power - quiet.read(1000, 3000)) / np.sqrt(2 * 204)
    assert np.sqrt((added**2).sum()) == pytest.approx(40, rel=0.05)


def test_blind_injections_have_the_configured_rate_and_are_never_candidates(store, monkeypatch):
    claimed = (queue(store), store.claimed(store.claim(60).token))[1]
    monkeypatch.setattr("sentinel.injection.blind.search_blind", lambda *_: {"kind": "blind", **TONE})
    monkeypatch.setattr("sentinel.workers.task.detector_for", lambda _: None)
    config = Config(injections={"blind_share": 0.2})
    count_injected = sum(inject_blind(store, config, replace(claimed, token=f"{number:032x}")) for number in range(200))
    assert 25 <= count_injected <= 55
    assert count(store, injection) == count_injected
    assert count(store, candidate) == count(store, outbox) == 0


def test_files_deleted_after_their_search_cause_no_error(store, monkeypatch):
    claimed = (queue(store), store.claimed(store.claim(60).token))[1]

    def gone(*_):
        raise TruncatedFileError("away")

    monkeypatch.setattr("sentinel.injection.blind.search_blind", gone)
    monkeypatch.setattr("sentinel.workers.task.detector_for", lambda _: None)
    assert inject_blind(store, Config(injections={"blind_share": 1}), claimed) is False


def test_the_candidate_of_a_blind_injection_is_kept_with_its_picture_and_stamp_for_the_queue(
    sky, store, tmp_path, monkeypatch
):
    paths, _ = sky
    monkeypatch.setattr("sentinel.store.queue.uuid.uuid4", lambda: UUID(int=1))  # the token draws the tone
    queue(store)
    claimed = replace(store.claimed((lease := store.claim(60)).token), paths=tuple(paths))
    store.complete(lease.token, found())
    config = Config(state_dir=tmp_path, release=ROOT / "models" / "equinox", injections={"blind_share": 1})
    assert inject_blind(store, config, claimed) is True
    with store.read() as rows:
        (kept,) = rows.execute(select(injected_candidate)).all()
        (made,) = rows.execute(select(injection)).all()
        files = rows.execute(select(artefact).where(artefact.c.sha256 != OWED)).all()
        served = {kind: list(written_file(rows, kept.id, kind)) for kind in ("waterfall", "stamp")}
    assert (kept.injection_id, kept.cadence_id, made.recovered) == (made.id, claimed.cadence_id, True)
    assert abs(kept.row["frequency_mhz"] - made.frequency_mhz) < 1e-4
    assert min(kept.row["snr"][::2]) > 5 * max(kept.row["snr"][1::2])
    assert (kept.row["seen_of"], kept.row["attempt_id"]) == (0, 1)
    assert {file.kind: [file.path, file.sha256] for file in files} == kept.files == served
    assert {file.candidate_id for file in files} == {None}
    description, scans = read_stamp(Path(kept.files["stamp"][0]), kept.files["stamp"][1])
    assert description["injected"] is True
    assert len(scans) == 6
    assert "injected" in kept.files["waterfall"][0]
    assert make_room(store, 10**6, 10**6)  # the budget of all stamps is used for the next one
    assert not Path(kept.files["stamp"][0]).exists()


def test_with_a_share_of_zero_no_injected_signal_enters_the_queue(sky, store, tmp_path, monkeypatch):
    claimed = (queue(store), store.claimed(store.claim(60).token))[1]
    kept = []
    monkeypatch.setattr(
        "sentinel.injection.blind.search_blind", lambda *given: kept.append(given[5]) or {"kind": "blind", **TONE}
    )
    monkeypatch.setattr("sentinel.workers.task.detector_for", lambda _: None)
    for share in (0, 1):
        token = f"{share:032x}"
        config = Config(injections={"blind_share": 1, "review_share": share})
        inject_blind(store, config, replace(claimed, token=token))
    assert [bool(keep) for keep in kept] == [False, True]
