"""Bad files: how each is made, the error that reading it must raise, and a part of the message."""

import os
from pathlib import Path

import h5py
import numpy as np
from factories import GBT, make_power, replace_data, set_attribute, set_keyword, write_observation

from aetherscan.errors import FormatError, HeaderError, TruncatedFileError
from aetherscan.io import sigproc

COARSE = {"chunks": (1, 1, 256)}


def _cut(path: Path, keep: float) -> None:
    write_observation(path)
    os.truncate(path, int(path.stat().st_size * keep))


def _attribute(path: Path, name: str, value: object) -> None:
    write_observation(path)
    set_attribute(path, name, value)


def _keyword(path: Path, name: str, code: str, value: float) -> None:
    write_observation(path)
    set_keyword(path, name, code, value)


def _unwritten_chunks(path: Path) -> None:
    """Write a file as blimpy leaves it when it is killed: the shape is right, the last channels read as zeros."""
    with h5py.File(path, "w") as file:
        power = file.create_dataset("data", (16, 1, 1024), "f4", chunks=(1, 1, 256))
        power[:, 0, :512] = make_power(GBT)[:, :512]
        power.attrs.update({name: getattr(GBT, name) for name in GBT.__slots__ if name not in ("ntime", "nfpc")})


def _zero_rows(path: Path) -> None:
    """Write a preallocated copy: the size is right, the last rows are still zeros."""
    power = make_power(GBT)
    power[8:] = 0
    write_observation(
        path, power=power, **({} if path.suffix == ".fil" else {"chunks": (1, 1, 256), "bitshuffle": False})
    )


def _damaged_chunk(path: Path) -> None:
    write_observation(path, **COARSE)
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info_by_coord((15, 0, 768))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)


def _shaped(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    write_observation(path)
    replace_data(path, data=np.zeros(shape, dtype))


def _foreign_filter(path: Path) -> None:
    """Write a dataset with an unregistered filter number, which HDF5 accepts if the filter is optional."""
    write_observation(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["data"].attrs)
        del file["data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 1, 1024))
        plist.set_filter(32767, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((16, 1, 1024))
        power = h5py.Dataset(h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, plist))
        power.attrs.update({name: attributes[name] for name in attributes if name != "DIMENSION_LABELS"})


BAD = {
    "random bytes.h5": (lambda p: p.write_bytes(np.random.default_rng(1).bytes(4096)), FormatError, "HDF5 or SIGPROC"),
    "a picture.fil": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), FormatError, "HDF5 or SIGPROC"),
    "empty.h5": (lambda p: p.touch(), TruncatedFileError, "expected a header"),
    "preallocated.fil": (lambda p: p.write_bytes(bytes(9999)), TruncatedFileError, "nothing is written"),
    "superblock only.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(88)), TruncatedFileError, "found"),
    "folder.h5": (lambda p: p.mkdir(), FormatError, "expected a file"),
    "pipe.fil": (os.mkfifo, FormatError, "expected a file"),
    "missing.h5": (lambda _: None, TruncatedFileError, "No such file"),
    "without data.h5": (lambda p: h5py.File(p, "w").close(), FormatError, "expected a dataset 'data', found nothing"),
    "flat data.h5": (lambda p: _shaped(p, "f4", (16, 1024)), FormatError, r"found float32 \(16, 1024\)"),
    "complex data.h5": (lambda p: _shaped(p, "c8", (16, 1, 1024)), FormatError, "expected numbers"),
    "foreign filter.h5": (_foreign_filter, FormatError, "found filter 32767"),
    "no foff.h5": (lambda p: _attribute(p, "foff", None), HeaderError, "foff: expected a value, found none"),
    "foff 0.h5": (lambda p: _attribute(p, "foff", 0.0), HeaderError, "foff: expected .* found 0.0"),
    "NaN fch1.h5": (lambda p: _attribute(p, "fch1", np.nan), HeaderError, "fch1: expected .* found nan"),
    "wordy tsamp.h5": (lambda p: _attribute(p, "tsamp", "long"), HeaderError, "tsamp: expected float, found 'long'"),
    "empty tstart.h5": (lambda p: _attribute(p, "tstart", h5py.Empty("f8")), HeaderError, "tstart: expected float"),
    "infinite nchans.h5": (
        lambda p: _attribute(p, "nchans", np.inf),
        HeaderError,
        r"nchans: expected int, found .*inf",
    ),
    "absurd nchans.h5": (lambda p: _attribute(p, "nchans", 2**60), HeaderError, "nchans: expected 1 to"),
    "other nchans.h5": (lambda p: _attribute(p, "nchans", 1023), HeaderError, "expected .*1024.* found .*1023"),
    "absurd nchans.fil": (lambda p: _keyword(p, "nchans", "<i", -5), HeaderError, "nchans: expected 1 to .* found -5"),
    "negative tsamp.fil": (lambda p: _keyword(p, "tsamp", "<d", -18.0), HeaderError, "tsamp: expected .* found -18.0"),
    "5 bits.fil": (lambda p: _keyword(p, "nbits", "<i", 5), HeaderError, "nbits: expected 1, 2, .* bits, found 5"),
    "GHz.h5": (lambda p: _attribute(p, "fch1", 1.42), HeaderError, "fch1: expected a frequency in MHz, .* found 1.42"),
    "Hz.fil": (lambda p: _keyword(p, "fch1", "<d", 1.42e9), HeaderError, "fch1: expected a frequency in MHz"),
    "unknown keyword.fil": (lambda p: p.write_bytes(sigproc.MAGIC + b"\4\0\0\0warp"), FormatError, "found 'warp'"),
    "endless header.fil": (lambda p: p.write_bytes(sigproc.MAGIC + b"\xff" * 99), FormatError, "found a length of -1"),
    "half a header.fil": (lambda p: _cut(p, 0.003), TruncatedFileError, "expected HEADER_END"),
    "truncated.h5": (lambda p: _cut(p, 0.7), TruncatedFileError, "truncated file"),
    "truncated.fil": (lambda p: _cut(p, 0.7), TruncatedFileError, "expected whole rows of 4096 bytes, found"),
    "three rows.h5": (lambda p: _shaped(p, "f4", (3, 1, 1024)), TruncatedFileError, "at least 4 rows, found 3"),
    "three rows.fil": (lambda p: _cut(p, 0.2), TruncatedFileError, "at least 4 rows, found 3"),
    "unwritten chunks.h5": (_unwritten_chunks, TruncatedFileError, "expected 64 chunks .* found 32"),
    "zero tail.h5": (_zero_rows, TruncatedFileError, "found zeros"),
    "zero tail.fil": (_zero_rows, TruncatedFileError, "found zeros"),
    "all zero.h5": (lambda p: _shaped(p, "f4", (16, 1, 1024)), TruncatedFileError, "found zeros"),
    "damaged chunk.h5": (_damaged_chunk, TruncatedFileError, "expected 1024 bytes when decoded, found"),
}
