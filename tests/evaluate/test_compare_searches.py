"""The comparison benchmark applies the field's ON/OFF rule and finds a bright tone with its matched filter."""

import numpy as np
import pytest

from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from benchmarks.compare_searches import matched_filter, on_off_filter

HEADER = gbt_header(2**14)


def test_the_on_off_rule_needs_a_hit_in_every_on_and_none_near_in_an_off(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=gbt_header(64)), 1, suffix=".fil")
    hits = [np.array([[1500.0 + 0.5 * SCAN_STEP_S * i * 1e-6, 0.5, 30.0]]) for i in range(6)]
    none = np.empty((0, 3))
    clear = [rows if i % 2 == 0 else none for i, rows in enumerate(hits)]
    assert [one.frequency_mhz for one in on_off_filter(clear, paths, (0, 2, 4)).detections] == [1500.0]
    assert on_off_filter([*clear[:3], hits[3] + [1e-3, 0, 0], *clear[4:]], paths, (0, 2, 4)).detections == ()
    assert on_off_filter([*clear[:4], none, none], paths, (0, 2, 4)).detections == ()


@pytest.mark.parametrize("drift", [-0.5, 0.5])
def test_the_matched_filter_finds_a_bright_narrow_tone(tmp_path, drift):
    tone = Emitter(frequency_mhz=HEADER.frequency(9000), drift_hz_s=drift, width_hz=3.0, snr=(60.0, 0.0) * 3)
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone,), spike=0), 1, suffix=".fil")
    (found,) = matched_filter(paths, (0, 2, 4)).detections
    assert abs(found.frequency_mhz - tone.frequency_mhz) * 1e6 < 10
    assert found.drift_hz_s == pytest.approx(drift, abs=0.05)
