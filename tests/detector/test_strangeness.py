"""Strangeness is minus the logarithm of the share of the training's signals that are as unlike."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import SeesSignalsEverywhere, make_detector

from aetherscan.detector.release import MEASUREMENTS, SHAPE, Kinds, read_release, write_card
from aetherscan.detector.strangeness import learn_signals, strangeness
from aetherscan.errors import ReleaseError

SHIPPED = Path(__file__).parents[2] / "models" / "equinox"


def lines(rng, count):
    """Return measurements of lines, and a probability of not being a signal."""
    measured = rng.normal(1, 0.1, (count, len(MEASUREMENTS))).astype(np.float32)
    measured[:, MEASUREMENTS.index("width_hz")] *= 30
    return measured, rng.beta(1, 30, count)


@pytest.fixture(scope="module")
def signals():
    return learn_signals(*lines(np.random.default_rng(1), 4000))


def test_one_signal_in_ten_has_a_strangeness_of_one_and_one_in_a_hundred_of_two(signals):
    found = strangeness(*lines(np.random.default_rng(2), 20_000), signals)
    assert (found >= 0).all()
    assert [np.mean(found >= level) for level in (1, 2)] == pytest.approx([0.1, 0.01], rel=0.25)


@pytest.mark.parametrize("name", SHAPE)
def test_a_line_of_another_shape_is_strange_whichever_way_it_departs(signals, name):
    measured, unlikely = (np.repeat(part, 2, axis=0) for part in lines(np.random.default_rng(3), 1))
    usual = strangeness(measured, unlikely, signals)
    measured[:, MEASUREMENTS.index(name)] *= [0.2, 5]
    assert (strangeness(measured, unlikely, signals) > usual + 1.5).all()


def test_brightness_does_not_make_a_line_strange(signals):
    measured, unlikely = lines(np.random.default_rng(4), 1)
    before = strangeness(measured, unlikely, signals)
    measured[:, [MEASUREMENTS.index(name) for name in ("on_together", "drift_hz_s")]] *= 100
    assert strangeness(measured, unlikely, signals) == before


def test_a_line_that_looks_like_interference_is_strange_and_no_line_exceeds_the_limit(signals):
    measured, _ = lines(np.random.default_rng(5), 50)
    found = strangeness(np.tile(measured, (2, 1)), np.repeat([0.01, 0.9], 50), signals)
    assert (found[50:] > found[:50] + 1).all()
    limit = 2 * np.log10(4001) - np.log10(1 + 2 * np.log(4001))
    assert strangeness(measured * 1e6, np.ones(50), signals) == pytest.approx(limit, rel=1e-4)


def test_a_release_that_does_not_know_signals_gives_no_strangeness(signals):
    blind = make_detector()
    measured, _ = lines(np.random.default_rng(6), 3)
    kinds = Kinds(names=("rest", "signal"), power=1.0)
    named = replace(blind, release=replace(blind.release, kinds=kinds), kind_forest=SeesSignalsEverywhere())
    for detector in (blind, named):
        assert np.isnan(detector.strangeness(measured)).all()
    knows = replace(named, release=replace(named.release, kinds=replace(kinds, signals=signals)))
    assert (knows.strangeness(measured) >= 0).all()
    assert len(knows.strangeness(measured[:0])) == 0


def test_a_card_with_another_shape_knows_no_signals_and_a_damaged_one_is_refused(tmp_path):
    folder = tmp_path / "equinox"
    shutil.copytree(SHIPPED, folder)
    card = read_release(folder).card
    known = card["kinds"]["signals"]
    for changes, expected in (({}, True), ({"shape": [*SHAPE[:-1], "drift_hz_s"]}, False)):
        changed = write_card(folder, {**card, "kinds": {**card["kinds"], "signals": {**known, **changes}}})
        assert (changed.kinds.signals is not None) == expected
    for changes in ({"centre": known["centre"][1:]}, {"shares": [1.0]}, {"whiten": [[1.0]]}):
        with pytest.raises(ReleaseError, match="expected name, snippet, modes and sha256, found ValueError"):
            write_card(folder, {**card, "kinds": {**card["kinds"], "signals": {**known, **changes}}})
