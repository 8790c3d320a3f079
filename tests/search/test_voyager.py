"""Voyager 1 as recorded at Green Bank, placed in the ONs of a simulated cadence: carrier and side bands are found."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector

from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.io import open_observation, write_h5
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.noise import noise
from aetherscan.simulate.sky import Sky

HERE = Path(__file__).parents[1] / "data"
CATALOGUE = json.loads((HERE / "voyager_stamps.json").read_text())
START = 9000


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: f"{entry['signal_freq_MHz']:.6f}")
def test_a_recorded_signal_in_the_ons_is_one_candidate_with_the_cataloged_drift(tmp_path, entry):
    stamp = np.load(HERE / "voyager_stamps.npz")[f"stamp{entry['i']}"]
    header = gbt_header(2**15, fch1=8420.0, source_name="VOYAGER-1")
    rng = np.random.default_rng(entry["i"])
    with ExitStack() as opened:
        observations = []
        for position, each in enumerate(Sky(header=header).headers()):
            power = noise(rng, 16, header.nchans)
            if position in (0, 2, 4):
                moved = START + round(entry["drift_Hz_s"] * position * SCAN_STEP_S / (header.foff * 1e6))
                power[:, moved : moved + stamp.shape[1]] = stamp / np.median(stamp, axis=1)[:, None]
            write_h5(tmp_path / f"{position}.h5", each, [power])
            observations.append(opened.enter_context(open_observation(tmp_path / f"{position}.h5")))
        found = search_cadence(observations, make_detector()).candidates
    (candidate,) = found
    assert candidate.drift_rate_hz_s == pytest.approx(entry["drift_Hz_s"], abs=0.02)
    expected = header.frequency(START) + entry["signal_freq_MHz"] - entry["fch1_MHz"]
    assert abs(candidate.frequency_mhz - expected) < 20e-6
    assert min(candidate.snr[::2]) > 20
