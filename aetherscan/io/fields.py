"""What both formats share: raw header values to a `Header`, and blocks of band on their way to a file.

A raw value may be a Python number, a numpy scalar, an array of one, `str` or `bytes`: rawspec, blimpy and h5py each
write it their own way. Nothing here opens a file, so nothing here knows a path: the caller adds it to the message.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

from aetherscan.errors import HeaderError, TruncatedFileError
from aetherscan.header import MIN_ROWS, Header

FIELDS: dict[str, Any] = {field.name: field.type for field in fields(Header) if field.name != "ntime"} | {"nfpc": int}
PEEK_CHANS = 1024
"""How much of a row must not be all zero where completeness is checked: a page, the least that a copy leaves out."""
OPTIONAL = {"machine_id": 0, "nfpc": None}
STORED: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<f4")}
"""How a file holds power, by nbits; 8 and 16 bit are unsigned, as blimpy has them."""


def header_from(values: Mapping[str, Any]) -> Header:
    """Make a header of raw values, with the fewest rows there may be: `with_rows` has the last word on those.

    Raises:
        HeaderError: a value is missing, of another kind, or impossible.
    """
    return Header(ntime=MIN_ROWS, **{name: _field(values, name) for name in FIELDS})


def with_rows(header: Header, ntime: int) -> Header:
    """Set the rows that the file holds so far.

    Raises:
        TruncatedFileError: too few; writers add rows as the telescope integrates, so this may mend itself.
    """
    if ntime < MIN_ROWS:
        raise TruncatedFileError(f"expected at least {MIN_ROWS} rows, found {ntime}")
    return replace(header, ntime=ntime)


def printable(text: str | bytes) -> str:
    r"""Return text that can be printed, hashed and stored: a byte that is not UTF-8 becomes `\xNN`."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def columns(
    header: Header, blocks: Iterable[Float32[np.ndarray, "time _"]]
) -> Iterator[tuple[int, Num[np.ndarray, "time freq"]]]:
    """Yield each block's first channel and the block as the file stores it; 8 and 16 bit are rounded and clipped.

    Raises:
        ValueError: blocks that are not the header's rows, or do not add up to its band; several polarizations.
    """
    if header.nifs != 1:
        raise ValueError(f"nifs: expected 1 (total power) to write, found {header.nifs}")
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
        raise HeaderError(f"{name}: expected a value, found none beside {', '.join(sorted(values)) or 'nothing'}")
    kind = FIELDS[name]
    try:
        value = np.ravel(values[name])[0]
        return printable(value).strip("\0 ") if kind is str else kind(value)
    except (TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise HeaderError(f"{name}: expected {kind.__name__}, found {values[name]!r}") from error
