"""Detections are matched with the tones of a simulated sky, and false alarms with the interference behind them."""

from dataclasses import replace

import numpy as np
import pytest

from aetherscan.cadence.geometry import OFF_POSITIONS
from aetherscan.evaluate.matching import match_detections
from aetherscan.evaluate.searchers import Detection
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky

HEADER = gbt_header(2**15)
TONE = Emitter(frequency_mhz=HEADER.frequency(16000), drift_hz_s=0.8, width_hz=5.0, snr=(20.0, 0, 20.0, 0, 20.0, 0))


def detection(emitter=TONE, off_hz=0.0, off_hz_s=0.0, at_s=0.0):
    mhz = float(emitter.track_mhz(np.array([at_s]))[0]) + off_hz * 1e-6
    return Detection(frequency_mhz=mhz, drift_hz_s=emitter.drift_hz_s + off_hz_s, snr=max(emitter.snr))


def matched(*detections, emitters=(TONE,), on=(0, 2, 4)):
    return match_detections(detections, Sky(header=HEADER, emitters=emitters), on)


@pytest.mark.parametrize(
    ("off_hz", "off_hz_s", "finds"),
    [(19, 0, True), (-19, 0.09, True), (24, 0, False), (0, 0.11, False), (0, -0.11, False)],
)
def test_a_detection_finds_a_tone_within_20_hz_and_a_tenth_of_a_hz_per_second(off_hz, off_hz_s, finds):
    (tone,), (reported,) = matched(detection(off_hz=off_hz, off_hz_s=off_hz_s))
    assert (tone.detections > 0, reported.finds, reported.true) == (finds,) * 3
    assert reported.kind == "tone"
    assert tone.frequency_error_hz == (pytest.approx(off_hz) if finds else None)


def test_a_curved_tone_is_found_by_the_straight_line_that_fits_it():
    curved = replace(TONE, curvature_hz_s2=1e-4)
    (tone,), _ = matched(emitters=(curved,))
    chord = Detection(frequency_mhz=tone.frequency_mhz, drift_hz_s=tone.drift_hz_s, snr=20.0)
    assert tone.drift_hz_s - 0.8 == pytest.approx(1e-4 * (4 * SCAN_STEP_S + HEADER.duration_s) / 2, rel=0.02)
    assert matched(chord, emitters=(curved,))[0][0].detections == 1


def test_a_false_alarm_has_the_kind_of_the_emitter_whose_track_it_meets():
    rfi = replace(TONE, frequency_mhz=HEADER.frequency(5000), snr=(50.0,) * 6, kind="curved")
    detections = detection(rfi), detection(rfi, off_hz=5000), detection(off_hz_s=1.0)
    _, reported = matched(*detections, emitters=(TONE, rfi))
    assert [(one.kind, one.finds) for one in reported] == [("curved", False), ("noise", False), ("tone", False)]


def test_a_tone_crossed_by_an_emitter_is_near_it_and_is_counted():
    crossing = replace(TONE, drift_hz_s=-0.8, snr=(50.0,) * 6, kind="drifting")
    assert [matched(emitters=(TONE, *others))[0][0].near for others in ((), (crossing,))] == [False, True]


def test_with_on_and_off_swapped_interference_in_the_offs_only_counts_as_a_tone():
    swapped = replace(TONE, snr=(0, 20.0, 0, 20.0, 0, 20.0), kind="off_only")
    assert matched(emitters=(swapped,))[0] == ()
    (tone,), (reported,) = matched(detection(swapped, at_s=SCAN_STEP_S), emitters=(swapped,), on=OFF_POSITIONS)
    assert (tone.ons, tone.detections, reported.true) == (3, 1, True)
