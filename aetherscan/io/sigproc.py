"""Read and write SIGPROC filterbank files (`.fil`): a header of length-prefixed keywords, then rows of power.

The SIGPROC manual (Lorimer) describes the format. Each row holds the channels of every product. Rows are read with
`preadv`, not through a memory map: if a mapped file is cut short, SIGBUS ends the process; a short read is an error.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, HeaderError, TruncatedFileError
from aetherscan.header import Header
from aetherscan.io.bits import STORED, unpacked, unsigned
from aetherscan.io.fields import FIELDS, PEEK_CHANS, columns, header_from, with_rows

MAGIC = b"\x0c\0\0\0HEADER_START"
MAX_HEADER = 65_536
"""Bytes; real headers are near 400."""
INT, DOUBLE, TEXT, LONG, BYTE, NOTHING = "<i", "<d", "text", "<q", "<b", "<"
KEYWORDS = {
    **{name: {int: INT, float: DOUBLE, str: TEXT}[kind] for name, kind in FIELDS.items() if name != "nfpc"},
    **dict.fromkeys(("data_type", "nbeams", "ibeam", "barycentric", "pulsarcentric", "nsamples", "nbins"), INT),
    **dict.fromkeys(("az_start", "za_start", "refdm", "period", "fchannel", "accel"), DOUBLE),
    **dict.fromkeys(("FREQUENCY_START", "FREQUENCY_END"), NOTHING),
    "npuls": LONG,
    "signed": BYTE,
    "rawdatafile": TEXT,
}
ANGLES = ("src_raj", "src_dej")
FIXED = {"data_type": 1, "nbeams": 1, "ibeam": -1, "az_start": 0.0, "za_start": 0.0}
"""Values that rawspec writes for a single-beam telescope."""


class SigprocFilterbank:
    """An open `.fil` file; `chunks` is the shape of the piece that completeness checks read."""

    packed, in_rows, pol_type = False, True, ""  # no keyword names the products

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(path.open("rb", buffering=0))
            values, self._start = parse_header(self._file.read(MAX_HEADER))
            self.header = header_from(values, packed=True)
            nbits = self.header.nbits
            self._signed = bool(values.get("signed")) and nbits == 8
            if values.get("signed") and nbits == 16:
                raise HeaderError("signed: expected samples of 8 bits, found 16")
            self._dtype = STORED.get(nbits, np.dtype("u1"))
            row_bytes, rest = divmod(self.header.nifs * self.header.nchans * nbits, 8)
            if rest or self.header.nchans * nbits % 8:
                raise HeaderError(f"nchans: expected whole bytes of {nbits}-bit channels, found {self.header.nchans}")
            ntime, rest = divmod(os.fstat(self._file.fileno()).st_size - self._start, row_bytes)
            _compare_rows(values.get("nsamples", 0), ntime)
            self.header = with_rows(self.header, ntime)
            if rest:
                raise TruncatedFileError(f"expected whole rows of {row_bytes} bytes, found {rest} after row {ntime}")
            self.close = stack.pop_all().close
        self.chunks = (1, 1, min(self.header.nchans, PEEK_CHANS))

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Read one product into `out`.

        Args:
            rows: of the file.
            product: polarization product, from 0.
            chans: channels of the file.
            out: filled with power; its rows may be part of a wider buffer.
        """
        nbits = self.header.nbits
        first, end = chans.start * nbits // 8, -(-chans.stop * nbits // 8)  # bytes of the row that hold the channels
        skip = (chans.start * nbits - first * 8) // nbits
        row_bytes = self.header.nchans * nbits // 8
        spare = np.empty((end - first) // self._dtype.itemsize, self._dtype)
        for row, power in enumerate(out, rows.start):
            line = power if self._dtype == power.dtype else spare
            at = self._start + (row * self.header.nifs + product) * row_bytes + first
            got = os.preadv(self._file.fileno(), [line.data], at)
            if got != line.nbytes:
                raise TruncatedFileError(f"row {row}: expected {line.nbytes} bytes, found {got}")
            if nbits < 8:
                power[:] = unpacked(spare, nbits)[skip : skip + len(power)]
            elif line is spare:
                power[:] = unsigned(spare) if self._signed else spare


def parse_header(head: bytes) -> tuple[dict[str, Any], int]:
    """Return the values of the header (angles packed as stored) and the offset of the first sample in bytes.

    Raises:
        FormatError: a keyword that SIGPROC does not define; the position of the next one is unknown.
        HeaderError: the frequencies of a table of channels are not evenly spaced.
        TruncatedFileError: the header is not complete.
    """
    values: dict[str, Any] = {}
    table: list[float] = []
    keyword, at = _text(head, len(MAGIC))
    while keyword != b"HEADER_END":
        name = keyword.decode("ascii", "backslashreplace")
        if name not in KEYWORDS:
            raise FormatError(f"byte {at}: expected a SIGPROC keyword, found {name[:80]!r}")
        if name == "fchannel":
            frequency, at = _number(head, at, DOUBLE)
            table.append(frequency)
        elif KEYWORDS[name] == TEXT:
            values[name], at = _text(head, at)
        elif KEYWORDS[name] != NOTHING:
            values[name], at = _number(head, at, KEYWORDS[name])
        keyword, at = _text(head, at)
    return values | _even_band(table), at


def write_fil(path: Path, header: Header, blocks: Iterable[Float32[np.ndarray, "time _"]]) -> None:
    """Write total power with the keywords of rawspec, one block of channels at a time.

    Coordinates are stored as HHMMSS.s, exact to a microarcsecond. SIGPROC has no keyword for `nfpc`, which is lost.

    Raises:
        ValueError: the blocks do not add up to the band of the header.
    """
    numbers = FIXED | {name: getattr(header, name) for name in FIELDS if name in KEYWORDS and name != "source_name"}
    numbers |= {name: _to_sexagesimal(getattr(header, name)) for name in ANGLES}
    head = MAGIC + b"".join(_prefixed(name) + struct.pack(KEYWORDS[name], value) for name, value in numbers.items())
    head += _prefixed("source_name") + _prefixed(header.source_name) + _prefixed("HEADER_END")
    with path.open("wb") as file:
        file.write(head)
        for chan, block in columns(header, blocks):
            for row, line in enumerate(block):
                file.seek(len(head) + (row * header.nchans + chan) * block.itemsize)
                file.write(line.tobytes())


def _even_band(table: Sequence[float]) -> dict[str, Any]:
    """Return fch1, foff and nchans of a table of frequencies in MHz; nothing where there is none."""
    if not table:
        return {}
    steps = np.diff(table)
    if not len(steps) or not np.allclose(steps, steps.mean(), rtol=1e-3, atol=0):
        found = f"{len(table)} from {min(table)} to {max(table)} MHz"
        raise HeaderError(f"fchannel: expected frequencies with one spacing, found {found}")
    return {"fch1": table[0], "foff": float(steps.mean()), "nchans": len(table)}


def _compare_rows(nsamples: int, ntime: int) -> None:
    """Compare the rows that nsamples promises with those that the bytes of the file make; 0 promises nothing.

    Raises:
        TruncatedFileError: rows are missing.
        HeaderError: there are 2, 4 or more times as many: nbits, nifs or nchans is wrong.
    """
    if ntime < nsamples:
        raise TruncatedFileError(f"expected {nsamples} rows as nsamples says, found {ntime}")
    if nsamples > 0 and ntime // nsamples > 1:
        raise HeaderError(f"nbits, nifs, nchans: expected values that make nsamples, {nsamples} rows, found {ntime}")


def _prefixed(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(INT, len(raw)) + raw


def _number(head: bytes, at: int, code: str) -> tuple[Any, int]:
    end = at + struct.calcsize(code)
    if end > len(head):
        raise TruncatedFileError(f"expected HEADER_END, found the end of the file at byte {len(head)}")
    return struct.unpack_from(code, head, at)[0], end


def _text(head: bytes, at: int) -> tuple[bytes, int]:
    length, at = _number(head, at, INT)
    if not 0 <= length <= MAX_HEADER - at:
        raise FormatError(
            f"byte {at}: expected text within the header's {MAX_HEADER} bytes, found a length of {length}"
        )
    return _number(head, at, f"{length}s")


def _to_sexagesimal(angle: float) -> float:
    minutes, seconds = divmod(abs(angle) * 3600, 60)
    whole, minutes = divmod(minutes, 60)
    return float(np.copysign(10_000 * whole + 100 * minutes + seconds, angle))
