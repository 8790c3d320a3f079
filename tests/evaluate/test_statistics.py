"""Intervals, errors, calibration and thresholds of an evaluation."""

import numpy as np
import pytest

from aetherscan.evaluate.matching import MatchedDetection, ScoredSearch, ToneOutcome
from aetherscan.evaluate.searchers import Detection
from aetherscan.evaluate.statistics import (
    ALL_DETECTIONS,
    RELEASED,
    SWAPPED,
    SWAPPED_SHARE,
    calibration,
    count_interval,
    fraction_interval,
    summarize,
    threshold_curve,
)


def matched(probability=0.5, *, finds=False, true=False):
    detection = Detection(frequency_mhz=1.0, drift_hz_s=0.0, snr=10.0, probability=probability)
    return MatchedDetection(detection=detection, kind="noise", finds=finds, true=true)


def tone(snr=10.0, detections=1, **values):
    known = {"frequency_mhz": 1.0, "drift_hz_s": 0.3, "width_hz": 5.0, "curvature_hz_s2": 0.0, "ons": 3, "near": False}
    return ToneOutcome(**known | {"snr": snr, "detections": detections} | values)


def scored(scenario="tones", searcher=RELEASED, mhz=50.0, detections=(), tones=()):
    times = {
        "density": 15.0,
        "file_bytes": 1,
        "write_s": 1.0,
        "search_s": 1.0,
        "stage_s": {},
        "counts": {},
        "digest": "",
        "cadence": 0,
    }
    return ScoredSearch(
        scenario=scenario, searcher=searcher, mhz=mhz, detections=tuple(detections), tones=tuple(tones), **times
    )


@pytest.mark.parametrize(("k", "n", "low", "high"), [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1)])
def test_a_fraction_has_wilsons_interval(k, n, low, high):
    assert fraction_interval(k, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("k", "low", "high"), [(0, 0, 3.689), (1, 0.0253, 5.572), (4, 1.090, 10.242), (20, 12.22, 30.89)]
)
def test_a_count_of_alarms_has_the_exact_poisson_interval(k, low, high):
    assert count_interval(k) == pytest.approx((low, high), rel=1e-3)


def test_an_alarm_rate_is_per_100_mhz_with_its_interval():
    searches = [scored(detections=[matched()] * 3), scored(detections=[matched()])]
    (rate,) = (one for one in summarize(searches) if one.measure == "alarms per 100 MHz" and not one.group)
    assert (rate.k, rate.n, rate.value) == (4, 100.0, 4.0)
    assert (rate.low, rate.high) == pytest.approx((1.090, 10.242), rel=1e-3)


@pytest.mark.parametrize(("ours", "theirs", "share"), [(1, 3, [0.75]), (0, 2, [1.0]), (0, 0, [])])
def test_the_fraction_of_alarms_in_the_swapped_search_needs_an_alarm(ours, theirs, share):
    searches = [
        scored("zoo", searcher, detections=[matched()] * count)
        for searcher, count in ((RELEASED, ours), (SWAPPED, theirs))
    ]
    assert [one.value for one in summarize(searches) if one.measure == SWAPPED_SHARE] == share


def test_the_interval_of_a_percentile_is_between_two_of_its_errors_or_unknown():
    errors = {"drift_error_hz_s": 0.0, "snr_error": 0.0}
    tones = [tone(frequency_error_hz=float(hz), **errors) for hz in range(-20, 0)]
    found = {one.measure: one for one in summarize([scored(tones=tones)])}
    median, high = (found[f"{name} of frequency_error_hz"] for name in ("median", "95th percentile"))
    assert median.value == 10.5
    assert {median.low, median.high} <= set(map(float, range(1, 21)))
    assert median.low < median.value < median.high
    assert high.low is not None
    assert high.high is None


def test_calibration_counts_every_detection_in_the_bin_of_its_probability():
    detections = [matched(0.96, finds=True, true=True), matched(1.0), matched(0.2)]
    assert [(row["n"], row["k"]) for row in calibration([scored(detections=detections)])] == [(1, 0), (2, 1)]


def test_a_higher_threshold_never_raises_recall_or_alarms():
    probabilities = np.linspace(0.005, 0.995, 40)
    tones = [tone(snr, probability=p) for p in probabilities for snr in (8.0, 12.0)]
    searches = [
        scored("zoo", ALL_DETECTIONS, detections=[matched(p) for p in probabilities]),
        scored("tones", ALL_DETECTIONS, tones=tones),
    ]
    curve = threshold_curve(searches)
    for name in ("alarms_per_100_mhz", "recall_snr_10", "recall_snr_8"):
        values = [row[name] for row in curve]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
    assert curve[0]["alarms_per_100_mhz"] == 80.0
    assert threshold_curve([]) == []
