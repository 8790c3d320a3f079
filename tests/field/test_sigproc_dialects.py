"""Filterbank files of other recorders and tools: their keywords, sample sizes, signs and files in several parts."""

import struct

import h5py
import numpy as np
import pytest
from factories import GBT, make_header, make_power, set_keyword, write_observation

from aetherscan.errors import HeaderError, TruncatedFileError
from aetherscan.io import open_observation, verify_complete


def with_keywords(path, keywords, samples=None, **changes):
    """Write a .fil with more keywords before HEADER_END, and other samples."""
    write_observation(path, make_header(**changes))
    head, rest = path.read_bytes().split(b"\x0a\0\0\0HEADER_END")
    for name, value in keywords:
        head += struct.pack("<i", len(name)) + name.encode() + value
    path.write_bytes(head + b"\x0a\0\0\0HEADER_END" + (rest if samples is None else samples))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.fil"


@pytest.mark.parametrize(
    ("name", "value"),
    [("nbins", b"\x80\0\0\0"), ("npuls", bytes(8)), ("signed", b"\0"), ("accel", bytes(8)), ("nsamples", bytes(4))],
)
def test_the_keywords_of_other_tools_are_read(path, name, value):
    with_keywords(path, [(name, value)])
    with open_observation(path) as observation:
        assert np.array_equal(observation.read(0, 1024), make_power(GBT))


def test_a_table_of_frequencies_gives_the_band(path):
    table = [("fchannel", struct.pack("<d", 1500.0 - 0.5 * i)) for i in range(1024)]
    with_keywords(path, [("FREQUENCY_START", b""), *table, ("FREQUENCY_END", b"")])
    header = verify_complete(path)
    assert (header.fch1, header.foff, header.nchans) == (1500.0, -0.5, 1024)


def test_a_table_of_uneven_frequencies_is_refused(path):
    table = [("fchannel", struct.pack("<d", 1500.0 - i**1.1)) for i in range(9)]
    with_keywords(path, [("FREQUENCY_START", b""), *table, ("FREQUENCY_END", b"")])
    with pytest.raises(HeaderError, match="fchannel: expected frequencies with one spacing, found 9 from"):
        verify_complete(path)


@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize(("start", "stop"), [(0, 1024), (8, 16), (3, 13), (1023, 1024)])
def test_samples_of_less_than_a_byte_are_read_from_any_channel(path, nbits, start, stop):
    samples = np.random.default_rng(nbits).integers(0, 2**nbits, (16, 1024)).astype(np.uint8)
    bits = np.unpackbits(samples[:, :, None], axis=2, bitorder="little")[:, :, :nbits]
    with_keywords(path, [], np.packbits(bits.ravel(), bitorder="little").tobytes())
    set_keyword(path, "nbits", "<i", nbits)
    with open_observation(path) as observation:
        assert np.array_equal(observation.read(start, stop), samples[:, start:stop])


def test_signed_bytes_are_power_less_128(path):
    samples = np.random.default_rng(1).integers(-128, 128, (16, 1024)).astype(np.int8)
    with_keywords(path, [("signed", b"\1")], samples.tobytes(), nbits=8)
    with open_observation(path) as observation:
        assert np.array_equal(observation.read(100, 300), samples[:, 100:300].astype(np.float32) + 128)


def test_channels_that_end_within_a_byte_are_refused(path):
    with_keywords(path, [], bytes(9 * 16), nchans=1024)
    set_keyword(path, "nbits", "<i", 1)
    set_keyword(path, "nchans", "<i", 9)
    with pytest.raises(HeaderError, match="expected whole bytes of 1-bit channels, found 9"):
        verify_complete(path)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [(20, TruncatedFileError, "expected 20 rows as nsamples says, found 16"), (8, HeaderError, "nbits, nifs, nchans")],
)
def test_rows_that_nsamples_contradicts_are_named(path, rows, error, message):
    with_keywords(path, [("nsamples", struct.pack("<i", rows))])
    with pytest.raises(error, match=message):
        verify_complete(path)


def external(tmp_path, count=1, missing=0):
    """Write an .h5 whose power is in files beside it, and return its path."""
    power, path = make_power(GBT), tmp_path / "a.h5"
    raw, size = power.tobytes(), power.nbytes // count
    for i in range(count):
        (tmp_path / f"part{i}").write_bytes(raw[i * size : (i + 1) * size - missing])
    parts = [(f"part{i}", 0, size) for i in range(count)]
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (16, 1, 1024), "f4", external=parts)
        data.attrs.update({name: getattr(GBT, name) for name in GBT.__slots__ if name not in ("ntime", "nfpc")})
        data.attrs["nfpc"] = 0
    return path


@pytest.mark.parametrize("count", [1, 2, 4])
def test_power_in_other_files_is_read_whatever_the_current_folder(tmp_path, monkeypatch, count):
    path = external(tmp_path, count)
    monkeypatch.chdir("/")
    assert verify_complete(path).nfpc is None
    with open_observation(path) as observation:
        assert np.array_equal(observation.read(0, 1024), make_power(GBT))


def test_other_files_that_are_short_or_missing_are_named(tmp_path):
    path = external(tmp_path, missing=4)
    with pytest.raises(TruncatedFileError, match=r"expected 65536 bytes of power in .*part0, found 65532"):
        verify_complete(path)
    (tmp_path / "part0").unlink()
    with pytest.raises(TruncatedFileError, match="part0, found 0"):
        verify_complete(path)
