"""Open BL HDF5 (`.h5`) and SIGPROC (`.fil`) files with one function, `open_observation`.

The first bytes of a file decide its format; name and suffix do not matter. An observation gives total power: linear,
float32, axes (time, freq), channels in the order of the file. **Several polarizations become total power**
(`aetherscan.io.products`), unless the caller chooses one product by its number. The formats are described by Lebofsky
et al. 2019 (arXiv:1906.07391) and in the SIGPROC manual (Lorimer).

Files can be opened while they are still being written, and a hole in either format reads as zeros without an error.
Therefore `open_observation` checks that everything the header promises is stored, and every read checks that the size,
modification time and inode of the file are those found at opening. An error that time may resolve is a
`TruncatedFileError`: try again later. Errors of h5py that do not name a cause are also reported as such. An error that
time cannot resolve is a `FormatError` or a `HeaderError`. NaN stays NaN; the bandpass normalization masks it.
"""

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, HeaderError, ReadError, TruncatedFileError
from aetherscan.header import Header
from aetherscan.io import hdf5, sigproc
from aetherscan.io.fields import PEEK_CHANS, printable
from aetherscan.io.hdf5 import Hdf5Filterbank
from aetherscan.io.products import add_product, chosen_products
from aetherscan.io.sigproc import SigprocFilterbank

SUFFIXES = (".h5", ".hdf5", ".hdf", ".fil")
FORMATS: dict[bytes, type[Hdf5Filterbank | SigprocFilterbank]] = {
    hdf5.MAGIC: Hdf5Filterbank,
    sigproc.MAGIC: SigprocFilterbank,
}
PAGE_BYTES = 4096
LIBRARY_ERRORS = (OSError, LookupError, RuntimeError, TypeError, ValueError, OverflowError)
"""Exceptions that h5py raises on damaged files."""


class Observation(AbstractContextManager["Observation"], ABC):
    """A header and the power that belongs to it, read block by block. Not safe for use by two threads at once.

    A subclass sets `header`, and says in `chunk_channels` and `_fill` how its power is stored and read.
    """

    header: Header

    @property
    @abstractmethod
    def chunk_channels(self) -> int:
        """Channels that are decoded together. Reads are fastest when they cover whole chunks."""

    def read(
        self,
        start: int,
        stop: int,
        out: Float32[np.ndarray, "time freq"] | None = None,
        rows: tuple[int, int] | None = None,
    ) -> Float32[np.ndarray, "time freq"]:
        """Read channels `start` to `stop` (exclusive) of every row, or of `rows`, into `out` if given.

        Passing `out` is 3-4 times faster than allocating a large array.

        Args:
            start: first channel.
            stop: channel after the last.
            out: filled if given, else a new array is; its rows may be part of a wider buffer.
            rows: first row, and one past the last; None: all.

        Raises:
            ValueError: the observation has no such channels or rows, or `out` has another shape, type or stride.
            TruncatedFileError: the file was cut, replaced or moved after it was opened. Discard what was read.
            FormatError: the second product of a file, which is to be added, is not power.
        """
        nchans, ntime = self.header.nchans, self.header.ntime
        first, last = rows or (0, ntime)
        shape = (last - first, stop - start)
        if not 0 <= start < stop <= nchans:
            raise ValueError(f"channels: expected 0 <= start < stop <= {nchans}, found {start} to {stop}")
        if not 0 <= first < last <= ntime:
            raise ValueError(f"rows: expected 0 <= first < last <= {ntime}, found {first} to {last}")
        power = np.empty(shape, np.float32) if out is None else out
        whole_rows = power.shape == shape and power.strides[1] == power.itemsize and power.flags.behaved
        if power.dtype != np.float32 or not whole_rows:
            found = f"{power.dtype} {power.shape}, strides {power.strides}"
            raise ValueError(f"out: expected contiguous rows of float32 {shape} that can be written, found {found}")
        self._fill(power, slice(first, last), slice(start, stop))
        return power

    @abstractmethod
    def _fill(self, power: Float32[np.ndarray, "time freq"], rows: slice, chans: slice) -> None:
        """Fill `power` with these rows and channels."""

    def close(self) -> None:
        """Close the file, if there is one."""

    def __exit__(self, *_: object) -> None:
        self.close()


