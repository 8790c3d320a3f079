"""A snippet is centered on its signal and in units of each row's noise."""

import math

import numpy as np

from aetherscan.search.cutouts import FLOOR, SPAN, snippet

RNG = np.random.default_rng(4)
SIGMAS = RNG.standard_normal((6, 16, 2**14), dtype=np.float32)
QUIET = np.ones((6, 7, 16), np.float32)
MIDDLE = np.full(6, 8000.0)


def cut(sigmas=SIGMAS, noise=QUIET, centers=MIDDLE, level=0, rows=16, bins=512):
    return snippet(sigmas, noise, np.full(6, sigmas.shape[1]), centers, level, rows, bins)


def test_a_bin_is_a_sum_of_channels_in_units_of_its_own_scatter():
    expected = SIGMAS[2, 5, 8000 - 256 * 4 : 8000 - 256 * 4 + 8].reshape(2, 4).sum(axis=1) / 2
    np.testing.assert_allclose(cut(level=2)[2, 5, :2], (np.arcsinh(expected) + FLOOR) / SPAN, rtol=1e-5)
    louder = QUIET.copy()
    louder[2, 2, 5] = 4
    np.testing.assert_allclose(
        cut(noise=louder, level=2)[2, 5, :2], (np.arcsinh(expected / 4) + FLOOR) / SPAN, rtol=1e-5
    )


def test_each_observation_is_centered_on_its_own_channel():
    lit = SIGMAS.copy()
    centers = 5000 + 700.0 * np.arange(6)
    for i, centre in enumerate(centers):
        lit[i, :, int(centre)] = 50
    assert (cut(lit, centers=centers).argmax(axis=2) == 256).all()


def test_a_snippet_of_one_observation_does_not_depend_on_the_others():
    lit = SIGMAS.copy()
    lit[1:, :, 7900] = 1e6
    np.testing.assert_array_equal(cut(lit)[0], cut()[0])


def test_bins_beyond_the_band_are_noise_of_value_zero():
    snippets = cut(centers=np.full(6, 100.0))
    np.testing.assert_array_equal(snippets[..., :156], np.float32(FLOOR / SPAN))
    np.testing.assert_array_equal(snippets[0, 0, 156:160], cut(centers=np.full(6, 256.0))[0, 0, :4])


def test_extra_rows_are_dropped_and_missing_rows_repeat_the_last():
    np.testing.assert_array_equal(cut(rows=12), cut()[:, :12])
    np.testing.assert_array_equal(cut(rows=20)[:, 16:], np.repeat(cut()[:, 15:], 4, axis=1))


def test_extreme_pixels_are_clipped_to_zero_and_one():
    hot = SIGMAS.copy()
    hot[0, 0, 8000], hot[1, 1, 8000] = 1e9, -1e9
    assert (cut(hot)[0, 0].max(), cut(hot)[1, 1].min()) == (1, 0)
    assert math.isclose(cut(np.zeros_like(SIGMAS)).max(), FLOOR / SPAN, rel_tol=1e-6)
