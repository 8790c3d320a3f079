"""Releases are promoted, compared and trained while the service runs; labels are in its store."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import SeesSignalsEverywhere, make_detector
from rows import queue
from sqlalchemy import insert, select

from aetherscan.detector import detector as detector_module
from aetherscan.detector.release import MEASUREMENTS, SHAPE, Kinds, Signals, file_sha256, read_release, write_card
from aetherscan.errors import ReleaseError
from aetherscan.header import gbt_header
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.interference import random_signal
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel import cli
from sentinel.commands.candidates import export, put_label
from sentinel.commands.search import Outcome
from sentinel.commands.train import TrainingLog, labeled_examples
from sentinel.config import Config
from sentinel.errors import PostLaterError, SentinelError
from sentinel.store.queue import open_store
from sentinel.store.releases import active_release, promote
from sentinel.store.schema import artefact, attempt, cadence, candidate, release, shadow
from sentinel.workers import process, task
from sentinel.workers.pictures import draw_recorded
from sentinel.workers.search import search_files
from sentinel.workers.shadow import compare, search_shadow

SHIPPED = Path(__file__).parents[2] / "models" / "equinox"


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Return six files with one bright tone, and the frequency of the tone."""
    rng, header = np.random.default_rng(4), gbt_header(2**16)
    tone = random_signal(rng, header.frequency(30_000), 40.0, 0.5)
    folder = tmp_path_factory.mktemp("sky")
    return write_cadence(folder, Sky(header=header, emitters=(tone,)), 4), tone.frequency_mhz


@pytest.fixture
def searched(store):
    """Return a store with a cadence that has a candidate at 1500 MHz."""
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


@pytest.fixture(scope="module")
def forests():
    """Return loaded forests by the checksum of their file."""
    return {}


@pytest.fixture(autouse=True)
def forests_loaded_once(monkeypatch, forests):
    """Load each shipped forest once: the releases here differ in their names only."""
    load = detector_module.load_forest

    def load_once(path, *classes):
        key = file_sha256(path)
        forests[key] = forests.get(key) or load(path, *classes)
        return forests[key]

    monkeypatch.setattr(detector_module, "load_forest", load_once)


@pytest.fixture
def models(tmp_path):
    """Return the folder of two releases."""
    for name in ("old", "new"):
        shutil.copytree(SHIPPED, tmp_path / name)
        card = json.loads((tmp_path / name / "release.json").read_text())
        write_card(tmp_path / name, card | {"name": name})
    return tmp_path


def test_a_promoted_release_is_active_until_another_is_configured(store, models):
    assert active_release(store, models / "old") == models / "old"
    promote(store, models / "old", "new")
    assert active_release(store, models / "old") == models / "new"
    promote(store, models / "old", "old")
    assert active_release(store, models / "old") == models / "old"
    promote(store, models / "old", "new")
    assert active_release(store, models / "third") == models / "third"