class FileObservation(Observation):
    """An observation in an open file.

    Two threads can read two observations at once: while `.fil` files and the `.h5` files of the recorders are decoded,
    neither Python's lock nor HDF5's is held.
    """

    def __init__(self, path: Path, polarization: int | None = None) -> None:
        self.path = path
        with _read_errors(path):
            self._stat = _stat(path)
            self._filterbank = _filterbank_class(path)(path)
            self.header: Header = self._filterbank.header
            try:
                self._products = chosen_products(self.header.nifs, self._filterbank.pol_type, polarization)
            except HeaderError:
                self.close()
                raise
        self._spare: Float32[np.ndarray, "time freq"] | None = None

    @property
    def chunk_channels(self) -> int:
        """Channels of one chunk of the file."""
        return int(self._filterbank.chunks[2])

    def _fill(self, power: Float32[np.ndarray, "time freq"], rows: slice, chans: slice) -> None:
        with self._unchanged():
            self._filterbank.read(rows, self._products[0], chans, power)
            for product in self._products[1:]:
                if self._spare is None or self._spare.shape != power.shape:
                    self._spare = np.empty(power.shape, np.float32)
                self._filterbank.read(rows, product, chans, self._spare)
                add_product(power, self._spare, product)

    def verify(self) -> None:
        """Decode the first chunk, the last, and one chosen by the identity of the observation, and look at the end.

        Raises:
            TruncatedFileError: a chunk does not decode, or the end of the file was not written.
        """
        shape, chunks = (self.header.ntime, self.header.nifs, self.header.nchans), self._filterbank.chunks
        last = np.array([(size - 1) // chunk for size, chunk in zip(shape, chunks, strict=True)])
        chosen = np.random.default_rng(int(self.header.identity, 16)).integers(0, last, endpoint=True)
        for index in (np.zeros_like(last), last, chosen):
            first, stop = index * chunks, np.minimum((index + 1) * chunks, shape)
            rows, products, chans = map(slice, first.tolist(), stop.tolist())
            power = np.empty((rows.stop - rows.start, chans.stop - chans.start), np.float32)
            with self._unchanged():
                self._filterbank.read(rows, products.start, chans, power)
        with self._unchanged():
            self._refuse_if_the_end_is_empty()

    def _refuse_if_the_end_is_empty(self) -> None:
        """Recognize a file that has its full size and not all its power: what was not written reads as zeros.

        Zeros in part of a row, or in one row, are no sign of it: channels are masked and rows are dropped with zeros.
        The end of a file that was never written is a hole, unless its file system has none. A copy that keeps no zeros
        has a hole there, too, where the last channels are masked; then they are zeros in the row before as well. A
        compressed file has no holes: a writer may have compressed the zeros of rows that it has yet to fill.
        """
        last = self.header.ntime - 1
        empty = not self._has_power(last)
        if empty and not self._has_power(last - 1):
            raise TruncatedFileError("expected power in the last two rows, found zeros")
        if self._filterbank.packed or not _ends_in_a_hole(self.path):
            return
        masked = self._filterbank.in_rows and not self._has_power(last - 1, self.header.nchans - PEEK_CHANS)
        if empty or not masked:
            raise TruncatedFileError("expected power to the end of the file, found a hole: that part was never written")

    def _has_power(self, row: int, start: int = 0) -> bool:
        """Return whether any power of a row from channel `start` on is not zero."""
        nchans, width = self.header.nchans, self._filterbank.chunks[2]
        power = np.empty((1, width), np.float32)
        for product in range(self.header.nifs):
            for first in range(max(0, start), nchans, width):
                piece = power[:, : min(width, nchans - first)]
                self._filterbank.read(slice(row, row + 1), product, slice(first, first + piece.shape[1]), piece)
                if piece.any():
                    return True
        return False

    def close(self) -> None:
        """Close the file."""
        self._filterbank.close()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raise TruncatedFileError if the file is not what it was when it was opened."""
        with _read_errors(self.path):
            yield
            if (now := _stat(self.path)) != self._stat:
                raise TruncatedFileError(f"expected (size, mtime_ns, inode) {self._stat} after reading, found {now}")


def open_observation(path: str | os.PathLike[str], polarization: int | None = None) -> FileObservation:
    """Open a file for reading, whatever its name; use it as a context manager.

    Args:
        path: of the file.
        polarization: product to read, from 1; None: total power, as `aetherscan.io.products` says.

    Raises:
        TruncatedFileError: the file is incomplete, open for writing, or cannot be read now. Try again later.
        FormatError: the file is not a filterbank.
        HeaderError: a header value is missing or impossible, there is no such product, or it is not known which
            products make total power.
    """
    return FileObservation(Path(path), polarization)


@contextmanager
def open_cadence(
    paths: Iterable[str | os.PathLike[str]], polarization: int | None = None
) -> Iterator[list[Observation]]:
    """Open the observations of a cadence in the order of `paths`, and close them all at the end.

    Args:
        paths: of the files.
        polarization: as in `open_observation`.

    Raises:
        ReadError: as `open_observation`; the files opened before it are closed.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(open_observation(path, polarization)) for path in paths]


def verify_complete(path: str | os.PathLike[str], *, decode: bool = True, polarization: int | None = None) -> Header:
    """Return the header of a file that passes every completeness check of `docs/formats.md`.

    One look cannot tell whether a file still grows: the caller looks twice. With `decode=False` no power is read.
    A file without the product `polarization` is refused.

    Raises:
        ReadError: as `open_observation`.
    """
    with closing(open_observation(path, polarization)) as observation:
        if decode:
            observation.verify()
        return observation.header


def _filterbank_class(path: Path) -> type[Hdf5Filterbank | SigprocFilterbank]:
    with path.open("rb") as file:
        head = file.read(max(map(len, FORMATS)))
    for magic, filterbank in FORMATS.items():
        if head.startswith(magic):
            return filterbank
    if not any(head) or any(magic.startswith(head) for magic in FORMATS):
        raise TruncatedFileError(f"expected a header, found {head!r}: nothing is written there yet")
    raise FormatError(f"expected the first bytes of HDF5 or SIGPROC, found {head!r}")


def _ends_in_a_hole(path: Path) -> bool:
    """Return whether the last page of a file was never written, as far as its file system knows."""
    with path.open("rb", buffering=0) as file:
        try:
            file.seek(max(0, path.stat().st_size - PAGE_BYTES), os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO
    return False


def _stat(path: Path) -> tuple[int, int, int]:
    """Return size, modification time (ns) and inode, by which a change of the file is recognized."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"expected a file, found {stat.filemode(found.st_mode)}")
    return found.st_size, found.st_mtime_ns, found.st_ino


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Raise every error as a ReadError that names the file."""
    try:
        yield
    except ReadError as error:
        raise type(error)(f"{printable(str(path))}: {error}") from error
    except PermissionError as error:
        raise ReadError(f"{printable(str(path))}: expected a file that can be read, found {error}") from error
    except LIBRARY_ERRORS as error:
        raise TruncatedFileError(f"{printable(str(path))}: expected to read it, found {error}") from error
