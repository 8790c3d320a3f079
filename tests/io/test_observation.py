"""Headers and power equal what was written, and what blimpy reads, for simulated and for real files."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from factories import GBT, make_header, make_power, write_observation, write_products
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetherscan.errors import TruncatedFileError
from aetherscan.io import FileObservation, open_cadence, open_observation, verify_complete, write_fil, write_h5

DATA = Path(__file__).parents[1] / "data"
BESIDE = Path(__file__).parents[3] / "shared/data/gbt"
RAWSPEC_0002 = BESIDE / "single_coarse_guppi_59046_80036_DIAG_VOYAGER-1_0011.rawspec.0002.h5"

# The chunks of docs/formats.md; the three wide ones with coarse channels of 4,096 channels instead of 1,048,576.
CHUNKINGS = [(1, 1, 4096), (1, 1, 256), (16, 1, 256), (35, 1, 128), (5, 1, 300), None]


def read_with_blimpy(path):
    """Import blimpy late and silence it: its import warns about pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from blimpy import Waterfall

        waterfall = Waterfall(str(path))
        header, power = dict(waterfall.header), waterfall.data
        if hasattr(waterfall.container, "h5"):
            waterfall.container.h5.close()
    return header, power


def assert_equals_blimpy(path):
    theirs, power = read_with_blimpy(path)
    with open_observation(path) as observation:
        ours = observation.header
        np.testing.assert_array_equal(observation.read(0, ours.nchans), power[:, 0].astype(np.float32), strict=True)
    for name in ("fch1", "foff", "tsamp", "tstart", "nchans", "nifs", "nbits", "telescope_id", "machine_id"):
        assert getattr(ours, name) == theirs[name], name
    assert ours.source_name == theirs["source_name"]
    assert ours.src_raj == pytest.approx(theirs["src_raj"].hour, abs=1e-12)
    assert ours.src_dej == pytest.approx(theirs["src_dej"].deg, abs=1e-12)


@pytest.mark.parametrize("chunks", CHUNKINGS)
@pytest.mark.parametrize("bitshuffle", [True, False])
@pytest.mark.parametrize("writer", ["rawspec", "blimpy"])
def test_every_chunking_reads_as_blimpy_reads_it(tmp_path, chunks, bitshuffle, writer):
    path = tmp_path / "observation.h5"
    header = make_header(nchans=8192, nfpc=4096, ntime=70 if chunks and chunks[0] == 35 else 16)
    write_observation(path, header, chunks=chunks, bitshuffle=bitshuffle, writer=writer)
    assert_equals_blimpy(path)
    assert verify_complete(path).nfpc == (4096 if writer == "rawspec" else None)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize("nbits", [8, 16, 32])
