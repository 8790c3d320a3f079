"""Permanent mistakes of a training end it at once, on one line each, before anything is trained or left behind."""

import io
import os
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from aetherscan.errors import AetherscanError, TrainingError
from aetherscan.options.train import TrainSettings
from aetherscan.train.batches import sources_of
from aetherscan.train.encoder import Plan
from aetherscan.train.pipeline import batch_settings, train
from aetherscan.train.random_skies import ExampleSettings
from sentinel import cli
from sentinel.config import Config, train_settings
from sentinel.errors import ConfigError

EXAMPLES = int(os.environ.get("SENTINEL_COMMAND_LINES", "200"))
SMALL = ExampleSettings(chans=2**13)
GOOD = np.random.default_rng(1).chisquare(204, (4, 6, 16, 4096)).astype("f4")


def saved(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", saved(GOOD[:1]))
    return buffer.getvalue()


def spoiled(value, part=np.s_[:]):
    stamps = GOOD.copy()
    stamps[part] = value
    return saved(stamps)


BAD = {
    "empty file": b"",
    "only the first bytes": b"\x93NUMPY",
    "text": b"none of this is an array\n",
    "a broken header": b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n",
    "a header with a huge shape": saved(GOOD[:1]).replace(b"(1, 6, 16, 4096)", b"(9**99, 6, 16, )"),
    "a file cut short": saved(GOOD)[:100_000],
    "objects": saved(np.array([{}], dtype=object), allow_pickle=True),
    "an archive": zipped(),
    "text as numbers": saved(np.array(["1.0"] * 4)),
    "complex": saved(GOOD[:1].astype("c8")),
    "one number": saved(np.float32(3)),
    "no stamps": saved(GOOD[:0]),
    "five scans": saved(GOOD[:, :5]),
    "one stamp": saved(GOOD[:1]),
    "zeros": spoiled(0),
    "negative": spoiled(-1),
    "nan": spoiled(np.nan),
    "an OFF of zeros in each": spoiled(0, np.s_[:, 1]),
    "too few that are not dead": spoiled(np.nan, np.s_[:3]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_stamps_that_cannot_be_used_is_one_line_that_names_it(tmp_path, name):
    (tmp_path / "x.npy").write_bytes(BAD[name])
    wrong = TrainSettings(train_files=("x.npy",), data_path=tmp_path)
    with pytest.raises(AetherscanError) as caught:
        sources_of(batch_settings(wrong, SMALL))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'x.npy'}: ")
    assert "expected" in line
    assert "\n" not in line


@pytest.mark.hypothesis
def test_no_file_of_stamps_ends_in_an_error_of_another_kind(tmp_path):
    whole = saved(GOOD[:2, ..., :512])
    values = st.sampled_from([0, -1, 1, np.nan, np.inf, -np.inf, 1e38, 5e-324])
    shapes = st.lists(st.sampled_from([0, 1, 2, 5, 6, 16, 512, 4096]), max_size=5).map(tuple)
    filled = st.builds(np.full, shapes.filter(lambda shape: np.prod(shape) < 1e6), values)
    kinds = st.sampled_from(["<f4", ">f8", "<i2", "u1", "?", "c8", "S3", "M8[s]", "f2"])

    def cast(array, kind):
        with np.errstate(all="ignore"):
            return saved(np.nan_to_num(array, posinf=9, neginf=-9).astype(kind))

    arrays = st.builds(cast, filled, kinds)
    cut = st.integers(0, 200).map(lambda end: whole[:end])
    changed = st.builds(
        lambda at, byte: whole[:at] + bytes([byte]) + whole[at + 1 :], st.integers(0, 127), st.integers(0, 255)
    )
    path = tmp_path / "x.npy"
    wrong = TrainSettings(train_files=("x.npy",), data_path=tmp_path)

    @examples_of(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=64), filled.map(saved), arrays, cut, changed))
    def check(content):
        path.write_bytes(content)
        said = refusal(lambda: sources_of(batch_settings(wrong, SMALL)))
        assert len(said.splitlines()) <= 1

    check()


def refusal(step):
    """Return the message of an error of the kinds that are expected, or an empty string."""
    try:
        step()
    except (AetherscanError, ConfigError) as error:
        return str(error)
    return ""


@pytest.mark.hypothesis
def test_no_combination_of_options_ends_in_an_error_of_another_kind():
    text = st.sampled_from(
        ["", "0", "1", "-1", "3", "4", "16", "64", "200", "4096", "1e9", "nan", "inf", "0.5", "true", "none", "linear",
         "step", "round_01", "round_00", "final_v1", "a/b", "../x", "vae_beta", "vae-beta,seed", "sqrt", "x.npy", "é"]
    )  # fmt: skip
    one = st.tuples(st.sampled_from(fields(TrainSettings)), text)

    @examples_of(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.lists(one, max_size=6))
    def check(given_options):
        words = {option.name: [text] * max(1, len(option.default)) if isinstance(option.default, tuple) else text
                 for option, text in given_options}  # fmt: skip
        if refused := refusal(lambda: train_settings(Config(), words)):
            assert "found" in refused
            return
        made = train_settings(Config(), words)
        assert made.snr(made.first_round)[0] > 0
        assert made.of_encoder()
        assert refusal(lambda: Plan.of(made)) or Plan.of(made).steps > 0

    check()


def test_a_training_whose_folder_is_a_file_is_one_line_and_exit_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.chdir(tmp_path)
    for place in ("taken", "taken/below"):
        assert cli.main(["train", "--output", place]) == 1
        assert capsys.readouterr().err == f"train: {place}: expected a folder, found a file\n"
    assert (tmp_path / "taken").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "config.yaml"}


def test_a_training_with_too_few_patches_is_refused_before_its_first_round(tmp_path):
    few = TrainSettings(
        model_path=tmp_path / "models", output_path=tmp_path / "logs", forest_patches=1, judge_patches=2, processes=1
    )
    none = replace(SMALL, tones=0, interference=0)
    with pytest.raises(TrainingError, match=r"^forest of \w+: expected at least [^\n]+ found [^\n]+: raise [^\n]+$"):
        train(tmp_path / "models" / "few", few, none)
    assert not any(Path(tmp_path).iterdir())
