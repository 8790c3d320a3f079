"""Read and write BL filterbank HDF5 files (`.h5`): dataset `data` (time, polarization, frequency).

rawspec and blimpy write this format (Lebofsky et al. 2019, arXiv:1906.07391). This is the only module that uses h5py.
Files are opened read-only and not kept locked, because HDF5's shared lock would make a writer that adds rows fail.
Instead a lock is taken for an instant to see whether the file is open for writing; then it is read with HDF5's locking
off. A file system without locks is read all the same.

Power as the recorders write it (float32, bitshuffle with LZ4 or no filter) is decoded outside HDF5, see `bitshuffle`;
HDF5 decodes any other file. Chunks are always decoded whole: reading 1/16 of a chunk costs as much as all of it.
"""

import ctypes
import fcntl
import math
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, HeaderError, TruncatedFileError
from aetherscan.header import Header
from aetherscan.io.bits import STORED
from aetherscan.io.bitshuffle import CHUNK_INDEX, VALUE_BYTES, Chunks, Decoder
from aetherscan.io.fields import FIELDS, PEEK_CHANS, columns, header_from, pol_type_of, with_rows

MAGIC = b"\x89HDF\r\n\x1a\n"
BITSHUFFLE_LZ4 = (32008, (VALUE_BYTES, 2))
"""Number of the filter, and two of its parameters: bytes per value and compression."""
MAX_CHUNK = 2**27
"""Values in a chunk; one `preadv` call cannot read a much larger packed chunk."""


class Hdf5Filterbank:
    """An open `.h5` file; `chunks` is its chunk shape, or the piece that completeness checks read if it has none.

    A pixel whose value in the dataset `mask` is not 0 was not measured: it reads as NaN. blimpy always creates a
    mask and writes nothing to it.
    """

    def __init__(self, path: Path) -> None:
        _refuse_if_being_written(path)
        with ExitStack() as stack:
            self._file = stack.enter_context(path.open("rb", buffering=0))
            file = stack.enter_context(_without_lock(path))
            self._power = _power(file)
            self._mask = _mask(file, self._power.shape)
            header = header_from({name: self._power.attrs[name] for name in FIELDS if name in self._power.attrs})
            self.header = with_rows(header, len(self._power))
            if header.nbits != (bits := 8 * self._power.dtype.itemsize):
                note = (
                    f"nbits: expected {bits} as data has ({self._power.dtype}), found {header.nbits}: data is believed"
                )
                self.header = replace(self.header, storage_note=note)
            _refuse_if_short(self._power, (self.header.ntime, self.header.nifs, self.header.nchans))
            self.close = stack.pop_all().close
        self.chunks = self._power.chunks or (1, 1, min(self.header.nchans, PEEK_CHANS))
        self.packed, self.in_rows = bool(_filters(self._power)), self._power.chunks is None
        self.pol_type = pol_type_of(self._power.attrs)

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Read one product into `out`.

        Args:
            rows: of the dataset.
            product: polarization product, from 0.
            chans: channels of the dataset.
            out: filled with power; its rows may be part of a wider buffer.
        """
        if self._stored is not None:
            self._stored.read(rows, product, chans, out)
        else:
            whole = np.require(out, requirements="C")  # HDF5 fills contiguous buffers only
            # HDF5 is 16 times slower when the buffer has another rank than the selection.
            self._power.read_direct(whole[:, None, :], (rows, slice(product, product + 1), chans))
            if whole is not out:
                out[:] = whole
        if self._mask is not None:
            out[self._mask[rows, product, chans] != 0] = np.nan

    @cached_property
    def _stored(self) -> Chunks | None:
        return _chunks(self._power, self._file)  # reads the index of the file, so only before the first read


def write_h5(
    path: Path,
    header: Header,
    blocks: Iterable[Float32[np.ndarray, "time _"]],
    *,
    chunks: tuple[int, int, int] | None = None,
    bitshuffle: bool = True,
    writer: Literal["rawspec", "blimpy"] = "rawspec",
) -> None:
    """Write total power, one block of channels at a time.

    Blocks that are whole chunks wide are compressed only once.

    Args:
        path: of the file, which is replaced if it exists.
        header: of the observation; its nifs must be 1.
        blocks: linear power in channel order, all rows of the header.
        chunks: rows, polarizations and channels of a chunk; by default those of the writer: one row of a coarse channel
            (rawspec), 16 rows of 65,536 channels (blimpy).
        bitshuffle: compress with bitshuffle and LZ4.
        writer: whose attributes and text types to write.

    Raises:
        ValueError: the blocks do not add up to the band of the header.
    """

    def text(value: str) -> Any:  # fixed-length bytes from C, variable-length UTF-8 from h5py
        return np.bytes_(value.encode()) if rawspec else value

    rawspec, shape = writer == "rawspec", (header.ntime, 1, header.nchans)
    usual = (1, 1, header.coarse_chans) if rawspec else (16, 1, 65_536)
    chunk = tuple(map(min, chunks or usual, shape))
    own = {"nfpc": header.coarse_chans, "nbeams": header.nbeams, "ibeam": header.ibeam} if rawspec else {}
    packing = hdf5plugin.Bitshuffle(nelems=0, cname="lz4") if bitshuffle else {}
    with h5py.File(path, "w") as file:
        file.attrs.update({"CLASS": text("FILTERBANK"), "VERSION": text("1.0")})
        grows = (None, *shape[1:]) if rawspec else shape
        power = file.create_dataset("data", shape, STORED[header.nbits], chunks=chunk, maxshape=grows, **packing)
        for axis, label in enumerate(("time", "feed_id", "frequency")):
            power.dims[axis].label = label
        power.attrs.update({name: getattr(header, name) for name in FIELDS if name not in ("nfpc", "nbeams", "ibeam")})
        power.attrs.update({"data_type": 1, "az_start": 0.0, "za_start": 0.0, **own})
        power.attrs["source_name"] = text(header.source_name)
        if not rawspec:
            file.create_dataset("mask", shape, "uint8", chunks=chunk, **packing)
        for start, block in columns(header, blocks):
            power[:, 0, start : start + block.shape[1]] = block


def _refuse_if_being_written(path: Path) -> None:
    with path.open("rb") as file, suppress(OSError):  # no locks on this file system
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TruncatedFileError("expected a finished file, found one that is open for writing") from error


def _without_lock(path: Path) -> h5py.File:
    """Open a file without a lock, or as this process has it open already, for instance in a `blimpy.Waterfall`."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag values don't match" not in str(error):
            raise
        return h5py.File(path, "r")