@pytest.mark.parametrize("foff", [GBT.foff, -GBT.foff])
def test_every_width_and_direction_reads_as_blimpy_reads_it(tmp_path, suffix, nbits, foff):
    path = tmp_path / f"observation{suffix}"
    header = make_header(nbits=nbits, foff=foff, src_dej=-0.5)
    written = write_observation(path, header)
    assert_equals_blimpy(path)
    with open_observation(path) as observation:
        np.testing.assert_array_equal(observation.read(0, header.nchans), written)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_a_file_that_blimpy_wrote_is_read(tmp_path, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from blimpy import Waterfall

        waterfall = Waterfall(str(DATA / "gbt_cband_noise.fil"))
        (waterfall.write_to_fil if suffix == ".fil" else waterfall.write_to_hdf5)(str(tmp_path / f"copy{suffix}"))
    assert_equals_blimpy(tmp_path / f"copy{suffix}")


def test_real_noise_of_green_bank_reads_as_blimpy_reads_it():
    assert_equals_blimpy(DATA / "gbt_cband_noise.fil")
    header = verify_complete(DATA / "gbt_cband_noise.fil")
    assert (header.source_name, header.ntime, header.nchans) == ("DIAG_SGR_B2", 32, 1024)
    assert header.src_raj == pytest.approx(17 + 47 / 60 + 15 / 3600)
    assert header.src_dej == pytest.approx(-(28 + 22 / 60 + 59.16 / 3600))


@pytest.mark.skipif(not RAWSPEC_0002.exists(), reason=f"{RAWSPEC_0002.name} has no licence; it is looked for beside us")
def test_a_real_file_of_rawspec_reads_as_blimpy_reads_it():
    assert_equals_blimpy(RAWSPEC_0002)
    header = verify_complete(RAWSPEC_0002)
    assert (header.source_name, header.ntime, header.nchans, header.nfpc) == ("VOYAGER-1", 279, 1024, None)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_real_power_with_burst_and_spike_is_read_bit_for_bit(tmp_path, suffix):
    power = np.load(DATA / "ddo210_coarse469_slice.npz")["data"]
    path = tmp_path / f"ddo210{suffix}"
    write_observation(path, make_header(nchans=16384, nfpc=None), power)
    assert_equals_blimpy(path)
    with open_observation(path) as observation:
        np.testing.assert_array_equal(observation.read(0, 16384), power)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".h5", ".fil"]),
    cuts=st.lists(st.integers(1, 299), unique=True, max_size=4).map(sorted),
    look=st.tuples(st.integers(0, 299), st.integers(1, 300)),
    ntime=st.integers(4, 20),
    nbits=st.sampled_from([8, 16, 32]),
    chunk=st.integers(1, 300),
)
def test_reading_returns_what_was_written_in_any_blocks(tmp_path, suffix, cuts, look, ntime, nbits, chunk):
    header = make_header(nchans=300, ntime=ntime, nbits=nbits, nfpc=300)
    power = make_power(header)
    blocks = np.split(power, cuts, axis=1)
    path = tmp_path / f"split{suffix}"
    write_fil(path, header, blocks) if suffix == ".fil" else write_h5(path, header, blocks, chunks=(7, 1, chunk))
    start, stop = look[0], min(300, look[0] + look[1])
    with open_observation(path) as observation:
        np.testing.assert_array_equal(observation.read(start, stop), power[:, start:stop])
        again = {name: getattr(observation.header, name) for name in header.__slots__}
    lost = {"src_raj", "src_dej", "nfpc"} if suffix == ".fil" else set()
    assert {name for name, value in again.items() if value != getattr(header, name)} <= lost


@pytest.mark.parametrize("nifs", [2, 4])
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_several_polarizations_are_read_as_the_sum_of_the_first_two(tmp_path, suffix, nifs):
    path, header = tmp_path / f"polarized{suffix}", make_header(nchans=64, nfpc=64)
    cube = np.stack([make_power(header, seed) for seed in range(nifs)], axis=1)
    write_products(path, header, cube)
    buffer = np.empty((16, 32), np.float32)
    with open_observation(path) as observation:
        assert observation.read(8, 40, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, cube[:, 0, 8:40] + cube[:, 1, 8:40])


def test_source_names_are_read_from_bytes_text_and_invalid_utf_8(tmp_path):
    hostile = b"caf\xe9\n<!channel>".ljust(300, b"x")
    path = tmp_path / "named.h5"
    write_observation(path)
    for stored, read in (
        (np.bytes_(b"HIP1\0\0"), "HIP1"),
        ("HIP1_OFF", "HIP1_OFF"),
        (np.array([b"HIP1"]), "HIP1"),
        (np.bytes_(hostile), "caf\\xe9\n<!channel>" + 285 * "x"),
    ):
        with h5py.File(path, "r+") as file:
            file["data"].attrs["source_name"] = stored
        header = verify_complete(path)
        assert header.source_name == read
        assert header.identity


@pytest.mark.fault(16, promise="P1")
def test_nan_stays_nan(tmp_path):
    power = make_power(GBT)
    power[3, 17] = np.nan
    write_observation(tmp_path / "nan.h5", power=power)
    with open_observation(tmp_path / "nan.h5") as observation:
        np.testing.assert_array_equal(observation.read(0, 1024), power)


def test_a_cadence_is_opened_in_the_order_given_and_every_file_is_closed(tmp_path, monkeypatch):
    paths = [tmp_path / f"{target}.h5" for target in ("A", "B", "C")]
    for path in paths:
        write_observation(path, make_header(source_name=path.stem))
    closed, close = [], FileObservation.close
    monkeypatch.setattr(FileObservation, "close", lambda self: (closed.append(self.header.source_name), close(self)))
    with open_cadence(paths) as observations:
        assert [observation.header.source_name for observation in observations] == ["A", "B", "C"]
        assert not closed
    assert sorted(closed) == ["A", "B", "C"]
    closed.clear()
    with pytest.raises(TruncatedFileError, match="missing"), open_cadence([*paths[:2], tmp_path / "missing.h5"]):
        pass
    assert sorted(closed) == ["A", "B"]
