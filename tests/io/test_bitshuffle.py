"""Chunks decoded outside HDF5 equal what HDF5 reads; unsupported files go through HDF5; damaged chunks are refused."""

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import h5py
import hdf5plugin
import numpy as np
import pytest
from factories import GBT, make_header, make_power, replace_data, write_observation
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aetherscan.errors import TruncatedFileError
from aetherscan.io import hdf5, open_observation
from benchmarks import reading

SKIPPED = 1  # the filter mask of a chunk that was stored unfiltered
PACKED = dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4"))
ONLY_HDF5 = {
    "gzip": {"compression": "gzip", "chunks": (16, 1, 64)},
    "bitshuffle with zstd": {**hdf5plugin.Bitshuffle(cname="zstd"), "chunks": (16, 1, 64)},
    "bitshuffle alone": {**hdf5plugin.Bitshuffle(cname="none"), "chunks": (16, 1, 64)},
    "bitshuffle after shuffle": {**PACKED, "shuffle": True, "chunks": (16, 1, 64)},
    "8 bit": {**PACKED, "dtype": "u1", "chunks": (1, 1, 64)},
    "float64": {**PACKED, "dtype": "f8", "chunks": (1, 1, 64)},
    "big-endian": {**PACKED, "dtype": ">f4", "chunks": (1, 1, 64)},
    "no chunks": {},
}


def write_cube(path, cube, **storage):
    """Write power (time, polarization, frequency) with the storage options of h5py."""
    header = make_header(ntime=len(cube), nifs=cube.shape[1], nchans=cube.shape[2], nfpc=None)
    write_observation(path, replace(header, nifs=1), cube[:, 0])
    replace_data(path, {"nifs": cube.shape[1]}, data=cube, **storage)


def read_into_wider_buffer(observation, start, stop):
    """Read into the middle of a wider buffer, and check that nothing outside is written."""
    ring = np.full((observation.header.ntime + 2, stop - start + 7), -1, np.float32)
    middle = ring[1:-1, 3 : 3 + stop - start]
    assert observation.read(start, stop, middle) is middle
    read = middle.copy()
    middle[:] = -1
    assert (ring == -1).all()
    return read


def store_unfiltered(power, offset, values):
    """Replace a chunk by unpacked values and mark its filter as skipped.

    HDF5 keeps the old filter mask where old and new chunk have the same size, so a chunk of another size goes first.
    """
    for raw in (bytes(values.nbytes + 1), values.tobytes()):
        power.id.write_direct_chunk(offset, raw, SKIPPED)
    assert power.id.get_chunk_info_by_coord(offset).filter_mask == SKIPPED


