"""Convert raw header values to a `Header`, and blocks of power to the number type of a file, for both formats.

A raw value may be a Python number, a numpy scalar, an array with one element, `str` or `bytes`: rawspec, blimpy and
h5py differ. These functions do not know the path of the file; the caller adds it to error messages.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

from aetherscan.errors import HeaderError, TruncatedFileError
from aetherscan.header import MIN_ROWS, Header
from aetherscan.io.bits import STORED
from aetherscan.io.coordinates import coordinates

DERIVED = ("ntime", "coordinate_note", "storage_note")
FIELDS: dict[str, Any] = {field.name: field.type for field in fields(Header) if field.name not in DERIVED} | {
    "nfpc": int
}
"""Type of each header value that a file stores, by its name."""
PEEK_CHANS = 1024
"""Channels that completeness checks read at once, of a file without chunks."""
OPTIONAL = {"machine_id": 0, "nfpc": None, "ibeam": -1, "nbeams": 1}
"""Values that a file may lack, and what is used then."""


def header_from(values: Mapping[str, Any], *, packed: bool = False) -> Header:
    """Make a header of raw values, with the minimum number of rows; `with_rows` sets the true number.

    Args:
        values: by name.
        packed: coordinates are HHMMSS.s and DDMMSS.s, as in SIGPROC.

    Raises:
        HeaderError: a value is missing, of the wrong type, or impossible.
    """
    read = {name: _field(values, name) for name in FIELDS}
    read["nfpc"] = read["nfpc"] or None  # 0: the writer does not know
    read["src_raj"], read["src_dej"], note = coordinates(read["src_raj"], read["src_dej"], packed=packed)
    return Header(ntime=MIN_ROWS, coordinate_note=note, **read)


def pol_type_of(values: Any) -> str:
    """Return the POL_TYPE of PSRFITS among raw header values, in lower or upper case; empty if there is none.

    Raises:
        HeaderError: it is not text.
    """
    return next((_converted(name, values[name], str) for name in ("POL_TYPE", "pol_type") if name in values), "")


def with_rows(header: Header, ntime: int) -> Header:
    """Set the number of rows that the file holds now.

    Raises:
        TruncatedFileError: fewer than `MIN_ROWS`; a file that is still being written may have more later.
    """
    if ntime < MIN_ROWS:
        raise TruncatedFileError(f"expected at least {MIN_ROWS} rows, found {ntime}")
    return replace(header, ntime=ntime)


def printable(text: str | bytes) -> str:
    r"""Decode text so that it can be printed, hashed and stored: a byte that is not UTF-8 becomes `\xNN`."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def columns(
    header: Header, blocks: Iterable[Float32[np.ndarray, "time _"]]
) -> Iterator[tuple[int, Num[np.ndarray, "time freq"]]]:
    """Yield the first channel of each block, and the block as stored; 8 and 16 bit are rounded and clipped.

    Raises:
        ValueError: the blocks differ from the header in rows or total channels, or nifs is not 1.
    """
    if header.nifs != 1:
        raise ValueError(f"nifs: expected 1 (total power) to write, found {header.nifs}")
    if header.nbits not in STORED:
        raise ValueError(f"nbits: expected {', '.join(map(str, STORED))} to write, found {header.nbits}")
    dtype, start = STORED[header.nbits], 0
    for block in blocks:
        expected = (header.ntime, min(block.shape[1], header.nchans - start))
        if block.shape != expected:
            raise ValueError(f"block at channel {start}: expected {expected}, found {block.shape}")
        stored = block if header.nbits == 32 else np.clip(np.rint(block), 0, 2**header.nbits - 1)
        yield start, stored.astype(dtype, copy=False)
        start += block.shape[1]
    if start != header.nchans:
        raise ValueError(f"blocks: expected {header.nchans} channels in all, found {start}")


def _field(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        if name in OPTIONAL:
            return OPTIONAL[name]
        raise HeaderError(f"{name}: expected a value, found none among {', '.join(sorted(values)) or 'no values'}")
    return _converted(name, values[name], FIELDS[name])


def _converted(name: str, stored: Any, kind: type) -> Any:
    try:
        value = np.ravel(stored)[0]
        return printable(value).strip("\0 ") if kind is str else kind(value)
    except (TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise HeaderError(f"{name}: expected {kind.__name__}, found {stored!r}") from error
