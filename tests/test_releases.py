"""Releases come and go beside a running service; people's labels and a training's stages are in its store."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, select

from aetherscan.errors import ReleaseError
from aetherscan.io import open_observation
from aetherscan.recut import recut
from aetherscan.release import write_card
from aetherscan.search import SearchSettings
from aetherscan.simulate import Sky, gbt_header, random_signal, write_cadence
from aetherscan.tracks import MEASUREMENTS
from sentinel import cli
from sentinel.errors import PostLaterError
from sentinel.models import promote, serving
from sentinel.schema import attempt, cadence, candidate, release, shadow, training
from sentinel.shadow import compare, search_shadow
from sentinel.training import Journal

SHIPPED = Path(__file__).parents[1] / "models" / "meridian"


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Six files that hold one bright tone, and where it is."""
    rng, header = np.random.default_rng(4), gbt_header(2**16)
    tone = random_signal(rng, header.frequency(30_000), 40.0, 0.5)
    folder = tmp_path_factory.mktemp("sky")
    return write_cadence(folder, Sky(header=header, emitters=(tone,)), 4), tone.frequency_mhz


@pytest.fixture
def searched(store):
    """A cadence in the store, with a candidate at 1500 MHz."""
    with store.write() as rows:
        rows.execute(insert(release).values(sha256="a", name="a", first_used_at=0))
        facts = {"key": "k", "state": "done", "target": "X", "tstart": 1, "band_low_mhz": 1, "band_high_mhz": 2}
        rows.execute(insert(cadence).values(id=1, created_at=0, attempts=1, pattern="ABACAD", **facts))
        rows.execute(insert(attempt).values(id=1, cadence_id=1, number=1, token="t", started_at=0))
        where = {"frequency_mhz": 1500.0, "drift_rate_hz_s": 0, "bandwidth_hz": 3, "snr": [9] * 6, "probability": 0.9}
        named = {"release_name": "a", "release_sha256": "a", "code_version": "0", "config_sha256": "0"}
        row = {"cadence_id": 1, "attempt_id": 1, "latents": [], "target": "X", "tstart_mjd": 1, "mode": "tracks"}
        rows.execute(insert(candidate).values(**where, **named, **row))
    return store


@pytest.fixture
def models(tmp_path):
    """Two releases, of which one will be promoted over the other."""
    for name in ("old", "new"):
        shutil.copytree(SHIPPED, tmp_path / name)
        card = json.loads((tmp_path / name / "release.json").read_text())
        write_card(tmp_path / name, card | {"name": name})
    return tmp_path


def test_a_promoted_release_serves_until_another_is_configured(store, models):
    assert serving(store, models / "old") == models / "old"
    promote(store, models / "old", "new")
    assert serving(store, models / "old") == models / "new"
    promote(store, models / "old", "old")
    assert serving(store, models / "old") == models / "old"
    promote(store, models / "old", "new")
    assert serving(store, models / "third") == models / "third"


