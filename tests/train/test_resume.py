"""Trainings never mix: each has its folders, and resumes with its settings, or tells on its card what was changed."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from tiny_training import NARROW, LinesAndNoise, opened, settings, trained

from aetherscan.errors import FormatError, OptionsError, TrainingError
from aetherscan.options.train import TrainSettings
from aetherscan.train import vae
from aetherscan.train.encoder import train_encoder
from aetherscan.train.folders import LOCK, hold
from aetherscan.train.pipeline import encoder_history, train
from aetherscan.train.resume import begin, phase_lines, started_from


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(vae, "STAGES", NARROW)


@pytest.fixture(scope="module")
def round_01(tmp_path_factory):
    """The folder of a training, `run`, that has had its first round."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "STAGES", NARROW)
        trained(folder / "run", replace(settings.__wrapped__(folder), num_training_rounds=1))
    return folder


@pytest.fixture
def first(settings, tmp_path, round_01):
    """Settings that continue a training, `run`, after its first round."""
    shutil.copytree(round_01 / "models", tmp_path / "models")
    (tmp_path / "run").mkdir()
    return replace(settings, load_tag="round_01")


def states(settings):
    found = sorted(settings.model_path.glob("checkpoints/*/*/state.json"))
    return {"/".join(path.parts[-3:-1]): json.loads(path.read_text()) for path in found}


def test_a_training_that_starts_beside_another_leaves_its_checkpoints_alone(settings, tmp_path):
    class Meanwhile(LinesAndNoise):
        other = None

        def epoch(self, number, count, snr, *, batch, validation=False):
            if number == 2 and not Meanwhile.other:
                Meanwhile.other = trained(tmp_path / "b", replace(settings, vae_beta=9.0, num_training_rounds=1))
            return super().epoch(number, count, snr, batch=batch, validation=validation)

    trained(tmp_path / "a", settings, lambda: nullcontext(Meanwhile()))
    found = states(settings)
    assert {name: state["settings"]["vae_beta"] for name, state in found.items()} == {
        "a/round_01": 1.5, "a/round_02": 1.5, "b/round_01": 9.0,
    }  # fmt: skip
    assert found["a/round_01"]["run"] == found["a/round_02"]["run"] != found["b/round_01"]["run"]


@pytest.mark.parametrize("shared", ["models/a", "logs/a", "models/checkpoints/a"])
def test_a_second_training_in_a_folder_of_another_is_refused_and_names_the_first(settings, tmp_path, shared):
    folder = tmp_path / shared
    with hold(folder), pytest.raises(TrainingError, match=rf"{shared}: expected a folder .+ found process \d+ on \S+"):
        train(tmp_path / "models" / "a", settings)
    assert not list(tmp_path.rglob(LOCK))
    assert not (tmp_path / "models").exists()  # nor was anything left


def test_a_lock_is_taken_again_after_its_training_ended(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "a", tmp_path / "b"):
            assert (tmp_path / "b" / LOCK).read_text().startswith("process ")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "changes",
    [{"vae_beta": 3.0}, {"seed": 7, "num_samples_beta_vae": 80}, {"mixed_precision": True}, {"final_snr_range": 14.0}],
)
def test_a_resume_with_other_settings_is_refused_and_names_each(first, changes):
    with pytest.raises(OptionsError) as caught:
        begin(replace(first, **changes), "run")
    lines = str(caught.value).splitlines()
    for name in changes:
        assert any(line.startswith(f"{name}: expected ") and f"--allow-changed {name}" in line for line in lines)
    assert len(lines) >= len(changes)


def test_settings_of_the_forests_and_of_the_machine_may_differ_on_a_resume(first):
    others = {"rf_n_estimators": 7, "processes": 1, "per_replica_batch_size": 8, "num_training_rounds": 5}
    assert begin(replace(first, **others), "run").done == 1


