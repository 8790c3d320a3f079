"""Injected signals have the position, the width and the SNR that were requested."""

import astropy.units as u
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetherscan.simulate.injection import Emitter, add_emitter, add_line, row_edges_s

ROWS, CHANS, TSAMP, FOFF = 16, 1024, 18.253611008, -2.7939677238464355e-06


def snr_of(power: np.ndarray) -> float:
    return float(np.sqrt((power.astype(np.float64) ** 2).sum()))


@settings(deadline=None, max_examples=50)
@given(drift=st.floats(-26, 26), width=st.floats(0.3, 40), snr=st.floats(1, 1000))
def test_the_injected_snr_is_that_of_a_matched_filter(drift, width, snr):
    power = np.zeros((ROWS, CHANS), np.float32)
    edges = 512 + drift * (np.arange(ROWS + 1) - 8)
    add_line(power, edges, width=width, snr=snr, noise=np.ones(ROWS))
    assert snr_of(power) == pytest.approx(snr, rel=1e-3)


def test_the_line_lies_on_its_track():
    power = np.zeros((ROWS, CHANS), np.float32)
    edges = 300 + 7.3 * np.arange(ROWS + 1)
    add_line(power, edges, width=3.0, snr=50, noise=np.ones(ROWS))
    centres = (power * np.arange(CHANS)).sum(axis=1) / power.sum(axis=1)
    np.testing.assert_allclose(centres, (edges[1:] + edges[:-1]) / 2, atol=1e-3)


def test_a_line_that_leaves_the_band_is_not_brighter_inside_it():
    whole, cut = np.zeros((ROWS, CHANS), np.float32), np.zeros((ROWS, 100), np.float32)
    edges = 90 + 2.0 * np.arange(ROWS + 1)
    for power in (whole, cut):
        add_line(power, edges, width=2.0, snr=30, noise=np.ones(ROWS))
    np.testing.assert_array_equal(cut, whole[:, :100])


def test_a_pulsed_emitter_is_off_for_half_its_period():
    power = np.zeros((ROWS, CHANS), np.float32)
    emitter = Emitter(frequency_mhz=1499.9986, snr=(40.0,), period_s=4 * TSAMP)
    add_emitter(
        power, emitter, position=0, start_s=0.0, tsamp=TSAMP, fch1=1500.0, foff=FOFF, noise=np.ones(ROWS)
    )  # fmt: skip
    lit = power.max(axis=1) > 0
    assert lit.tolist() == [True, True, False, False] * 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("drift", "width", "moments"), [(0.0, 2.0, 10), (0.13, 3.0, 200), (-0.4, 30.0, 100), (1.0, 10.0, 800)]
)
def test_it_agrees_with_setigen_where_setigen_samples_finely(drift, width, moments):
    """Compare with setigen, which samples a line in frequency and time, on a grid 8 times finer: 0.5% of the peak.

    The difference is setigen's sampling: for 3.7 Hz/s and 4 Hz width, four times as many samples of a row reduce it
    from 3.6% to 0.9%.
    """
    import setigen as stg

    fine, hz = 8, -FOFF * 1e6
    frame = stg.Frame(
        fchans=CHANS * fine, tchans=ROWS, df=hz / fine * u.Hz, dt=TSAMP * u.s, fch1=1500 * u.MHz, ascending=True
    )
    start = frame.fs[512 * fine]
    theirs = frame.add_signal(
        stg.constant_path(f_start=start, drift_rate=drift * u.Hz / u.s),
        stg.constant_t_profile(level=1),
        stg.gaussian_f_profile(width=width * u.Hz),
        stg.constant_bp_profile(level=1),
        doppler_smearing=True,
        smearing_subsamples=moments,
    )
    theirs = np.asarray(theirs).reshape(ROWS, CHANS, fine).mean(axis=2)
    ours = np.zeros((ROWS, CHANS), np.float32)
    edges = (start + drift * row_edges_s(0.0, ROWS, TSAMP) - frame.fs[:fine].mean()) / hz
    add_line(ours, edges, width=width / hz, snr=snr_of(theirs), noise=np.ones(ROWS))
    assert np.abs(ours - theirs).max() < 0.005 * theirs.max()
