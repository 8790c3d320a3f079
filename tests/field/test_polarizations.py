"""Files with several polarization products: one is searched by choice, and a missing product is named."""

import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from factories import make_detector, make_header, make_power, write_products
from watched import headers

from aetherscan.errors import FormatError, HeaderError
from aetherscan.io import open_observation, verify_complete
from sentinel.commands.search import search
from sentinel.config import Config, Search
from sentinel.workers.search import search_files


def stokes(header):
    """Return I, Q, U, V of an unpolarized source."""
    a, b, *uv = (make_power(header, seed) for seed in range(4))
    return np.stack([a + b, a - b, *(product - product.mean() for product in uv)], axis=1).astype(np.float32)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize("polarization", [1, 2, 3, 4])
def test_one_product_is_read_by_its_number(tmp_path, suffix, polarization):
    header = make_header(nchans=64, nfpc=64)
    write_products(path := tmp_path / f"a{suffix}", header, cube := stokes(header))
    with open_observation(path, polarization) as observation:
        np.testing.assert_array_equal(observation.read(8, 40), cube[:, polarization - 1, 8:40])


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize("nifs", [1, 2])
def test_a_product_that_a_file_lacks_is_refused_with_what_there_is(tmp_path, suffix, nifs):
    header = make_header(nchans=64, nfpc=64)
    write_products(path := tmp_path / f"a{suffix}", header, np.stack([make_power(header)] * nifs, axis=1))
    with pytest.raises(HeaderError, match=f"polarization: expected 1 to {nifs} as nifs says, found 3"):
        verify_complete(path, polarization=3)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize("nifs", [2, 4])
def test_the_sum_of_stokes_i_and_q_is_refused_and_i_alone_is_read(tmp_path, suffix, nifs):
    header = make_header(nchans=64, nfpc=64)
    write_products(path := tmp_path / f"a{suffix}", header, cube := stokes(header)[:, :nifs])
    with open_observation(path) as observation, pytest.raises(FormatError, match=r"as Stokes Q has: .*--pol 1"):
        observation.read(0, 64)
    with open_observation(path, 1) as observation:
        np.testing.assert_array_equal(observation.read(0, 64), cube[:, 0])


@pytest.mark.parametrize(("name", "pol_type"), [("POL_TYPE", b"IQUV"), ("pol_type", "iquv"), ("pol_type", "INTEN")])
def test_total_power_is_the_product_that_the_header_names(tmp_path, name, pol_type):
    header = make_header(nchans=64, nfpc=64)
    write_products(path := tmp_path / "a.h5", header, cube := stokes(header))
    with h5py.File(path, "r+") as file:
        file["data"].attrs[name] = pol_type
    with open_observation(path) as observation:
        np.testing.assert_array_equal(observation.read(0, 64), cube[:, 0])


@pytest.mark.parametrize(("nifs", "pol_type"), [(3, ""), (4, "AABBCR"), (2, "IVQU"), (1, "AABB"), (4, "?")])
def test_products_that_are_not_known_to_make_total_power_are_refused_unless_one_is_chosen(tmp_path, nifs, pol_type):
    header = make_header(nchans=64, nfpc=64)
    cube = np.stack([make_power(header, seed) for seed in range(nifs)], axis=1)
    write_products(path := tmp_path / "a.h5", header, cube)
    if pol_type:
        with h5py.File(path, "r+") as file:
            file["data"].attrs["POL_TYPE"] = pol_type
    found = rf"found nifs {nifs}, pol_type {re.escape(repr(pol_type))}: .+--pol 1"
    with pytest.raises(HeaderError, match=rf"polarization: expected nifs 1, 2 or 4, or one of AABB, .+ {found}"):
        open_observation(path)
    with open_observation(path, 1) as observation:
        np.testing.assert_array_equal(observation.read(0, 64), cube[:, 0])


def test_masked_pixels_of_a_second_product_are_not_taken_for_stokes_q(tmp_path):
    header = make_header(nchans=64, nfpc=64)
    cube = np.stack([make_power(header)] * 2, axis=1)
    cube[:, 1, :32] = np.nan
    write_products(path := tmp_path / "a.h5", header, cube)
    with open_observation(path) as observation:
        assert np.isnan(observation.read(0, 64)[:, :32]).all()
        assert np.isfinite(observation.read(32, 64)).all()


def write_polarized(folder):
    """Write a cadence of AA, BB files with a tone in the second product only, and return the paths."""
    paths = []
    for i, header in enumerate(headers(nchans=4096, nfpc=4096)):
        power = np.random.default_rng(i).chisquare(204, (2, 16, 4096)).astype(np.float32)
        power[1, :, 2000] += 100 * (i % 2 == 0)
        paths.append(folder / f"{i}.h5")
        write_products(paths[-1], replace(header, nifs=1), np.ascontiguousarray(power.swapaxes(0, 1)))
    return paths


@pytest.mark.parametrize(("polarization", "found"), [(None, 1), (1, 0), (2, 1)])
def test_search_and_service_search_the_chosen_product_and_record_it(tmp_path, polarization, found):
    paths, settings = write_polarized(tmp_path), Search(threads=1, polarization=polarization)
    search(paths, tmp_path / "found", detect=make_detector, search=settings, tell=lambda _: None)
    report = json.loads((tmp_path / "found" / "run.json").read_text())
    assert (report["cadences"][0]["candidates"], report["settings"]["polarization"]) == (found, polarization)
    config = Config(state_dir=tmp_path, search=settings)
    record = search_files(paths, "ABACAD", lambda _: None, config, make_detector(), 1)
    assert (len(record.candidates), record.run["polarization"]) == (found, polarization)


def test_search_names_each_file_without_the_chosen_product(tmp_path):
    paths, lines = write_polarized(tmp_path), []
    settings = Search(threads=1, polarization=4)
    outcome = search(paths, tmp_path / "found", detect=make_detector, search=settings, tell=lines.append)
    assert outcome.exit_status == 1
    assert lines[0].endswith("0.h5: polarization: expected 1 to 2 as nifs says, found 4")
