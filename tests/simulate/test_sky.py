"""A simulated sky has the statistics and the format of the real one."""

import itertools

import numpy as np
import pytest

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.header import gbt_header
from aetherscan.io import open_observation
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import INTERFERENCE, random_interference, zoo
from aetherscan.simulate.noise import NOISE, noise
from aetherscan.simulate.sky import LEVEL, Sky, coarse_blocks, filter_shape, write_cadence

HEADER = gbt_header(2**14)


def test_noise_is_chi_squared_with_204_degrees_of_freedom():
    drawn = noise(np.random.default_rng(1), 16, 2**16)
    exact = np.random.default_rng(2).chisquare(204, 2**20) / 204
    assert drawn.std() == pytest.approx(NOISE, rel=5e-3)
    shares = (0.001, 0.01, 0.5, 0.99, 0.999)
    np.testing.assert_allclose(np.quantile(drawn, shares), np.quantile(exact, shares), atol=3e-3)


def test_the_filter_is_flat_in_the_middle_and_half_at_the_edges():
    shape = filter_shape(2**16)
    assert shape[[0, -1]] == pytest.approx([0.5, 0.5], abs=0.03)
    assert np.ptp(shape[2**16 * 15 // 100 : 2**16 * 85 // 100]) < 0.02
    np.testing.assert_allclose(shape, shape[::-1], rtol=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_a_cadence_is_six_files_that_read_back_as_drawn(tmp_path, suffix):
    sky = Sky(header=HEADER, emitters=zoo(np.random.default_rng(1), HEADER, 50))
    paths = write_cadence(tmp_path, sky, 7, suffix=suffix)
    starts = []
    for position, path in enumerate(paths):
        with open_observation(path) as observation:
            starts.append(observation.header.tstart)
            (drawn,) = coarse_blocks(sky, position, np.random.SeedSequence(7))
            np.testing.assert_array_equal(observation.read(0, HEADER.nchans), drawn)
    assert np.diff(starts) * 86400 == pytest.approx([341] * 5, abs=1e-3)


def test_the_same_seed_gives_the_same_sky_and_another_seed_another_sky():
    sky = Sky(header=HEADER)
    first, again, other = (next(coarse_blocks(sky, 0, np.random.SeedSequence(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99


def test_spawned_seeds_give_independent_noise_and_an_integer_seed_is_its_sequence(tmp_path):
    sky, parent = Sky(header=HEADER), np.random.SeedSequence(1)
    seeds = {"integer": 1, "sequence": parent, "first child": parent.spawn(1)[0], "second child": parent.spawn(1)[0]}
    noise = {}
    for name, seed in seeds.items():
        (tmp_path / name).mkdir()
        with open_observation(write_cadence(tmp_path / name, sky, seed, suffix=".fil")[0]) as observation:
            noise[name] = observation.read(0, HEADER.nchans)
    np.testing.assert_array_equal(noise["integer"], noise["sequence"])
    for first, second in itertools.combinations(("integer", "first child", "second child"), 2):
        assert (noise[first] != noise[second]).mean() > 0.99, (first, second)


def test_noise_is_seeded_by_position_and_coarse_channel_as_the_reference_skies_are():
    power = next(coarse_blocks(Sky(header=HEADER, spike=0), 2, np.random.SeedSequence(7)))
    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(2, 0)))
    expected = (
        noise(rng, HEADER.ntime, HEADER.nchans)
        * (filter_shape(HEADER.coarse_chans) * np.float32(LEVEL))[: HEADER.nchans]
    )
    np.testing.assert_array_equal(power, expected)


def test_a_burst_raises_the_level_and_the_noise_of_its_rows():
    power = next(coarse_blocks(Sky(header=HEADER, bursts=((0, 4, 5.0),), spike=0), 0, np.random.SeedSequence(1)))
    middle = power[:, 6000:10000]
    assert middle[4].mean() / middle[3].mean() == pytest.approx(5, rel=0.05)
    assert middle[4].std() / middle[4].mean() == pytest.approx(0.4, rel=0.1)


def test_a_signal_is_added_to_the_ons_and_not_to_the_offs():
    tone = Emitter(frequency_mhz=HEADER.frequency(5000), snr=(300, 0, 300, 0, 300, 0))
    lit = Sky(header=HEADER, emitters=(tone,))
    for position in range(6):
        with_tone, without = (
            next(coarse_blocks(s, position, np.random.SeedSequence(1))) for s in (lit, Sky(header=HEADER))
        )
        assert (with_tone != without).any() == (position in ON_POSITIONS)


def test_no_interference_is_in_exactly_the_three_ons():
    rng = np.random.default_rng(5)
    for kind in INTERFERENCE:
        for _ in range(100):
            snr = np.array(random_interference(rng, 1500.0, 100.0, kind).snr)
            assert snr[[1, 3, 5]].any() or not snr[[0, 2, 4]].all(), kind