def test_commands_beside_the_service_use_what_it_serves_and_say_so(models, monkeypatch, capsys):
    (models / "config.yaml").write_text("release: old\nstate_dir: .\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(models / "config.yaml"))
    used = []
    monkeypatch.setattr("aetherscan.evaluate.judge_release", lambda release, *_, **__: used.append(release) or [])
    monkeypatch.setattr("sentinel.offline.detector_of", lambda release, *_: used.append(release))
    monkeypatch.setattr("sentinel.offline.search", lambda *_, detect, **__: detect() or 1)
    for promoted in (False, True):
        if promoted:
            assert cli.main(["models", "promote", "new"]) == 0
        for command in (["evaluate"], ["search", "a.h5"], ["search", "a.h5", "--release", "models/x"]):
            assert cli.main(command) == 0
            said = "release new, which was promoted over old\n"
            assert capsys.readouterr().err == (said if promoted and "--release" not in command else "")
        cli.main(["doctor"])
        assert f"ok    release: {'new, promoted over old' if promoted else 'old'}, sha256" in capsys.readouterr().out
    old, new, other = models / "old", models / "new", Path("models/x")
    assert used == [old, old, other, new, new, other]


def test_a_worker_takes_a_promoted_release_with_its_next_cadence(store, models, monkeypatch):
    from sentinel import worker

    monkeypatch.setattr(worker, "_LOADED", {})
    names = []
    for name in (None, "new", None):
        if name:
            promote(store, models / "old", name)
        names.append(worker.detector_for(serving(store, models / "old")).release.name)
    assert names == ["old", "new", "new"]


@pytest.mark.parametrize("name", ["none", "../old", "broken"])
def test_what_is_no_whole_release_is_not_promoted(store, models, name):
    shutil.copytree(models / "old", models / "broken")
    (models / "broken" / "tracks.skops").write_bytes(b"x")
    with pytest.raises(ReleaseError):
        promote(store, models / "old", name)
    assert serving(store, models / "old") == models / "old"


def test_a_shadow_is_recorded_and_told_apart_from_what_was_reported(searched):
    found = [
        {"frequency_mhz": mhz, "drift_rate_hz_s": 0, "snr": [9] * 6, "probability": 0.7} for mhz in (1500.000005, 1400)
    ]
    with searched.write() as rows:
        rows.execute(insert(shadow).values(cadence_id=1, release_name="b", release_sha256="b", at=0, found=found))
        rows.execute(insert(shadow).values(cadence_id=1, release_name="c", release_sha256="c", at=0, found=[]))
    assert list(compare(searched, "b")) == [
        "1 cadences: both report 1 signals, those that served 0 more, b 1 more",
        "cadence 1 X: b only: 1400.000000 MHz, p 0.700",
    ]
    assert list(compare(searched, "c"))[1] == "cadence 1 X: served only: 1500.000000 MHz, p 0.900"
    assert next(compare(searched, "d")).startswith("0 cadences")


def test_a_shadow_searches_the_same_files_and_announces_nothing(searched, sky):
    from factories import make_detector

    paths, mhz = sky
    search_shadow(searched, 1, paths, (0, 2, 4), make_detector(), SearchSettings())
    with searched.read() as rows:
        (one,) = rows.execute(select(shadow)).all()
        assert len(rows.execute(select(candidate)).all()) == 1
    assert any(abs(row["frequency_mhz"] - mhz) < 2e-5 for row in one.found)


def test_a_labelled_candidate_is_cut_out_of_its_files_again(sky):
    paths, mhz = sky
    with ExitStack() as opened:
        observations = [opened.enter_context(open_observation(path)) for path in paths]
        found, *none = (recut(observations, at, 1.0, (0, 2, 4), (16, 512)) for at in (mhz, mhz + 0.01, 5000.0))
    assert none == [None, None]
    assert found.snippets.shape == (1, 6, 16, 512)
    assert found.labels.tolist() == [1]
    together = found.measurements[0, MEASUREMENTS.index("on_together")]
    assert together == pytest.approx(40 * 3**0.5, rel=0.3)  # a wide line fills more than its box
    assert found.snippets[0, ::2].max() > found.snippets[0, 1::2].max()


class Told:
    """A channel that keeps what each message says now."""

    def __init__(self):
        self.messages, self.calls = {}, 0

    def post(self, message, *, repeat):
        self.calls += 1
        if self.calls == 1:
            raise PostLaterError("ratelimited")
        self.messages["ts"] = message.text
        return "ts"

    def edit(self, ts, text):
        self.messages[ts] = text


def test_a_training_is_in_the_store_and_in_one_message_that_is_edited(store):
    told = Told()
    journal = Journal(run="test_v1", store=store, poster=told)
    for i in (1, 2, 3):
        journal.note({"stage": f"round {i}", "seconds": 2.5, "cpu_s": 4.0, "ram_bytes": 10**9, "loss": 1 / i})
    assert list(told.messages) == ["ts"]
    assert "round 1: 2 s, loss 1\nround 2: 2 s, loss 0.5\nround 3: 2 s, loss 0.3333" in told.messages["ts"]
    with store.read() as rows:
        kept = rows.execute(select(training.c.run, training.c.stage, training.c.facts)).all()
    assert [(one.run, one.stage) for one in kept] == [("test_v1", f"round {i}") for i in (1, 2, 3)]
    assert kept[0].facts == {"cpu_s": 4.0, "ram_bytes": 10**9, "loss": 1}
