"""Every option of Aetherscan's `train` is accepted, and one error lists every wrong value."""

from dataclasses import fields, replace

import pytest
from seed_options import ACCEPTED

from aetherscan.errors import OptionsError
from aetherscan.options.train import TrainSettings
from sentinel import cli
from sentinel.config import Config, load_config, train_settings
from sentinel.errors import ConfigError

NAMES = {option.name for option in fields(TrainSettings)}


def parsed(arguments, config=None):
    """Return the settings of a training that are given on the command line."""
    options = vars(cli.parser().parse_args(["train", *arguments]))
    return train_settings(config or Config(), {name: options[name] for name in NAMES})


@pytest.mark.parametrize(
    ("option", "form"), [(option, form) for command, option, form in ACCEPTED if command == "train"]
)
def test_every_form_of_every_option_of_aetherscan_is_accepted(option, form):
    name = option.removeprefix("--").replace("-", "_")
    needed = {"effective_batch_size": ["--num-samples-beta-vae", "50000"], "load_dir": ["--load-tag", "round_10"]}
    others = needed.get(name, [])
    given = getattr(parsed([option, *form, *others]), name)
    parts = given if isinstance(given, tuple) else (given,)
    same = zip(map(str, parts), form, strict=True)
    assert all(value == text or float(value) == float(text) for value, text in same)


def test_flags_override_environment_variables_then_the_file_then_the_defaults(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    path.write_text("train: {data_path: filed, model_path: filed, output_path: filed, epochs_per_round: 7}")
    for kind in ("DATA", "MODEL"):
        monkeypatch.setenv(f"AETHERSCAN_{kind}_PATH", "/named")
    settings = parsed(["--data-path", "/flagged"], load_config(path))
    assert [str(path) for path in (settings.data_path, settings.model_path)] == ["/flagged", "/named"]
    assert settings.output_path == tmp_path / "filed"
    assert (settings.epochs_per_round, settings.num_training_rounds) == (7, TrainSettings().num_training_rounds)


def test_every_option_is_a_configuration_key_that_is_checked_when_it_is_read(tmp_path):
    assert Config().train.model_dump() == {name: getattr(TrainSettings(), name) for name in NAMES}
    (tmp_path / "config.yaml").write_text("train: {num_samples_rf: 6, save_tag: mine}")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml")
    assert "train.num_samples_rf: expected at least 200 and at most 100000000 and a multiple of 4, found 6" in str(
        caught.value
    )
    assert "train.save_tag: expected final_vX, round_XX" in str(caught.value)


def test_every_wrong_flag_is_listed_in_one_error_with_exit_code_2(capsys):
    wrong = {
        "--rf-n-jobs": "0", "--vae-latent-dim": "eight", "--curriculum-schedule": "steep", "--time-bins": "10",
        "--effective-batch-size": "100", "--load-tag": "round_11", "--width-bin": "1000", "--snr-base": "-1",
    }  # fmt: skip
    assert cli.main(["train", *(part for pair in wrong.items() for part in pair)]) == 2
    lines = capsys.readouterr().err.splitlines()
    named = {line.split(":")[0] for line in lines}
    assert named == {option[2:].replace("-", "_") for option in wrong} - {"load_tag"} | {"start_round"}
    assert all("xpected" in line or "should be" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_observations": 4}, "num_observations: expected 6, as cadences are ABACAD, found 4"),
        ({"downsample_factor": 4}, "downsample_factor: expected 8, the binning of a search"),
        ({"time_bins": 32}, "time_bins x time_resolution: expected at most 341 s"),
        ({"train_files": ("a.npy", "b.h5")}, "train_files: expected only .npy or only .h5"),
        ({"curriculum_schedule": "step", "num_training_rounds": 9}, "num_training_rounds 9, found 10"),
        ({"rf_max_features": 1.5}, "rf_max_features: expected sqrt, log2, or a fraction"),
        ({"load_dir": "/models"}, "load_dir: expected a folder below model_path"),
        ({"start_round": 3}, "start_round: expected load_tag with it"),
        (
            {"num_training_rounds": 0},
            "num_training_rounds: expected at least 1, or 0 with start, found 0 without start",
        ),
        ({"judge_patches": 1}, "judge_patches: expected at least 2 and at most 1000000, found 1"),
        ({"vae_kernel_size": (3, 0)}, r"vae_kernel_size: expected at least 1 and at most 64, found \(3, 0\)"),
    ],
)
def test_an_unsupported_value_is_refused_with_the_expected_one(given, message):
    with pytest.raises(OptionsError, match=message):
        TrainSettings(**given)


def test_a_training_resumes_after_the_round_of_its_checkpoint_unless_start_round_is_given():
    assert TrainSettings(load_tag="round_03").first_round == 4
    assert TrainSettings(load_tag="round_10").first_round == 11  # ten rounds are complete: only the forests are left
    assert TrainSettings(load_tag="round_03", start_round=2).first_round == 2
    assert TrainSettings(load_tag="final_v3").first_round == TrainSettings().first_round == 1


@pytest.mark.parametrize("schedule", ["linear", "exponential", "step"])
def test_signals_get_fainter_from_the_first_rounds_range_to_the_lasts(schedule):
    settings = TrainSettings(curriculum_schedule=schedule, snr_base=10, initial_snr_range=40, final_snr_range=20)
    reach = [settings.snr(number)[1] for number in range(1, 11)]
    assert (reach[0], reach[-1]) == (50, pytest.approx(30))
    assert reach == sorted(reach, reverse=True)
    middle = {"linear": 50 - 20 * 4 / 9, "exponential": 34.5, "step": 30}[schedule]
    assert reach[4] == pytest.approx(middle, abs=0.1)
    assert replace(settings, num_training_rounds=1, curriculum_schedule="linear").snr(1) == (10, 50)


def test_training_files_are_found_in_the_data_folders_and_every_missing_file_is_named(tmp_path):
    (tmp_path / "training").mkdir()
    for name in ("a.npy", "training/b.npy"):
        (tmp_path / name).touch()
    settings = TrainSettings(data_path=tmp_path, train_files=("b.npy", "a.npy"))
    assert settings.files() == [tmp_path / "training" / "b.npy", tmp_path / "a.npy"]
    assert settings.recorded()["train_files"] == ["b.npy", "a.npy"]
    assert str(tmp_path) not in str(settings.recorded())
    with pytest.raises(OptionsError, match=r"(?s)c\.npy: expected a file.*d\.npy: expected a file"):
        replace(settings, train_files=("c.npy", "a.npy", "d.npy")).files()
