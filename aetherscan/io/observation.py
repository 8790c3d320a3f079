"""Read and write observations: BL HDF5 (`.h5`) and SIGPROC (`.fil`) behind one `open_observation`.

What a file is, its first bytes say; names and suffixes are hints. What it holds is power, linear, float32, axes
(time, freq), in the file's own channel order. **Several polarizations become total power**: with nifs 2 or 4 it is the
sum of the first two products, because rawspec writes AA, BB, Re(AB*), Im(AB*). A header cannot say that a file holds
Stokes I, Q, U, V instead (rawspec's `-p -4`); read as above such a file gives I + Q, twice one polarization.

Files come while they are still being written, and a hole in either format reads as silent zeros. So an observation
remembers the size, time of change and inode that the file had, counts what should be stored when it opens, and looks
again after every read. Anything that may yet mend itself is a `TruncatedFileError`, look again later: it is also what a
library's error becomes when it does not say more. What no waiting mends is a `FormatError` or a `HeaderError`.
NaN stays NaN: equalization knows what to do with it.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, ReadError, TruncatedFileError
from aetherscan.header import Header
from aetherscan.io import hdf5, sigproc
from aetherscan.io.fields import PEEK_CHANS, printable
from aetherscan.io.hdf5 import Hdf5Filterbank
from aetherscan.io.sigproc import SigprocFilterbank

SUFFIXES = (".h5", ".hdf5", ".fil")
FORMATS: dict[bytes, type[Hdf5Filterbank | SigprocFilterbank]] = {
    hdf5.MAGIC: Hdf5Filterbank,
    sigproc.MAGIC: SigprocFilterbank,
}
LIBRARY_ERRORS = (OSError, LookupError, RuntimeError, TypeError, ValueError, OverflowError)
"""All that h5py has been seen to raise on bad files."""


class Observation(AbstractContextManager["Observation"]):
    """One open file: its header, and any block of its band as total power; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _placed(path):
            self._stamp = _stamp(path)
            self._filterbank = _format(path)(path)
        self.header: Header = self._filterbank.header
        self._second: Float32[np.ndarray, "time freq"] | None = None

    @property
    def chunk_channels(self) -> int:
        """Channels that are decoded together: a block of band should be whole ones wide."""
        return int(self._filterbank.chunks[2])

    def read(
        self, start: int, stop: int, out: Float32[np.ndarray, "time freq"] | None = None
    ) -> Float32[np.ndarray, "time freq"]:
        """Read channels `start` to `stop` of every row, into `out` if given (a fresh large buffer is 3-4 times slower).

        The rows of `out` may lie apart, as in a part of a wider buffer. Two observations may be read by two threads at
        once: `.fil`, and `.h5` as the recorders write it, hold neither Python's lock nor HDF5's while they decode.

        Raises:
            TruncatedFileError: the file was cut short, replaced or moved since it was opened: what was read is void.
            ValueError: a channel that the file does not have, or a buffer of another shape.
        """
        header, shape = self.header, (self.header.ntime, stop - start)
        if not 0 <= start < stop <= header.nchans:
            raise ValueError(f"channels: expected 0 <= start < stop <= {header.nchans}, found {start} to {stop}")
        power = np.empty(shape, np.float32) if out is None else out
        whole_rows = power.shape == shape and power.strides[1] == power.itemsize and power.flags.behaved
        if power.dtype != np.float32 or not whole_rows:
            found = f"{power.dtype} {power.shape}, strides {power.strides}"
            raise ValueError(f"out: expected contiguous rows of float32 {shape} to write to, found {found}")
        rows, chans = slice(0, header.ntime), slice(start, stop)
        with self._unchanged():
            self._filterbank.read(rows, 0, chans, power)
            if header.nifs > 1:
                if self._second is None or self._second.shape != shape:
                    self._second = np.empty(shape, np.float32)
                self._filterbank.read(rows, 1, chans, self._second)
                power += self._second
        return power

    def verify(self) -> None:
        """Decode the first, the last and one other chunk, the same one whatever the file is called.

        Raises:
            TruncatedFileError: one does not decode, or ends in zeros.
        """
        shape, chunks = (self.header.ntime, self.header.nifs, self.header.nchans), self._filterbank.chunks
        last = np.array([(size - 1) // chunk for size, chunk in zip(shape, chunks, strict=True)])
        other = np.random.default_rng(int(self.header.identity, 16)).integers(0, last, endpoint=True)
        for index in (np.zeros_like(last), last, other):
            first, stop = index * chunks, np.minimum((index + 1) * chunks, shape)
            rows, products, chans = map(slice, first.tolist(), stop.tolist())
            power = np.empty((rows.stop - rows.start, chans.stop - chans.start), np.float32)
            with self._unchanged():
                self._filterbank.read(rows, products.start, chans, power)
                if not power[-1, -PEEK_CHANS:].any():
                    raise TruncatedFileError(f"expected power before (row, product, channel) {stop}, found zeros")

    def close(self) -> None:
        """Let go of the file."""
        self._filterbank.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        with _placed(self.path):
            yield
            if (now := _stamp(self.path)) != self._stamp:
                raise TruncatedFileError(f"expected (size, mtime_ns, inode) {self._stamp} after reading, found {now}")


class Absent(Observation):
    """Stands for an observation that a cadence lacks: nothing but NaN, in which nothing is ever found."""

    def __init__(self, header: Header) -> None:
        self.header = header

    @property
    def chunk_channels(self) -> int:
        """No chunks: any block will do."""
        return 1

    def read(
        self, start: int, stop: int, out: Float32[np.ndarray, "time freq"] | None = None
    ) -> Float32[np.ndarray, "time freq"]:
        """Fill `out` with NaN, as an observation that is there does with power."""
        power = np.empty((self.header.ntime, stop - start), np.float32) if out is None else out
        power.fill(np.nan)
        return power

    def close(self) -> None:
        """Nothing is open."""


def open_observation(path: str | os.PathLike[str]) -> Observation:
    """Open a file for reading, whatever it is called; a context manager.

    Raises:
        TruncatedFileError: not all of it is there, somebody is writing it, or it cannot be read now: look again later.
        FormatError: not a filterbank.
        HeaderError: a header value is missing or impossible.
    """
    return Observation(Path(path))


@contextmanager
def open_cadence(paths: Iterable[str | os.PathLike[str]]) -> Iterator[list[Observation]]:
    """Open the observations of a cadence in the order of `paths`, and close them all at the end.

    Raises:
        ReadError: as `open_observation`; the files opened before it are closed.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(open_observation(path)) for path in paths]


def verify_complete(path: str | os.PathLike[str], *, decode: bool = True) -> Header:
    """Return the header of a file that is all there, as far as one look can tell; raises as `open_observation` does.

    The rules are in `docs/formats.md`; whether the file has settled takes a second look, which is the caller's.
    Without `decode` none of its power is read.
    """
    with open_observation(path) as observation:
        if decode:
            observation.verify()
        return observation.header


def _format(path: Path) -> type[Hdf5Filterbank | SigprocFilterbank]:
    with path.open("rb") as file:
        found = file.read(max(map(len, FORMATS)))
    for magic, filterbank in FORMATS.items():
        if found.startswith(magic):
            return filterbank
    if not any(found) or any(magic.startswith(found) for magic in FORMATS):
        raise TruncatedFileError(f"expected a header, found {found!r}: nothing is written there yet")
    raise FormatError(f"expected a file that starts as HDF5 or SIGPROC do, found {found!r}")


def _stamp(path: Path) -> tuple[int, int, int]:
    now = path.stat()
    if not stat.S_ISREG(now.st_mode):
        raise FormatError(f"expected a file, found {stat.filemode(now.st_mode)}")
    return now.st_size, now.st_mtime_ns, now.st_ino


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """Give whatever goes wrong with a file its place in the error tree, and the file's name."""
    try:
        yield
    except ReadError as error:
        raise type(error)(f"{printable(str(path))}: {error}") from error
    except LIBRARY_ERRORS as error:
        raise TruncatedFileError(f"{printable(str(path))}: expected to read it, found {error}") from error