def forbid_hdf5_reads():
    return mock.patch.object(h5py.Dataset, "read_direct", side_effect=AssertionError)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(4, 20), st.sampled_from([1, 1, 2]), st.integers(1, 300)),
    chunks=st.tuples(st.sampled_from([1, 3, 16, 35]), st.integers(1, 2), st.integers(1, 300)),
    look=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    block=st.sampled_from([0, 8, 64]),
    packed=st.booleans(),
    skipped=st.lists(st.floats(0, 0.999), max_size=3),
)
@example(shape=(4, 1, 2), chunks=(16, 1, 2), look=(0.0, 1.0), block=0, packed=True, skipped=[0.0])  # 32 bytes each way
def test_any_part_of_any_chunking_equals_what_hdf5_reads(tmp_path, shape, chunks, look, block, packed, skipped):
    path, chunks = tmp_path / "cube.h5", tuple(map(min, chunks, shape))
    cube = np.random.default_rng(1).chisquare(204, shape).astype(np.float32)
    cube.flat[:: max(1, cube.size // 5)] = np.nan
    storage = hdf5plugin.Bitshuffle(nelems=block, cname="lz4") if packed else {}
    write_cube(path, cube, chunks=chunks, **storage)
    with h5py.File(path, "r+") as file:
        power = file["data"]
        for share in skipped if packed else ():
            chunk = power.id.get_chunk_info(int(share * power.id.get_num_chunks()))
            store_unfiltered(power, chunk.chunk_offset, np.random.default_rng(2).random(chunks, np.float32))
    with h5py.File(path) as file:
        cube = file["data"][:]
    start = int(look[0] * (shape[2] - 1))
    stop = start + 1 + int(look[1] * (shape[2] - 1 - start))
    with open_observation(path) as observation, forbid_hdf5_reads():
        np.testing.assert_array_equal(
            read_into_wider_buffer(observation, start, stop), cube[:, :2, start:stop].sum(axis=1)
        )
        np.testing.assert_array_equal(observation.read(start, stop), cube[:, :2, start:stop].sum(axis=1))


@pytest.mark.parametrize("name", ONLY_HDF5)
def test_storage_that_only_hdf5_supports_is_read_by_hdf5(tmp_path, name):
    cube = np.rint(make_power(GBT))[:, None, :]
    write_cube(tmp_path / "cube.h5", cube, **ONLY_HDF5[name])
    with open_observation(tmp_path / "cube.h5") as observation:
        np.testing.assert_array_equal(read_into_wider_buffer(observation, 3, 1001), cube[:, 0, 3:1001])
        with forbid_hdf5_reads(), pytest.raises(AssertionError):
            observation.read(0, 8)


@pytest.mark.parametrize(
    ("openmp", "filters"),
    [(True, None), (False, {}), (False, {"bshuf": "unknown"}), (False, {"bshuf": h5py.h5z.__file__})],
)
def test_without_a_single_threaded_decoder_hdf5_reads(tmp_path, monkeypatch, openmp, filters):
    filters = hdf5plugin.get_config().registered_filters if filters is None else filters
    config = SimpleNamespace(build_config=SimpleNamespace(openmp=openmp), registered_filters=filters)
    monkeypatch.setattr(hdf5, "_decoder", hdf5._decoder.__wrapped__)
    monkeypatch.setattr(hdf5plugin, "get_config", lambda: config)
    power = write_observation(tmp_path / "packed.h5")
    with open_observation(tmp_path / "packed.h5") as observation:
        assert observation._filterbank._stored is None
        np.testing.assert_array_equal(read_into_wider_buffer(observation, 0, 1024), power)


def damage(path, change):
    """Change the bytes of row 7, channels 256 to 512."""
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info_by_coord((7, 0, 256))
    raw = bytearray(path.read_bytes())
    at = slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
    raw[at] = change(bytearray(raw[at]))
    path.write_bytes(raw)


def put(code, at, value):
    def change(chunk):
        struct.pack_into(code, chunk, at, value)
        return chunk

    return change


DAMAGE = {
    "all zeros": lambda chunk: bytes(len(chunk)),
    "wrong decoded size": put(">Q", 0, 1 << 40),
    "block size not a multiple of eight": put(">I", 8, 36),
    "block size too small": put(">I", 8, 512),
    "block length beyond the chunk": put(">I", 12, 0x7FFFFFFF),
    "negative block length": put(">I", 12, 0xFFFFFF00),
    "block length too short": put(">I", 12, 8),
    "invalid LZ4 data": lambda chunk: chunk[:16] + b"\xff" * (len(chunk) - 16),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_chunk_is_refused(tmp_path, name):
    path = tmp_path / "damaged.h5"
    write_observation(path, chunks=(1, 1, 256))
    damage(path, DAMAGE[name])
    with (
        open_observation(path) as observation,
        pytest.raises(
            TruncatedFileError, match=r"damaged.h5: chunk of \d+ bytes at \d+: expected 1024 bytes when decoded"
        ),
    ):
        observation.read(0, 1024)


def test_a_chunk_with_the_default_block_size_is_read(tmp_path):
    power = write_observation(tmp_path / "default.h5", chunks=(1, 1, 256))
    damage(tmp_path / "default.h5", put(">I", 8, 0))
    with open_observation(tmp_path / "default.h5") as observation, forbid_hdf5_reads():
        np.testing.assert_array_equal(observation.read(0, 1024), power)


@pytest.mark.parametrize(("nbytes", "skipped"), [(1000, SKIPPED), (1028, SKIPPED), (9000, 0)])
def test_a_chunk_of_impossible_size_is_refused(tmp_path, nbytes, skipped):
    path = tmp_path / "resized.h5"
    write_observation(path, chunks=(1, 1, 256))
    with h5py.File(path, "r+") as file:
        file["data"].id.write_direct_chunk((7, 0, 256), bytes(nbytes), skipped)
    with (
        open_observation(path) as observation,
        pytest.raises(TruncatedFileError, match=rf"resized.h5: chunk of {nbytes} bytes at \d+: expected .*found"),
    ):
        observation.read(0, 1024)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5), block=st.booleans()
)
def test_altered_bytes_in_a_chunk_never_crash_the_reader_or_write_outside_the_buffer(tmp_path, changes, block):
    path = tmp_path / "flipped.h5"
    power = write_observation(path, chunks=(1, 1, 256))

    def change(chunk):
        for share, value in changes:
            chunk[int(share * (30 if block else len(chunk)))] = value
        return chunk

    damage(path, change)
    with open_observation(path) as observation, suppress(TruncatedFileError):
        read = read_into_wider_buffer(observation, 0, 1024)
        read[7, 256:512] = power[7, 256:512]
        np.testing.assert_array_equal(read, power)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_two_threads_read_two_files_at_once(tmp_path, suffix):
    paths = [tmp_path / f"{seed}{suffix}" for seed in range(2)]
    powers = [write_observation(path, power=make_power(GBT, seed)) for seed, path in enumerate(paths)]

    def read_often(path):
        with open_observation(path) as observation:
            return [read_into_wider_buffer(observation, 0, 1024) for _ in range(50)]

    with ThreadPoolExecutor(2) as pool:
        for power, reads in zip(powers, pool.map(read_often, paths), strict=True):
            assert all(np.array_equal(read, power) for read in reads)


@pytest.mark.parametrize("nbits", [8, 16, 32])
def test_a_fil_is_read_into_a_part_of_a_wider_buffer(tmp_path, nbits):
    power = write_observation(tmp_path / "wider.fil", make_header(nbits=nbits))
    with open_observation(tmp_path / "wider.fil") as observation:
        np.testing.assert_array_equal(read_into_wider_buffer(observation, 5, 1000), power[:, 5:1000])


def test_a_closed_file_cannot_be_read(tmp_path):
    write_observation(tmp_path / "closed.h5")
    with open_observation(tmp_path / "closed.h5") as observation:
        observation.read(0, 8)
    with pytest.raises(TruncatedFileError, match="closed file"):
        observation.read(0, 8)


def test_the_readers_of_the_benchmark_agree(capsys):
    reading.main(chans=4096, rounds=1)
    assert "ours, two threads" in capsys.readouterr().out
