"""Every line is proposed once, with its channel, drift rate and SNR."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetherscan.search.dedoppler import find_hits
from aetherscan.search.row_weights import row_noise, row_weights
from aetherscan.simulate.injection import add_line

ROWS, CHANS = 16, 2**13


def lit(channel: float, drift: float, width: float, snr: float, seed: int = 1, rows: int = ROWS) -> np.ndarray:
    """Standard noise with one line through `channel` half-way through."""
    sigmas = np.random.default_rng(seed).standard_normal((rows, CHANS), dtype=np.float32)
    edges = channel + drift * (np.arange(rows + 1) - rows / 2)
    add_line(sigmas, edges, width=width, snr=snr, noise=np.ones(rows))
    return sigmas


def hits(sigmas: np.ndarray, scatter=None, **options) -> np.ndarray:
    scatter = np.ones(len(sigmas), np.float32) if scatter is None else scatter
    weights = row_weights(row_noise(sigmas), scatter)[None]
    lengths, limits = np.array([len(sigmas)]), (options.pop("min_snr"), np.inf)
    return find_hits(sigmas[None], weights, np.array([0]), lengths, np.zeros(1), min_snrs=limits, **options)[0]


@pytest.mark.parametrize("rows", [4, 15, 16, 30])
@pytest.mark.parametrize(
    ("drift", "width"), [(0, 1), (0.5, 2), (-0.9, 3), (3.3, 2), (-8, 10), (20, 3), (-25, 30), (0, 50)]
)
def test_a_line_gives_one_hit_with_its_channel_drift_and_snr(drift, width, rows):
    found = hits(lit(3000.3, drift, width, 25, rows=rows), max_drift=26, min_snr=7)
    best = found[0]
    assert abs(best["channel"] - 3000.3) < 2 + max(width, abs(drift))
    assert abs(best["drift"] - drift) < 0.1 + max(width, abs(drift)) / rows * 2
    # Boxes are a factor of two apart, half overlapping; a bright pixel counts up to 4 sigma.
    assert best["snr"] > min(0.6 * 25, 5.5 * rows**0.5)
    assert len(found) == 1


@settings(deadline=None, max_examples=25)
@given(st.floats(-26, 26), st.floats(0.7, 40), st.floats(0, 1), st.integers(0, 1000))
def test_a_hit_has_most_of_the_snr_of_any_line(drift, width, part, seed):
    best = hits(lit(4000 + part, drift, width, 30, seed), max_drift=26, min_snr=7)[0]
    assert best["snr"] > 0.52 * 30
    assert abs(best["channel"] - 4000 - part) < 2 + max(width, abs(drift))


def test_faint_lines_beside_a_carrier_are_still_found():
    sigmas = lit(4000, 0.3, 1.5, 12)
    add_line(sigmas, np.full(ROWS + 1, 4020.0), width=2, snr=3000, noise=np.ones(ROWS))
    add_line(sigmas, np.linspace(5000, 4700, ROWS + 1), width=2, snr=3000, noise=np.ones(ROWS))
    assert any(
        abs(hit["channel"] - 4000) < 3 and abs(hit["drift"] - 0.3) < 0.1
        for hit in hits(sigmas, max_drift=26, min_snr=5)
    )


@pytest.mark.parametrize(("drift", "snr"), [(0.0, 9), (0.4, 12), (-3.3, 20), (17.0, 400)])
def test_sums_of_8_and_of_16_bits_give_the_same_hit(drift, snr, monkeypatch):
    sigmas = lit(4000.3, drift, 1.5, snr)
    (few,) = hits(sigmas, max_drift=26, min_snr=6)
    monkeypatch.setattr("aetherscan.search.dedoppler.FEW_ROWS", 0)
    (many,) = hits(sigmas, max_drift=26, min_snr=6)
    assert few["snr"] == pytest.approx(many["snr"], rel=0.02, abs=0.4)
    assert few["channel"] == pytest.approx(many["channel"], abs=many["width"])
    assert few["drift"] == pytest.approx(many["drift"], abs=0.1 * many["width"])


@pytest.mark.parametrize("drift", [0.0, 0.45, -2.7, 13.0])
def test_a_line_whose_sums_exceed_8_bits_is_hit_where_it_is(drift):
    best = hits(lit(4000.3, drift, 1.5, 3000), max_drift=26, min_snr=6)[0]
    assert abs(best["channel"] - 4000.3) <= best["width"]
    assert abs(best["drift"] - drift) <= 2 * best["width"] / ROWS


def test_one_hot_pixel_gives_no_hit():
    sigmas = lit(0, 0, 1, 0)
    sigmas[5, 4000] = 1e6
    assert len(hits(sigmas, max_drift=26, min_snr=6)) == 0


def test_noise_gives_no_bright_hits():
    quiet = np.random.default_rng(9).standard_normal((ROWS, 2**15), dtype=np.float32)
    assert len(hits(quiet, max_drift=26, min_snr=6.5)) == 0


def test_flipping_the_band_mirrors_the_hits():
    sigmas = lit(3900.0, 4.0, 2, 40)
    hit = hits(sigmas, max_drift=26, min_snr=10)[0]
    mirrored = hits(np.ascontiguousarray(sigmas[:, ::-1]), max_drift=26, min_snr=10)[0]
    assert mirrored["channel"] == pytest.approx(CHANS - 1 - hit["channel"], abs=hit["width"] / 2)
    assert mirrored["drift"] == pytest.approx(-hit["drift"], abs=0.3)
    assert mirrored["snr"] == pytest.approx(hit["snr"], rel=0.1)


def test_the_brightest_hits_are_kept_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("aetherscan.search.dedoppler.MOST_HITS", 5)
    sigmas = lit(8000.0, 0.5, 2, 40)
    for channel in range(300, 7000, 300):
        add_line(sigmas, np.full(ROWS + 1, float(channel)), width=2, snr=10, noise=np.ones(ROWS))
    found = hits(sigmas, max_drift=26, min_snr=6)
    assert 1 <= len(found) <= 5
    assert abs(found[0]["channel"] - 8000) < 3


def test_drifts_beyond_the_limit_by_more_than_a_step_are_not_reported():
    found = hits(lit(900, 12, 2, 60), max_drift=5, min_snr=6)
    assert len(found)
    assert (np.abs(found["drift"]) <= 5 + found["width"] / (ROWS - 1)).all()


def test_a_burst_with_correlated_channels_gives_no_hits_and_hides_no_line():
    rng = np.random.default_rng(3)
    sigmas = lit(4000, 0.5, 2, 12)
    sigmas[4:7] = np.repeat(rng.standard_normal((3, CHANS // 32), dtype=np.float32), 32, axis=1)
    (found,) = hits(sigmas, max_drift=26, min_snr=6.5)
    assert abs(found["channel"] - 4000) < 3


def test_a_row_is_weighted_by_signal_over_variance_and_the_sum_has_unit_scatter():
    scatter = np.full(ROWS, 0.1, np.float32)
    scatter[3], scatter[9] = 0.4, 0
    noise = np.ones((2, ROWS), np.float32)
    noise[1, 5] = 5
    weights = row_weights(noise, scatter)
    np.testing.assert_allclose((weights**2 * noise**2).sum(axis=1), 1, rtol=1e-5)
    assert weights[0, 3] == pytest.approx(weights[0, 0] / 4)
    assert weights[0, 9] == weights[1, 9] == 0
    assert weights[1, 5] == pytest.approx(weights[1, 0] / 25)
