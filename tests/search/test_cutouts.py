"""What the encoder sees is centred, in units of each row's noise, and the same for training, serving and evaluation."""

import math

import numpy as np

from aetherscan.search.cutouts import FLOOR, SPAN, snippet

RNG = np.random.default_rng(4)
SIGMAS = RNG.standard_normal((6, 16, 2**14), dtype=np.float32)
QUIET = np.ones((6, 7, 16), np.float32)
MIDDLE = np.full(6, 8000.0)


def seen(sigmas=SIGMAS, noise=QUIET, centres=MIDDLE, level=0, rows=16, bins=512):
    return snippet(sigmas, noise, centres, level, rows, bins)


def test_a_bin_is_a_sum_of_channels_in_units_of_its_own_scatter():
    expected = SIGMAS[2, 5, 8000 - 256 * 4 : 8000 - 256 * 4 + 8].reshape(2, 4).sum(axis=1) / 2
    np.testing.assert_allclose(seen(level=2)[2, 5, :2], (np.arcsinh(expected) + FLOOR) / SPAN, rtol=1e-5)
    louder = QUIET.copy()
    louder[2, 2, 5] = 4
    np.testing.assert_allclose(
        seen(noise=louder, level=2)[2, 5, :2], (np.arcsinh(expected / 4) + FLOOR) / SPAN, rtol=1e-5
    )


def test_each_observation_is_centred_on_its_own_channel():
    lit = SIGMAS.copy()
    centres = 5000 + 700.0 * np.arange(6)
    for i, centre in enumerate(centres):
        lit[i, :, int(centre)] = 50
    assert (seen(lit, centres=centres).argmax(axis=2) == 256).all()


def test_a_signal_looks_the_same_whatever_else_the_cadence_holds():
    lit = SIGMAS.copy()
    lit[1:, :, 7900] = 1e6
    np.testing.assert_array_equal(seen(lit)[0], seen()[0])


def test_beyond_the_band_is_noise_of_value_zero():
    found = seen(centres=np.full(6, 100.0))
    np.testing.assert_array_equal(found[..., :156], np.float32(FLOOR / SPAN))
    np.testing.assert_array_equal(found[0, 0, 156:160], seen(centres=np.full(6, 256.0))[0, 0, :4])


def test_rows_are_left_off_or_the_last_one_is_repeated():
    np.testing.assert_array_equal(seen(rows=12), seen()[:, :12])
    np.testing.assert_array_equal(seen(rows=20)[:, 16:], np.repeat(seen()[:, 15:], 4, axis=1))


def test_values_lie_between_zero_and_one_whatever_comes():
    hot = SIGMAS.copy()
    hot[0, 0, 8000], hot[1, 1, 8000] = 1e9, -1e9
    assert (seen(hot)[0, 0].max(), seen(hot)[1, 1].min()) == (1, 0)
    assert math.isclose(seen(np.zeros_like(SIGMAS)).max(), FLOOR / SPAN, rel_tol=1e-6)
