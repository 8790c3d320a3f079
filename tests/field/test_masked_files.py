"""A file with masked channels or dropped rows is complete; a file that is not all there waits."""

import os

import h5py
import numpy as np
import pytest
from factories import GBT, make_header, make_power, replace_data, write_observation

from aetherscan.errors import FormatError, TruncatedFileError
from aetherscan.io import open_observation, verify_complete

LAYOUTS = {
    "rawspec.h5": {"chunks": (1, 1, 256)},
    "blimpy.h5": {"chunks": (16, 1, 512), "writer": "blimpy"},
    "unpacked.h5": {"chunks": (1, 1, 256), "bitshuffle": False},
    "sigproc.fil": {},
}
MASKS = {
    "the upper edge of the band": np.s_[:, -300:],
    "the lower edge of the band": np.s_[:, :300],
    "the middle of the band": np.s_[:, 400:700],
    "all but a few channels": np.s_[:, 10:],
    "the last row": np.s_[-1],
    "the first row": np.s_[0],
    "rows in the middle": np.s_[5:8],
    "the end of the last row": np.s_[-1, -500:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask", MASKS)
def test_a_file_with_zeros_for_what_was_not_measured_is_complete(tmp_path, layout, mask):
    power = make_power(GBT)
    power[MASKS[mask]] = 0
    write_observation(tmp_path / layout, power=power, **LAYOUTS[layout])
    assert verify_complete(tmp_path / layout).ntime == 16


def test_a_copy_that_leaves_out_the_zeros_of_a_masked_edge_is_complete(tmp_path):
    header = make_header(nchans=8192)
    power = make_power(header)
    power[:, -6000:] = 0
    path = tmp_path / "sparse.fil"
    write_observation(path, header, power)
    written, size = path.stat().st_size - 5500 * 4, path.stat().st_size
    os.truncate(path, written)
    os.truncate(path, size)
    assert verify_complete(path).nchans == 8192


@pytest.mark.parametrize("layout", ["unpacked.h5", "sigproc.fil"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_copy_whose_end_was_never_written_waits(tmp_path, layout, share):
    header = make_header(nchans=16384)
    path = tmp_path / layout
    write_observation(path, header, **LAYOUTS[layout])
    size = path.stat().st_size
    os.truncate(path, int(share * size))
    os.truncate(path, size)
    with pytest.raises(TruncatedFileError, match="expected"):
        verify_complete(path)


@pytest.mark.parametrize("layout", ["contiguous.h5", *LAYOUTS])
@pytest.mark.parametrize("rows", [2, 9, 16])
def test_a_file_whose_last_rows_are_zeros_waits_whether_or_not_it_is_compressed(tmp_path, layout, rows):
    power = make_power(GBT)
    power[-rows:] = 0
    write_observation(tmp_path / layout, power=power, **LAYOUTS.get(layout, {}))
    if layout == "contiguous.h5":
        replace_data(tmp_path / layout, data=power[:, None])
    with pytest.raises(TruncatedFileError, match="last two rows, found zeros"):
        verify_complete(tmp_path / layout)


def test_a_file_whose_last_chunks_were_never_written_waits(tmp_path):
    with h5py.File(tmp_path / "killed.h5", "w") as file:
        power = file.create_dataset("data", (16, 1, 1024), "f4", chunks=(1, 1, 256))
        power[:15, 0] = make_power(GBT)[:15]
        power.attrs.update({name: getattr(GBT, name) for name in GBT.__slots__ if name not in ("ntime", "nfpc")})
    with pytest.raises(TruncatedFileError, match=r"expected 64 chunks .* found 60"):
        verify_complete(tmp_path / "killed.h5")


def with_mask(path, mask, **layout):
    power = write_observation(path, **layout)
    with h5py.File(path, "r+") as file:
        if "mask" in file:
            del file["mask"]
        file["mask"] = mask
    return power


@pytest.mark.parametrize("value", [1, 255, True, 2.5])
@pytest.mark.parametrize("layout", ["rawspec.h5", "blimpy.h5", "unpacked.h5"])
def test_pixels_of_the_mask_dataset_are_not_measured(tmp_path, layout, value):
    mask = np.zeros((16, 1, 1024), np.asarray(value).dtype)
    mask[3:5, 0, 100:200] = value
    power = with_mask(tmp_path / layout, mask, **LAYOUTS[layout])
    with open_observation(tmp_path / layout) as observation:
        found = observation.read(50, 300)
    assert (np.isnan(found) == (mask[:, 0, 50:300] != 0)).all()
    np.testing.assert_array_equal(found[:3], power[:3, 50:300])


@pytest.mark.parametrize("shape", [(1024,), (16, 1024), (16, 1, 1023), (15, 1, 1024)])
def test_a_mask_of_another_shape_is_refused_in_one_line(tmp_path, shape):
    with_mask(tmp_path / "odd.h5", np.zeros(shape, "u1"))
    with pytest.raises(
        FormatError, match=r"mask: expected numbers \(16, 1, 1024\) as data has, found uint8 "
    ) as raised:
        open_observation(tmp_path / "odd.h5")
    assert "\n" not in str(raised.value)


def test_an_unwritten_mask_costs_nothing_and_hides_nothing(tmp_path):
    write_observation(tmp_path / "blimpy.h5", writer="blimpy")
    with open_observation(tmp_path / "blimpy.h5") as observation:
        assert np.isfinite(observation.read(0, 1024)).all()
