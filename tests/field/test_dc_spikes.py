"""A tone in the middle of a coarse channel is found, unless a DC spike is really there."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector

from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation, open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.explain import trace
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence

HEADER = replace(gbt_header(2**15), nfpc=2**13)
MIDDLE = 2**13 + 2**12


def observe(folder, spike, *, drift=0.0, snr=(60.0, 0, 60.0, 0, 60.0, 0), header=HEADER):
    """Return six observations of a tone in the middle of the second coarse channel."""
    tone = Emitter(frequency_mhz=header.frequency(MIDDLE), drift_hz_s=drift, width_hz=2.0, snr=snr)
    paths = write_cadence(folder, Sky(header=header, emitters=(tone,), spike=spike), 1)
    with open_cadence(paths) as observations:
        return [ArrayObservation(each.header, each.read(0, each.header.nchans)) for each in observations]


def found(observations, **settings):
    return search_cadence(observations, make_detector(), SearchSettings(**settings)).candidates


def story(observations, **settings):
    return "\n".join(trace(observations, make_detector(), SearchSettings(**settings), HEADER.frequency(MIDDLE)))


@pytest.mark.parametrize("drift", [0.0, 0.01, -0.4])
def test_a_tone_at_a_coarse_center_is_found_where_the_receiver_has_no_dc_spike(tmp_path, drift):
    observations = observe(tmp_path, 0.0, drift=drift)
    (candidate,) = found(observations)
    assert abs(candidate.frequency_mhz - HEADER.frequency(MIDDLE)) < 6e-6
    assert min(candidate.snr[::2]) > 45
    assert "DC spike" not in story(observations)


def test_a_carrier_a_thousand_times_brighter_than_the_noise_in_the_ons_alone_is_no_dc_spike(tmp_path):
    (candidate,) = found(observe(tmp_path, 0.0, snr=(30_000.0, 0, 30_000.0, 0, 30_000.0, 0)))
    assert max(candidate.snr[1::2]) < 5


@pytest.mark.parametrize("spike", [0.3, 1.0, 100.0, 1e4])
def test_a_dc_spike_is_blanked_and_the_trace_says_so(tmp_path, spike):
    observations = observe(tmp_path, spike)
    assert found(observations) == ()
    assert "channel of a DC spike" in story(observations)


def test_a_spike_too_faint_to_stand_out_is_no_candidate_either(tmp_path):
    assert found(observe(tmp_path, 0.08, snr=(0.0,) * 6)) == ()


def test_a_tone_that_drifts_across_a_dc_spike_is_found(tmp_path):
    (candidate,) = found(observe(tmp_path, 100.0, drift=0.4))
    assert abs(candidate.frequency_mhz - HEADER.frequency(MIDDLE)) < 6e-6


def test_without_dc_spikes_in_the_settings_no_channel_is_blanked(tmp_path):
    observations = observe(tmp_path, 100.0)
    assert "channel of a DC spike" not in story(observations, dc_spikes=False)
    assert found(observations, dc_spikes=False) == ()  # the spike is in the OFFs


def test_the_coarse_width_by_hand_moves_the_place_where_a_spike_is_looked_for(tmp_path):
    observations = [
        ArrayObservation(replace(each.header, nfpc=None), each.read(0, 2**15)) for each in observe(tmp_path, 100.0)
    ]
    assert "channel of a DC spike" not in story(observations)
    assert "channel of a DC spike" in story(observations, coarse_channels=2**13)


@pytest.mark.parametrize("where", [np.s_[:, :3], np.s_[::2], np.s_[1]])
def test_a_bright_middle_in_a_few_rows_or_in_some_of_the_observations_is_not_blanked(tmp_path, where):
    observations = observe(tmp_path, 0.0)
    power = np.stack([each.read(0, 2**15) for each in observations])
    power[..., MIDDLE][where] *= 20
    changed = [ArrayObservation(each.header, rows) for each, rows in zip(observations, power, strict=True)]
    assert "channel of a DC spike" not in story(changed)
