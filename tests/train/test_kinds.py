"""Lines are drawn with their kinds, and the probability of a kind is calibrated and measured."""

import numpy as np
import pytest

from aetherscan.detector.detector import kind_probabilities
from aetherscan.detector.release import MEASUREMENTS, SIGNAL
from aetherscan.errors import TrainingError
from aetherscan.options.train import TrainSettings
from aetherscan.train.kinds import Lines, best_power, draw_lines, kind_metrics, line_sets, metrics_text
from aetherscan.train.random_skies import ExampleSettings

CROWD = ExampleSettings(chans=2**15, tones=7, unsteady=0)
OFF_TO_ON = MEASUREMENTS.index("off_to_on")
NAMES = np.array(["drifting", "signal", "wide"])


@pytest.fixture(scope="module")
def lines():
    return Lines.join([draw_lines(np.random.default_rng([1, number]), CROWD) for number in range(3)])


def test_lines_are_those_that_pass_or_that_an_off_vetoes_with_the_kind_of_their_emitter(lines):
    assert 0 < lines.passed.sum() < len(lines.kinds)
    steady = np.isin(lines.kinds, ["persistent", "drifting", "wide"])
    assert (lines.kinds[lines.passed] == SIGNAL).mean() > 0.5
    assert (steady & lines.passed).sum() < 0.1 * steady.sum()  # a signal may cross a wide line
    assert np.median(lines.measurements[lines.kinds == "side_lobe", OFF_TO_ON]) == pytest.approx(0.23, abs=0.08)
    assert np.median(lines.measurements[lines.kinds == SIGNAL, OFF_TO_ON]) == pytest.approx(0, abs=0.08)


def lines_of(kinds):
    measured = np.zeros((len(kinds), len(MEASUREMENTS)), np.float32)
    return Lines(measurements=measured, kinds=np.array(kinds), passed=np.arange(len(kinds)) % 2 == 0)


def test_the_power_makes_the_probability_the_share_of_right_names():
    rng = np.random.default_rng(2)
    true = rng.dirichlet([0.4] * 3, 6000)
    kinds = NAMES[[rng.choice(3, p=row) for row in true]]
    shares = kind_probabilities(true, 0.5)  # trees that are too modest
    power = best_power(shares, NAMES, kinds)
    assert power == pytest.approx(2, abs=0.15)
    calibrated = kind_metrics(kind_probabilities(shares, power), NAMES, lines_of(kinds))
    modest = kind_metrics(shares, NAMES, lines_of(kinds))
    assert calibrated["calibration_error"] < 0.02 < modest["calibration_error"]
    assert calibrated["right"] == modest["right"]


def test_lines_of_a_kind_that_the_forest_does_not_know_count_as_wrong_and_do_not_calibrate():
    probabilities = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.2, 0.7, 0.1]])
    lines = lines_of(["signal", "wide", "curved", "wide"])
    metrics = kind_metrics(probabilities, NAMES, lines)
    assert (metrics["right"]["share"], metrics["right_passed"]["share"]) == (0.5, 0.5)
    assert metrics["confusion"] == {
        "curved": {"drifting": 1}, "signal": {"signal": 1}, "wide": {"signal": 1, "wide": 1},
    }  # fmt: skip
    assert "| wide, 2 |  | 0.50 | 0.50 |" in metrics_text(metrics, NAMES)
    assert best_power(probabilities, NAMES, lines.kinds) > 0


def test_patches_without_a_line_end_a_training_with_what_to_do():
    empty = ExampleSettings(chans=2**13, tones=0, interference=0)
    with pytest.raises(TrainingError, match="forest of kinds: expected lines to fit it, found none: raise forest_pat"):
        line_sets(TrainSettings(forest_patches=1, judge_patches=2, processes=1), empty)
