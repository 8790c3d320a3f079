"""The comparison benchmark applies the field's ON/OFF rule, finds a bright tone with its matched filter, and counts."""

import numpy as np
import pytest
from scipy.stats import normaltest

from aetherscan.evaluate.matching import ScoredSearch, match_detections
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, filter_shape, write_cadence
from benchmarks.compare_searches import aetherscan_gate, gate_hits, matched_filter, on_off_filter, recall_curve, touched

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


def test_the_statistic_of_the_gate_is_that_of_scipy_without_the_spike():
    power = np.random.default_rng(1).normal(100, 1, (16, 2**14)).astype(np.float32)
    power[:, 1024 + 100] += 12
    power *= filter_shape(2**14)
    power[:, [2**13 - 1, 2**13]] += 1e4
    ((_, statistic),) = [hit for hit in gate_hits(power) if hit[0] == 1024]
    expected = normaltest((power / filter_shape(2**14))[:, 1024 : 1024 + 256].ravel()).statistic
    assert statistic == pytest.approx(expected, rel=1e-3)
    assert {first for first, _ in gate_hits(power)} == {1024, 1024 - 128}


def test_the_gate_finds_a_drifting_tone_that_is_bright_enough_and_no_fainter_one(tmp_path):
    tones = tuple(
        Emitter(frequency_mhz=HEADER.frequency(at), drift_hz_s=0.5, width_hz=3.0, snr=(snr, 0.0) * 3)
        for at, snr in ((4000, 200.0), (12_000, 20.0))
    )
    sky = Sky(header=HEADER, emitters=tones, spike=0)
    output = aetherscan_gate(write_cadence(tmp_path, sky, 1, suffix=".fil"), (0, 2, 4))
    outcomes, matched = match_detections(output.detections, sky, (0, 2, 4))
    searched = ScoredSearch(
        scenario="tones", searcher="gate", cadence=0, file_bytes=1, mhz=1.0, density=0.0, write_s=0.0, search_s=0.0,
        stage_s={}, counts=output.counts, digest="", tones=outcomes, detections=matched,
    )  # fmt: skip
    assert [tone.detections > 0 for tone in touched(searched).tones] == [True, False]
    assert 8192 <= output.counts["covered"] < 2**14


def test_a_curve_of_recall_counts_the_tones_of_each_snr(tmp_path):
    tones = tuple(Emitter(frequency_mhz=1500.0 + i, snr=(snr, 0.0) * 3) for i, snr in enumerate((3.0, 3.0, 60.0)))
    outcomes, _ = match_detections((), Sky(header=HEADER, emitters=tones), (0, 2, 4))
    searched = ScoredSearch(
        scenario="tones", searcher="none", cadence=0, file_bytes=1, mhz=1.0, density=0.0, write_s=0.0, search_s=0.0,
        stage_s={}, counts={}, digest="", tones=outcomes, detections=(),
    )  # fmt: skip
    curve, counts = recall_curve([searched])
    assert curve[:, :2].tolist() == [[3.0, 0.0], [60.0, 0.0]]
    assert (counts[0], counts[1], counts[-1]) == ("0/2", "0/0", "0/1")
