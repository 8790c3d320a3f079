"""The normalized bandpass is noise of unit scatter for any filter shape, gain, burst or gap."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aetherscan.search.bandpass import SEGMENT, normalize_bandpass
from aetherscan.simulate.noise import burst, noise
from aetherscan.simulate.sky import filter_shape

CHANS = 2**16
RNG = np.random.default_rng(4)
NOISE = noise(RNG, 16, CHANS)


def normalized(power, start=0, width=None):
    out = np.empty((power.shape[0], width or power.shape[1]), dtype=np.float32)
    return out, normalize_bandpass(power, start, out)


def test_noise_has_mean_zero_and_unit_scatter_for_any_filter_shape_and_gain():
    shaped = NOISE * filter_shape(2**20)[:CHANS] * RNG.uniform(0.5, 2e9, (16, 1)).astype(np.float32)
    sigmas, scatter = normalized(shaped)
    assert abs(sigmas.mean()) < 0.01
    for part in (sigmas[:, :4096], sigmas[:, 30_000:34_096], sigmas[:, -4096:]):
        assert part.std() == pytest.approx(1, abs=0.02)
        assert abs(part.mean()) < 0.03
    np.testing.assert_allclose(scatter, 0.099, rtol=0.02)


def test_a_line_has_the_same_strength_at_the_edge_of_a_coarse_channel_as_in_its_middle():
    lit = NOISE.copy()
    lit[:, [700, 40_000]] += 0.5
    flat, _ = normalized(lit)
    shaped, _ = normalized(lit * filter_shape(2**18)[:CHANS])
    np.testing.assert_allclose(shaped[:, [700, 40_000]].mean(axis=0), flat[:, [700, 40_000]].mean(axis=0), rtol=0.02)


def test_the_level_has_no_step_where_two_coarse_channels_meet():
    shape = filter_shape(2**18)
    met = np.concatenate([shape[-CHANS // 2 :], shape[: CHANS // 2]])
    power = np.tile(met, (4, 1))
    power[:, ::7] *= np.float32(1.001)  # some scatter, so that there is a unit
    sigmas = np.empty_like(power)
    scatter = normalize_bandpass(power, 0, sigmas, 1024, (CHANS // 2, 0))
    assert np.abs(sigmas[:, CHANS // 2 - 400 : CHANS // 2 + 400] * scatter[:, None]).max() < 0.003


def test_a_burst_changes_only_its_own_rows_and_raises_their_scatter():
    stormy = NOISE.copy()
    stormy[4] = burst(stormy[4], 6.0) * np.linspace(1, 1.4, CHANS, dtype=np.float32)
    sigmas, scatter = normalized(stormy)
    np.testing.assert_array_equal(np.delete(sigmas, 4, axis=0), np.delete(normalized(NOISE)[0], 4, axis=0))
    assert sigmas[4].std() == pytest.approx(1, abs=0.02)
    assert scatter[4] == pytest.approx(4 * 0.099, rel=0.03)


def test_a_notch_and_emitters_as_wide_as_a_segment_do_not_bias_their_neighbors():
    power = NOISE.copy()
    power[:, 20_000:21_500] *= 3
    power[:, 40_000:] *= np.float32(0.01)
    sigmas, _ = normalized(power)
    assert sigmas[:, 20_200:21_300].mean() > 15
    for part in (slice(16_000, 19_900), slice(21_600, 26_000), slice(42_100, 60_000)):
        assert abs(sigmas[:, part].mean()) < 0.05
        assert sigmas[:, part].std() == pytest.approx(1, abs=0.05)


def test_dead_rows_nan_and_infinity_become_zero_and_change_no_other_pixel():
    broken = NOISE.copy()
    broken[3] = 0
    broken[4] = np.nan
    broken[7] = 5
    broken[5, 100:3000] = np.nan
    broken[6, 7] = np.inf
    sigmas, scatter = normalized(broken)
    assert np.isfinite(sigmas).all()
    assert not sigmas[[3, 4, 7]].any()
    assert not scatter[[3, 4, 7]].any()
    assert not sigmas[5, 100:3000].any()
    assert not sigmas[6, 7]
    np.testing.assert_array_equal(sigmas[:3], normalized(NOISE)[0][:3])
    assert sigmas[5, 6000:].std() == pytest.approx(1, abs=0.02)


def test_eight_bit_power_has_unit_scatter_too():
    sigmas, _ = normalized(np.rint(NOISE * 40).astype(np.float32))
    assert sigmas.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("width", [3, 40, SEGMENT - 1, SEGMENT + 1, 5 * SEGMENT + 17])
def test_any_width_is_filled(width):
    sigmas, _ = normalized(NOISE, start=5, width=width)
    assert np.isfinite(sigmas).all()
    assert sigmas.any()


def test_flipping_the_band_mirrors_the_sigmas():
    np.testing.assert_allclose(normalized(NOISE[:, ::-1].copy())[0][:, ::-1], normalized(NOISE)[0], atol=0.05)


DIGEST = """
import hashlib, numpy as np
from aetherscan.search.bandpass import normalize_bandpass
from aetherscan.simulate.sky import filter_shape
power = np.random.default_rng(1).chisquare(204, (16, 2**14)).astype(np.float32) / 204 * filter_shape(2**18)[:2**14]
out = np.empty_like(power)
scatter = normalize_bandpass(power, 0, out)
print(hashlib.sha256(out.tobytes() + scatter.tobytes()).hexdigest())
"""


def test_a_kernel_compiled_now_and_one_from_the_cache_give_the_same_bits(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [
        subprocess.run([sys.executable, "-P", "-c", DIGEST], env=env, capture_output=True, check=True) for _ in "12"
    ]
    assert runs[0].stdout == runs[1].stdout
