"""BL filterbank HDF5 files (`.h5`), as rawspec and blimpy write them: dataset `data` (time, polarization, frequency).

The only module that speaks to h5py. Input is opened read-only and never kept locked: HDF5's own shared lock would make
a writer that comes back for more rows fail, so we ask once, for an instant, whether somebody holds the file for
writing, and then read with HDF5's locking off (a mount that has no locks is read all the same).

Power as the recorders write it (float32, bitshuffle with LZ4 or no filter) is decoded outside HDF5, see `chunks`; any
other file is left to HDF5. Either way chunks are decoded whole, so a block of band should be whole chunks wide: 1/16 of
a chunk costs as much as all of it.
"""

import ctypes
import fcntl
import math
from collections.abc import Iterable
from contextlib import ExitStack, suppress
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
from aetherscan.io.bitshuffle import PLACE, VALUE_BYTES, Chunks, Decoder
from aetherscan.io.fields import FIELDS, PEEK_CHANS, STORED, columns, header_from, with_rows

MAGIC = b"\x89HDF\r\n\x1a\n"
BITSHUFFLE_LZ4 = (32008, (VALUE_BYTES, 2))
"""The filter, and of its parameters the size of a value and the compression."""
MAX_CHUNK = 2**27
"""Values; no one `preadv` reads a packed chunk that is much larger."""


class Hdf5Filterbank:
    """An open `.h5`; `chunks` is its chunk, or without one the piece that a check of completeness looks at.

    A `mask` beside the power is left alone: blimpy always makes one and no writer fills it.
    """

    def __init__(self, path: Path) -> None:
        _refuse_if_being_written(path)
        with ExitStack() as stack:
            self._file = stack.enter_context(path.open("rb", buffering=0))
            self._power = _power(stack.enter_context(h5py.File(path, "r", locking=False)))
            header = header_from({name: self._power.attrs[name] for name in FIELDS if name in self._power.attrs})
            self.header = with_rows(header, len(self._power))
            _refuse_if_short(self._power, (self.header.ntime, self.header.nifs, self.header.nchans))
            self.close = stack.pop_all().close
        self.chunks = self._power.chunks or (1, 1, min(self.header.nchans, PEEK_CHANS))

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Fill `out`, whose rows may lie apart, with one product's power."""
        if self._stored is not None:
            self._stored.read(rows, product, chans, out)
            return
        whole = np.require(out, requirements="C")  # HDF5 fills no rows that lie apart
        # A buffer of the selection's own rank is copied into directly; any other rank is 16 times slower.
        self._power.read_direct(whole[:, None, :], (rows, slice(product, product + 1), chans))
        if whole is not out:
            out[:] = whole

    @cached_property
    def _stored(self) -> Chunks | None:
        return _chunks(self._power, self._file)  # a walk through the file's index, so not before it is read


def write_h5(
    path: Path,
    header: Header,
    blocks: Iterable[Float32[np.ndarray, "time _"]],
    *,
    chunks: tuple[int, int, int] | None = None,
    bitshuffle: bool = True,
    writer: Literal["rawspec", "blimpy"] = "rawspec",
) -> None:
    """Write total power block of band after block, never holding more than one, with the attributes of either writer.

    Without `chunks` they are the writer's: a row of a coarse channel (rawspec), 16 rows of 65,536 channels (blimpy).
    Blocks that are whole chunks wide are compressed once.

    Raises:
        ValueError: blocks that do not make up the header's band.
    """

    def text(value: str) -> Any:  # fixed-length bytes from C, variable-length UTF-8 from h5py
        return np.bytes_(value.encode()) if rawspec else value

    rawspec, shape = writer == "rawspec", (header.ntime, 1, header.nchans)
    usual = (1, 1, header.coarse_chans) if rawspec else (16, 1, 65_536)
    chunk = tuple(map(min, chunks or usual, shape))
    own = {"nfpc": header.coarse_chans, "nbeams": 1, "ibeam": -1} if rawspec else {}
    packing = hdf5plugin.Bitshuffle(nelems=0, cname="lz4") if bitshuffle else {}
    with h5py.File(path, "w") as file:
        file.attrs.update({"CLASS": text("FILTERBANK"), "VERSION": text("1.0")})
        grows = (None, *shape[1:]) if rawspec else shape
        power = file.create_dataset("data", shape, STORED[header.nbits], chunks=chunk, maxshape=grows, **packing)
        for axis, label in enumerate(("time", "feed_id", "frequency")):
            power.dims[axis].label = label
        power.attrs.update({name: getattr(header, name) for name in FIELDS if name != "nfpc"})
        power.attrs.update({"data_type": 1, "az_start": 0.0, "za_start": 0.0, **own})
        power.attrs["source_name"] = text(header.source_name)
        if not rawspec:
            file.create_dataset("mask", shape, "uint8", chunks=chunk, **packing)
        for start, block in columns(header, blocks):
            power[:, 0, start : start + block.shape[1]] = block