def test_search_and_evaluate_use_the_active_release_and_name_it(models, monkeypatch, capsys):
    (models / "config.yaml").write_text("release: old\nstate_dir: .\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(models / "config.yaml"))
    monkeypatch.chdir(models)
    used = []
    monkeypatch.setattr(
        "sentinel.commands.evaluate.evaluate_release", lambda release, *_, **__: used.append(release) or []
    )
    monkeypatch.setattr("sentinel.commands.search.detector_of", lambda release, *_: used.append(release))
    searched = Outcome(searched=1, failed=0)
    monkeypatch.setattr("sentinel.commands.search.search", lambda *_, detect, **__: detect() or searched)
    for promoted in (False, True):
        if promoted:
            assert cli.main(["models", "promote", "new"]) == 0
        for command in (["evaluate"], ["search", "a.h5"], ["search", "a.h5", "--release", "models/x"]):
            assert cli.main(command) == 0
            line = "release new, promoted over the configured old\n"
            assert capsys.readouterr().err == (line if promoted and "--release" not in command else "")
        cli.main(["doctor"])
        assert f"ok    release: {'new, promoted over old' if promoted else 'old'}, sha256" in capsys.readouterr().out
    old, new, other = models / "old", models / "new", Path("models/x")
    assert used == [old, old, other, new, new, other]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set-alarms", "0.5"], "expected --release with the release that is changed, found none"),
        (["--set-alarms", "0.5", "--release", "old", "--full"], "--card, --slice, found --full"),
        (["--set-alarms", "0.5", "--release", "old", "--band-mhz", "12"], "expected at least 600 MHz to count 0.5"),
        (["--set-alarms", "0"], "expected a finite number greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_set_alarms_says_why_and_changes_no_release(models, monkeypatch, capsys, options, said):
    (models / "config.yaml").write_text("release: new\nstate_dir: .\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(models / "config.yaml"))
    monkeypatch.chdir(models)
    before = (models / "old" / "release.json").read_bytes()
    try:
        code = cli.main(["evaluate", *options])
    except SystemExit as ended:
        code = ended.code
    assert code != 0
    assert said in capsys.readouterr().err
    assert (models / "old" / "release.json").read_bytes() == before


def test_a_worker_loads_a_promoted_release_with_its_next_cadence(store, models, monkeypatch):
    monkeypatch.setattr(process, "_LOADED", {})
    names = []
    for name in (None, "new", None):
        if name:
            promote(store, models / "old", name)
        names.append(process.detector_for(active_release(store, models / "old")).release.name)
    assert names == ["old", "new", "new"]


@pytest.mark.parametrize("name", ["none", "../old", "broken"])
def test_an_incomplete_release_is_not_promoted(store, models, name):
    shutil.copytree(models / "old", models / "broken")
    (models / "broken" / "tracks.skops").write_bytes(b"x")
    with pytest.raises(ReleaseError):
        promote(store, models / "old", name)
    assert active_release(store, models / "old") == models / "old"


def test_candidates_of_the_shadow_release_are_recorded_separately(searched):
    found = [
        {"frequency_mhz": mhz, "drift_rate_hz_s": 0, "snr": [9] * 6, "probability": 0.7} for mhz in (1500.000005, 1400)
    ]
    with searched.write() as rows:
        rows.execute(insert(shadow).values(cadence_id=1, release_name="b", release_sha256="b", at=0, found=found))
        rows.execute(insert(shadow).values(cadence_id=1, release_name="c", release_sha256="c", at=0, found=[]))
    assert list(compare(searched, "b")) == [
        "1 cadences: 1 signals in both, 0 only active, 1 only b",
        "cadence 1 X: only b: 1400.000000 MHz, p 0.700",
    ]
    assert list(compare(searched, "c"))[1] == "cadence 1 X: only active release: 1500.000000 MHz, p 0.900"
    with pytest.raises(SentinelError, match=r"d: expected a shadow release that searched cadences, found b, c$"):
        next(compare(searched, "d"))


def test_only_the_last_search_of_a_cadence_is_compared(searched):
    with searched.write() as rows:
        (first,) = rows.execute(select(candidate)).mappings()
        rows.execute(insert(attempt).values(id=2, cadence_id=1, number=2, token="u", started_at=0, outcome="done"))
        rows.execute(insert(candidate).values({**first, "id": 2, "attempt_id": 2, "frequency_mhz": 1400.0}))
        for mhz in (1500.0, 1400.0):
            found = [{"frequency_mhz": mhz, "drift_rate_hz_s": 0, "snr": [9] * 6, "probability": 0.7}]
            rows.execute(insert(shadow).values(cadence_id=1, release_name="b", release_sha256="b", at=0, found=found))
    assert list(compare(searched, "b")) == ["1 cadences: 1 signals in both, 0 only active, 0 only b"]


def test_the_shadow_release_searches_the_same_files_and_announces_nothing(searched, sky):
    paths, mhz = sky
    search_shadow(searched, 1, paths, (0, 2, 4), make_detector(), SearchSettings())
    with searched.read() as rows:
        (search,) = rows.execute(select(shadow)).all()
        assert len(rows.execute(select(candidate)).all()) == 1
    assert any(abs(row["frequency_mhz"] - mhz) < 2e-5 for row in search.found)


def test_models_promotes_a_release_and_lists_where_the_shadow_release_disagrees(models, monkeypatch, capsys):
    (models / "config.yaml").write_text(f"release: {models / 'old'}\nstate_dir: {models / 'state'}\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(models / "config.yaml"))
    assert cli.main(["models", "promote", "none"]) == 1
    assert "none: expected a folder with release.json" in capsys.readouterr().err
    assert cli.main(["models", "promote", "new"]) == 0
    sha256 = read_release(models / "new").sha256
    assert capsys.readouterr().out == f"new is the active release from the next cadence on; sha256 {sha256}\n"
    assert cli.main(["models", "ls"]) == 0
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == ["* new", "  old"]
    assert cli.main(["models", "compare", "old"]) == 1
    assert capsys.readouterr().err == "models: old: expected a shadow release that searched cadences, found none\n"


def test_the_shadow_release_searches_after_the_record_also_if_other_steps_fail(models, sky, monkeypatch, caplog):
    config = Config(state_dir=models, release=models / "old", shadow=models / "new", injections={"blind_share": 1})
    monkeypatch.setattr(process, "_LOADED", {})
    monkeypatch.setattr("sentinel.store.queue._paths", lambda *_: sky[0])
    for step in ("deliver_due", "inject_blind"):
        monkeypatch.setattr(task, step, lambda *_, **__: 1 / 0)
    store = open_store(config.store_url)
    for _ in range(2):
        queue(store)
        lease = store.claim(60)
        done = task.search_task(lease.cadence_id, lease.token, config.model_dump_json())
        assert done == {"outcome": "done", "release": read_release(models / "old").sha256}
        (models / "new" / "encoder.onnx").write_bytes(b"x")
    with store.read() as rows:
        (row,) = rows.execute(select(shadow)).all()
        assert set(rows.scalars(select(candidate.c.release_name))) == {"old"}
        assert len(set(rows.scalars(select(candidate.c.cadence_id)))) == 2
    assert row.release_name == "new"
    assert next(compare(store, "new")).startswith("1 cadences: 1 signals in both, 0 only active, 0 only new")
    assert "encoder.onnx: expected sha256" in caplog.text
    store.engine.dispose()


@pytest.fixture
def recorded(store, sky, tmp_path):
    """Return a store with a searched cadence, and what its search found with a release that knows signals."""
    made = make_detector()
    signals = Signals(
        shape=SHAPE, centre=[0.0] * 8, whiten=np.eye(8).tolist(),
        shares=[1.0, 0.1], distances=[0.0, 1e-9], unlikely=[0.5, 1.0],
    )  # fmt: skip
    kinds = Kinds(names=("rest", "signal"), power=1.0, signals=signals)
    detector = replace(made, release=replace(made.release, kinds=kinds), kind_forest=SeesSignalsEverywhere())
    queue(store)
    lease, config = store.claim(60), Config(state_dir=tmp_path)
    found = search_files(sky[0], "ABACAD", lambda _: None, config, detector, lease.cadence_id)
    store.complete(lease.token, found)
    draw_recorded(store, lease.cadence_id, found.examples)
    return store, found


def test_a_candidate_has_a_strangeness_if_its_release_can_compute_it(recorded, sky, tmp_path):
    store, found = recorded
    with store.read() as rows:
        (strangeness,) = set(rows.scalars(select(candidate.c.strangeness)))
    assert strangeness == pytest.approx(-np.log10(0.1 * (1 + np.log(10))))  # one signal in ten has such a shape
    assert export(store, tmp_path / "all.csv") == len(found.candidates)
    assert "strangeness" in (tmp_path / "all.csv").read_text().splitlines()[0]
    with open_cadence(sky[0]) as observations:
        blind = search_cadence(observations, make_detector())
    assert {row.strangeness for row in blind.candidates} == {None}
    assert blind.candidates[0].row()["strangeness"] is None


def test_labeled_candidates_join_a_training_without_their_files_or_are_counted_with_the_reason(recorded, sky, tmp_path):
    store, found = recorded
    ((_, kept, _),) = found.examples
    assert labeled_examples(store, (16, 512)) == (None, {})
    with store.write() as rows:
        row = rows.execute(select(candidate)).mappings().one()
        for number in (2, 3, 4, 5):
            rows.execute(insert(candidate).values({**row, "id": number}))
        (tmp_path / "broken.npz").write_bytes(b"PK")
        for number, path in ((2, kept), (3, tmp_path / "broken.npz"), (4, tmp_path / "none.npz")):
            facts = {"cadence_id": row["cadence_id"], "candidate_id": number, "kind": "example"}
            rows.execute(insert(artefact).values(**facts, path=str(path), sha256="ab" * 32))
    for number, word in ((1, "candidate"), (2, "RFI"), (3, "RFI"), (4, "RFI"), (5, "candidate")):
        put_label(store, number, word, "me")
    examples, became = labeled_examples(store, (16, 512))
    assert became == {
        "candidate": {"used": 1, "without a saved example": 1},
        "RFI": {"used": 1, "with another shape or other measurements": 1, "with an unreadable file": 1},
    }
    assert examples.labels.tolist() == [1, 0]
    together = examples.measurements[0, MEASUREMENTS.index("on_together")]
    assert together == pytest.approx(40 * 3**0.5, rel=0.3)  # a wide line fills more than its box
    assert examples.snippets[0, ::2].max() > examples.snippets[0, 1::2].max()
    assert labeled_examples(store, (16, 256))[0] is None
    put_label(store, 1, "RFI", "another")
    put_label(store, 2, "candidate", "another")
    put_label(store, 2, "RFI", "a third")  # in force, and yet left out
    disputed, became = labeled_examples(store, (16, 512))
    assert disputed is None
    assert became["RFI"] == {
        "that people label differently": 1, "with another shape or other measurements": 1, "with an unreadable file": 1,
    }  # fmt: skip


class Channel:
    """A Slack channel that keeps the present text of each message."""

    def __init__(self):
        self.messages, self.calls, self.thread = {}, 0, []

    def post(self, message, *, repeat):
        self.calls += 1
        if self.calls == 1:
            raise PostLaterError("ratelimited")
        self.messages["ts"] = message.text
        return "ts"

    def edit(self, ts, text):
        self.messages[ts] = text

    def upload(self, ts, picture):
        if "latents" in picture:
            raise PostLaterError("ratelimited")
        self.thread.append((ts, Path(picture).name))


def test_a_training_is_logged_in_one_edited_message_with_figures_in_its_thread(tmp_path):
    channel = Channel()
    log = TrainingLog(run="test_v1", poster=channel)
    for i in (1, 2, 3):
        log.note({"stage": f"round {i}", "seconds": 2.5, "cpu_s": 4.0, "ram_bytes": 10**9, "loss": 1 / i})
    assert list(channel.messages) == ["ts"]
    assert "round 1: 2 s, loss 1\nround 2: 2 s, loss 0.5\nround 3: 2 s, loss 0.3333" in channel.messages["ts"]
    for name in ("losses.png", "latents.png", "recovery.png", "history.csv"):
        (tmp_path / name).touch()
    log.show(tmp_path)
    assert channel.thread == [("ts", "losses.png"), ("ts", "recovery.png")]
