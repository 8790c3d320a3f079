"""What the encoder sees does not depend on gain, level or bursts, and does depend on a signal's strength."""

import numpy as np

from aetherscan.normalize import bin_channels, normalize, standardize

RNG = np.random.default_rng(4)
SKY = (1 + 0.099 * RNG.standard_normal((6, 16, 4096))).astype(np.float32)


def test_gain_and_broadband_steps_vanish():
    stepped = SKY * np.array([1, 1.3, 0.8, 1, 2, 1], np.float32)[:, None, None]
    stepped[2, 5:8] *= 7
    np.testing.assert_allclose(normalize(stepped, 8), normalize(SKY, 8), atol=2e-5)


def test_a_signal_has_the_same_strength_in_every_observation_and_cadence():
    lit = SKY.copy()
    lit[:, :, 2000:2008] += 0.7
    quiet = normalize(SKY, 8)
    alone = normalize(np.concatenate([lit[:1], SKY[1:]]), 8)
    np.testing.assert_array_equal(normalize(lit, 8)[0], alone[0])
    np.testing.assert_array_equal(alone[1:], quiet[1:])
    assert alone[0, :, 250].min() > quiet[0, :, 250].max()


def test_noise_has_unit_scale_and_no_level():
    sigmas = standardize(SKY[0])
    assert abs(np.median(sigmas)) < 1e-3
    assert abs(sigmas.std() - 1) < 0.02


def test_dead_rows_nan_and_infinity_become_zero_and_harm_nothing_else():
    broken = SKY[0].copy()
    broken[3] = 0
    broken[4] = np.nan
    broken[5, 100:110] = np.nan
    broken[6, 7] = np.inf
    sigmas = standardize(broken)
    assert np.isfinite(sigmas).all()
    assert not sigmas[3:5].any()
    assert not sigmas[5, 100:110].any()
    np.testing.assert_array_equal(sigmas[:3], standardize(SKY[0])[:3])


def test_values_lie_between_zero_and_one_whatever_comes():
    hot = SKY.copy()
    hot[0, 0, 0] = 1e12
    hot[1, 1, 1] = -1e12
    seen = normalize(hot, 8)
    assert seen.shape == (6, 16, 512)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_binning_averages_neighbours_and_leaves_off_a_remainder():
    np.testing.assert_allclose(bin_channels(SKY[0, :, :4090], 8)[:, 1], SKY[0, :, 8:16].mean(axis=1), rtol=1e-6)
    assert bin_channels(SKY[0, :, :4090], 8).shape == (16, 511)
