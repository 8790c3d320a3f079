"""Arrays and blimpy Waterfalls are searched like files."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import GBT, make_detector, make_header, make_power, write_observation

from aetherscan.errors import FormatError, HeaderError
from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation, absent_observation, from_waterfall, open_cadence, open_observation
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence

NOISE = Path(__file__).parents[1] / "data" / "gbt_cband_noise.fil"
HEADER = gbt_header(2**14)


def load_waterfall(path, **selection):
    """Import blimpy late and silence it: its import warns about pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from blimpy import Waterfall

        waterfall = Waterfall(str(path), **selection)
        if hasattr(waterfall.container, "h5"):
            waterfall.container.h5.close()
    return waterfall


@pytest.fixture
def cadence(tmp_path):
    tone = Emitter(frequency_mhz=HEADER.frequency(9000), drift_hz_s=1.2, width_hz=6.0, snr=(25, 0, 25, 0, 25, 0))
    return write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone,)), 1)


def test_a_waterfall_of_real_noise_equals_the_file_it_was_read_from():
    observation = from_waterfall(load_waterfall(NOISE))
    with open_observation(NOISE) as file:
        assert replace(observation.header, src_raj=0, src_dej=0) == replace(file.header, src_raj=0, src_dej=0)
        assert observation.header.src_raj == pytest.approx(file.header.src_raj, abs=1e-12)
        assert observation.header.src_dej == pytest.approx(file.header.src_dej, abs=1e-12)
        np.testing.assert_array_equal(observation.read(5, 1000), file.read(5, 1000))


@pytest.mark.parametrize(
    "selection", [{"load_data": False}, {"t_start": 5}, {"f_start": 6663.999, "f_stop": 6663.9995}]
)
def test_a_waterfall_that_holds_a_part_of_its_file_is_refused(selection):
    with pytest.raises(HeaderError, match=r"expected the whole file loaded, \(32, 1, 1024\), found"):
        from_waterfall(load_waterfall(NOISE, **selection))


def test_two_polarizations_of_a_waterfall_become_total_power():
    waterfall = load_waterfall(NOISE)
    waterfall.data = np.concatenate([waterfall.data] * 4, axis=1)
    single = waterfall.data[:, 0].copy()
    waterfall.header["nifs"] = 4
    np.testing.assert_array_equal(from_waterfall(waterfall).read(0, 1024), 2 * single)


def test_the_sum_of_stokes_i_and_q_of_a_waterfall_is_refused_and_one_product_is_taken():
    waterfall = load_waterfall(NOISE)
    power = waterfall.data.astype(np.float32)
    waterfall.data = np.concatenate([power, power - power.mean(), power, power], axis=1)
    waterfall.header["nifs"] = 4
    with pytest.raises(FormatError, match=r"expected power of 0 or more in product 2, .+ as Stokes Q has"):
        from_waterfall(waterfall)
    for polarization in (1, 2):
        found = from_waterfall(waterfall, polarization)
        np.testing.assert_array_equal(found.read(0, 1024), waterfall.data[:, polarization - 1])
        assert found.header.nifs == 1
    with pytest.raises(HeaderError, match="polarization: expected 1 to 4 as nifs says, found 5"):
        from_waterfall(waterfall, 5)
    waterfall.header["pol_type"] = "IQUV"
    np.testing.assert_array_equal(from_waterfall(waterfall).read(0, 1024), power[:, 0])


def test_waterfalls_give_the_candidates_of_their_files(cadence):
    with open_cadence(cadence) as observations:
        expected = search_cadence(observations, make_detector()).candidates
    found = search_cadence([from_waterfall(load_waterfall(path)) for path in cadence], make_detector()).candidates
    assert len(expected) == 1
    assert found == expected


def test_nothing_is_found_in_an_absent_off_and_the_signal_still_is(cadence):
    with open_cadence(cadence) as observations:
        observations[3] = absent_observation(observations[3].header)
        assert np.isnan(observations[3].read(10, 20)).all()
        (candidate,) = search_cadence(observations, make_detector()).candidates
    assert candidate.snr[0] > 10


def test_power_of_another_shape_than_the_header_is_refused():
    with pytest.raises(HeaderError, match=r"expected shape \(16, 1024\), found \(16, 1000\)"):
        ArrayObservation(GBT, make_power(make_header(nchans=1000)))


def test_an_array_refuses_the_channels_and_buffers_that_a_file_refuses(tmp_path):
    power = write_observation(tmp_path / "file.h5")
    with open_observation(tmp_path / "file.h5") as file:
        for observation in (file, ArrayObservation(GBT, power)):
            np.testing.assert_array_equal(observation.read(3, 11), power[:, 3:11])
            with pytest.raises(ValueError, match="<= 1024, found 1020 to 1030"):
                observation.read(1020, 1030)
            with pytest.raises(ValueError, match=r"float32 \(16, 8\)"):
                observation.read(3, 11, np.empty((16, 9), np.float32))


def test_importing_the_readers_does_not_import_blimpy():
    check = "import sys, aetherscan.io; print([name for name in ('blimpy', 'astropy') if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", check], cwd=Path(__file__).parents[2], capture_output=True, check=True
    )
    assert loaded.stdout.split() == [b"[]"]


def test_a_file_that_this_process_has_open_through_blimpy_is_read(cadence):
    import h5py

    with h5py.File(cadence[0], "r"), open_observation(cadence[0]) as observation:  # as blimpy opens it
        assert observation.read(0, 16).shape == (16, 16)
