"""BL filterbank HDF5 files (`.h5`), as rawspec and blimpy write them: dataset `data` (time, polarization, frequency).

The only module that speaks to h5py. Input is opened read-only and never kept locked: HDF5's own shared lock would make
a writer that comes back for more rows fail, so we ask once, for an instant, whether somebody holds the file for
writing, and then read with HDF5's locking off (a mount that has no locks is read all the same).

HDF5 decodes whole chunks, so a block of band should be whole chunks wide: 1/16 of a chunk costs as much as all of it.
"""

import fcntl
import math
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, HeaderError, TruncatedFileError
from aetherscan.io.header import FIELDS, PEEK_CHANS, STORED, columns, header_from, with_rows
from aetherscan.observation import Header

MAGIC = b"\x89HDF\r\n\x1a\n"


class Hdf5Filterbank:
    """An open `.h5`; `chunks` is its chunk, or without one the piece that a check of completeness looks at.

    A `mask` beside the power is left alone: blimpy always makes one and no writer fills it.
    """

    def __init__(self, path: Path) -> None:
        _refuse_if_being_written(path)
        with ExitStack() as stack:
            self._power = _power(stack.enter_context(h5py.File(path, "r", locking=False)))
            header = header_from({name: self._power.attrs[name] for name in FIELDS if name in self._power.attrs})
            self.header = with_rows(header, len(self._power))
            _refuse_if_short(self._power, (self.header.ntime, self.header.nifs, self.header.nchans))
            self.close = stack.pop_all().close
        self.chunks = self._power.chunks or (1, 1, min(self.header.nchans, PEEK_CHANS))

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Fill `out` with one product's power."""
        # A buffer of the selection's own rank is copied into directly; any other rank is 16 times slower.
        self._power.read_direct(out[:, None, :], (rows, slice(product, product + 1), chans))


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
    filters = power.id.get_create_plist()
    for number, *_ in map(filters.get_filter, range(filters.get_nfilters())):
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