def test_an_allowed_change_is_told_by_the_phases_of_the_card(first, tmp_path):
    made = train_encoder(tmp_path / "run", replace(first, vae_beta=3.0, allow_changed=("vae-beta,seed",)), opened)
    card = encoder_history(made)
    assert [(phase["rounds"], phase["settings"]["vae_beta"]) for phase in card["phases"]] == [
        ([1, 1], 1.5),
        ([2, 2], 3),
    ]
    assert (card["epochs"], card["cadences"]) == (4, 4 * 32)
    before, after = phase_lines(made.phases)
    assert before.startswith("- Round 1: 64 cadences in 2 epochs")
    assert after.endswith("changed: vae_beta from 1.5 to 3.0")
    assert states(first)["run/round_02"]["run"] == states(first)["run/round_01"]["run"]


def test_no_checkpoint_is_continued_with_another_shape(first):
    with pytest.raises(OptionsError, match=r"vae_latent_dim: expected 8 as in .+round_01, found 4$"):
        begin(replace(first, vae_latent_dim=4, allow_changed=("vae_latent_dim",)), "run")


def test_a_checkpoint_of_another_training_begins_a_training_of_its_own(first, tmp_path):
    named = replace(first, load_dir="checkpoints/run")
    assert started_from(named, "other") == started_from(replace(first, load_dir="checkpoints"), "run")
    trained(tmp_path / "other", named)
    found = states(first)
    assert set(found) == {"run/round_01", "other/round_02"}
    assert found["run/round_01"]["run"] != found["other/round_02"]["run"]


def test_later_checkpoints_are_set_aside_when_a_training_goes_on_from_an_earlier_one(first, tmp_path):
    checkpoints = tmp_path / "models" / "checkpoints" / "run"
    shutil.copytree(checkpoints / "round_01", checkpoints / "round_02")
    trained(tmp_path / "run", replace(first, vae_alpha=5.0, allow_changed=("vae_alpha",)))
    assert set(states(first)) == {"run/round_01", "run/round_02", "run-1/round_02"}
    assert states(first)["run/round_02"]["settings"]["vae_alpha"] == 5.0
    with pytest.raises(OptionsError, match=r"start_round: expected at least 3 after .+round_02, or another save_tag"):
        begin(replace(first, vae_alpha=5.0, load_tag="round_02", start_round=1), "run")


def test_nothing_is_moved_or_left_when_the_backgrounds_are_refused(first, tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    wrong = replace(first, load_tag=None, train_files=("bad.npy",), data_path=tmp_path)
    with pytest.raises(FormatError, match=r"bad\.npy: expected stamps"):
        train(tmp_path / "models" / "run", wrong)
    assert set(states(first)) == {"run/round_01"}
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["checkpoints"]


def test_a_folder_of_checkpoints_without_a_tag_is_refused():
    with pytest.raises(OptionsError, match="load_dir: expected load_tag with it, found load_dir checkpoints alone"):
        TrainSettings(load_dir="checkpoints")


def test_the_card_names_the_release_that_a_training_started_from_also_after_a_resume(first, tmp_path, monkeypatch):
    origin = {"name": "older", "epochs": 1, "cadences": 4, "seconds": 1, "devices": "cpu:0"}
    monkeypatch.setattr("aetherscan.train.resume.encoder_card", lambda _: origin)
    release = tmp_path / "models" / "final_v1"
    shutil.copytree(tmp_path / "models" / "checkpoints" / "run" / "round_01", release)
    (release / "state.json").unlink()
    fresh = replace(first, load_tag=None, num_training_rounds=1)
    assert begin(replace(fresh, load_tag="final_v1"), "run").start == origin
    trained(tmp_path / "run", replace(fresh, start=release))
    resumed = train_encoder(tmp_path / "run", replace(first, num_training_rounds=1), opened)
    assert encoder_history(resumed)["start"] == origin
    assert encoder_history(resumed)["epochs"] == 2