def _refuse_if_being_written(path: Path) -> None:
    with path.open("rb") as file, suppress(OSError):  # no locks on this mount: nothing to be learnt
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TruncatedFileError("expected a finished file, found one that is open for writing") from error


def _power(file: h5py.File) -> h5py.Dataset:
    power = file.get("data")
    if not isinstance(power, h5py.Dataset):
        raise FormatError(f"expected a dataset 'data', found {', '.join(map(repr, file)) or 'nothing'}")
    if power.ndim != 3 or power.dtype.kind not in "fiu":
        raise FormatError(f"data: expected numbers (time, feed, frequency), found {power.dtype} {power.shape}")
    for number, _ in _filters(power):
        if not h5py.h5z.filter_avail(number):
            raise FormatError(f"expected a filter that is installed, found filter {number}")
    return power


def _refuse_if_short(power: h5py.Dataset, shape: tuple[int, int, int]) -> None:
    """HDF5 reads a chunk that was never stored as zeros, without a word; so count them."""
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
    """Return each filter's number and those of its parameters that tell one bitshuffle from another."""
    plist = power.id.get_create_plist()
    return [(number, values[2:5:2]) for number, _, values, _ in map(plist.get_filter, range(plist.get_nfilters()))]


def _chunks(power: h5py.Dataset, file: FileIO) -> Chunks | None:
    """Return the chunks, to be read without HDF5; None where only HDF5 knows how."""
    filters, shape = _filters(power), power.chunks
    decode = _decoder() if filters == [BITSHUFFLE_LZ4] else None
    if (filters and decode is None) or shape is None or math.prod(shape) > MAX_CHUNK:
        return None
    if power.id.get_type() != h5py.h5t.NATIVE_FLOAT or not hasattr(power.id, "chunk_iter"):  # HDF5 before 1.12.3
        return None
    places = np.zeros([-(-size // chunk) for size, chunk in zip(power.shape, shape, strict=True)], PLACE)

    def note(chunk: Any) -> None:
        index = tuple(start // size for start, size in zip(chunk.chunk_offset, shape, strict=True))
        places[index] = chunk.byte_offset, chunk.size, chunk.filter_mask

    power.id.chunk_iter(note)
    return Chunks(file, shape, places, decode)


@cache
def _decoder() -> Decoder | None:
    """Return the decoder inside the filter that HDF5 uses; None if it cannot be had, or would start threads of its own.

    A filter built with OpenMP sets every core to every chunk; the wheel's is built without.
    """
    config = hdf5plugin.get_config()
    if config.build_config.openmp:
        return None
    try:
        decode = ctypes.CDLL(config.registered_filters["bshuf"]).bshuf_decompress_lz4
    except (KeyError, OSError, AttributeError):  # registered by somebody else, or of another make
        return None
    decode.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t
    decode.restype = ctypes.c_int64
    return decode