def _power(file: h5py.File) -> h5py.Dataset:
    if file.get("data", getclass=True) is not h5py.Dataset:
        raise FormatError(f"expected a dataset 'data', found {', '.join(map(repr, file)) or 'nothing'}")
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")  # other files with power are beside this one, not in the current folder
    power = h5py.Dataset(h5py.h5d.open(file.id, b"data", access))
    if power.ndim != 3 or power.dtype.kind not in "fiu":
        raise FormatError(f"data: expected numbers (time, feed, frequency), found {power.dtype} {power.shape}")
    _refuse_if_external_files_are_short(file, power)
    for number, _ in _filters(power):
        if not h5py.h5z.filter_avail(number):
            raise FormatError(f"expected a filter that is installed, found filter {number}")
    return power


def _mask(file: h5py.File, shape: tuple[int, ...]) -> h5py.Dataset | None:
    """Return the dataset `mask`; None if there is none, or nothing was ever written to it."""
    mask = file.get("mask")
    if not isinstance(mask, h5py.Dataset) or not mask.id.get_storage_size():
        return None
    if mask.shape != shape or mask.dtype.kind not in "biuf":
        raise FormatError(f"mask: expected numbers {shape} as data has, found {mask.dtype} {mask.shape}")
    return mask


def _refuse_if_external_files_are_short(file: h5py.File, power: h5py.Dataset) -> None:
    """Check the other files in which the bytes of a dataset may be: HDF5 reads what is missing as zeros."""
    plist = power.id.get_create_plist()
    for i in range(plist.get_external_count()):
        name, offset, size = plist.get_external(i)
        path = Path(file.filename).parent / os.fsdecode(name)
        there = path.stat().st_size - offset if path.is_file() else 0
        needed = min(size, power.size * power.dtype.itemsize)  # an unlimited size is the largest integer
        if there < needed:
            raise TruncatedFileError(f"expected {needed} bytes of power in {path}, found {max(there, 0)}")


def _refuse_if_short(power: h5py.Dataset, shape: tuple[int, int, int]) -> None:
    """Compare the number of stored chunks with the shape: HDF5 reads a missing chunk as zeros, without an error."""
    if power.shape != shape:
        raise HeaderError(f"(rows, nifs, nchans): expected {power.shape} as data has, found {shape}")
    if power.chunks is None:
        stored, needed, unit = power.id.get_storage_size(), power.size * power.dtype.itemsize, "bytes"
    else:
        stored, unit = power.id.get_num_chunks(), "chunks"
        needed = math.prod(-(-size // chunk) for size, chunk in zip(shape, power.chunks, strict=True))
    if stored != needed:
        raise TruncatedFileError(f"expected {needed} {unit} for {shape}, found {stored}")


def _filters(power: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """Return the number of each filter and the two parameters by which bitshuffle variants differ."""
    plist = power.id.get_create_plist()
    return [(number, values[2:5:2]) for number, _, values, _ in map(plist.get_filter, range(plist.get_nfilters()))]


def _chunks(power: h5py.Dataset, file: FileIO) -> Chunks | None:
    """Return the chunks for reading without HDF5; None where only HDF5 can decode them."""
    filters, shape = _filters(power), power.chunks
    decode = _decoder() if filters == [BITSHUFFLE_LZ4] else None
    if (filters and decode is None) or shape is None or math.prod(shape) > MAX_CHUNK:
        return None
    if power.id.get_type() != h5py.h5t.NATIVE_FLOAT or not hasattr(power.id, "chunk_iter"):  # HDF5 before 1.12.3
        return None
    index = np.zeros([-(-size // chunk) for size, chunk in zip(power.shape, shape, strict=True)], CHUNK_INDEX)

    def add_to_index(chunk: Any) -> None:
        position = tuple(start // size for start, size in zip(chunk.chunk_offset, shape, strict=True))
        index[position] = chunk.byte_offset, chunk.size, chunk.filter_mask

    power.id.chunk_iter(add_to_index)
    return Chunks(file, shape, index, decode)


@cache
def _decoder() -> Decoder | None:
    """Return the decoder of the filter that HDF5 uses; None if it cannot be loaded or starts threads.

    A filter built with OpenMP decodes each chunk on every core. The filter of the wheel is built without.
    """
    config = hdf5plugin.get_config()
    if config.build_config.openmp:
        return None
    try:
        decode = ctypes.CDLL(config.registered_filters["bshuf"]).bshuf_decompress_lz4
    except (KeyError, OSError, AttributeError):  # the filter comes from another package, or has another interface
        return None
    decode.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t
    decode.restype = ctypes.c_int64
    return decode
