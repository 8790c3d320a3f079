"""Read the chunks of an HDF5 dataset with `preadv`, and decode them with the bitshuffle filter outside HDF5.

HDF5 holds one lock per process and copies each chunk through several buffers. Here HDF5 only gives the offset and size
of each chunk. The chunk is read with `preadv` and decoded by the function that HDF5 itself would call, directly into
the rows of the caller. Python's lock is released meanwhile, so threads that read different files run in parallel.

Format of a chunk packed with bitshuffle and LZ4: decoded size (8 bytes) and block size (4 bytes), both in bytes and
big-endian; then the blocks, each preceded by its length (4 bytes); then the values beyond the last multiple of eight,
uncompressed. The decoder trusts these lengths and would read outside the buffer, so they are checked first.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from aetherscan.errors import TruncatedFileError

Decoder = Callable[[int, int, int, int, int], int]
"""`bshuf_decompress_lz4`: (input address, output address, values, bytes per value, values per block) -> bytes read.

A negative result is an error.
"""
CHUNK_INDEX = np.dtype([("offset", np.int64), ("size", np.int64), ("skipped_filters", np.uint32)])
HEAD, LENGTH = struct.Struct(">QI"), struct.Struct(">I")
VALUE_BYTES, DEFAULT_BLOCK_BYTES = 4, 8192


class Chunks:
    """The chunks of one float32 dataset. Not safe for use by two threads at once."""

    def __init__(
        self,
        file: FileIO,
        shape: tuple[int, int, int],
        index: Shaped[np.ndarray, "rows products chans"],
        decode: Decoder | None,
    ) -> None:
        """Prepare to read.

        Args:
            file: the HDF5 file, opened unbuffered.
            shape: of one chunk (rows, products, channels).
            index: where each chunk is stored, as `CHUNK_INDEX`.
            decode: None where chunks are stored unfiltered.
        """
        self._file, self._shape, self._index, self._decode = file, shape, index, decode
        self._spare = np.empty(shape, np.float32)
        self._packed = np.empty(HEAD.size + 2 * self._spare.nbytes, np.uint8)  # larger than any LZ4 output

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Read one product into `out`.

        Args:
            rows: of the dataset.
            product: polarization product, from 0.
            chans: channels of the dataset.
            out: filled with power; its rows may be part of a wider buffer.
        """
        tall, deep, wide = self._shape
        for i, chunk_rows, out_rows in _pieces(rows, tall):
            for k, chunk_chans, out_chans in _pieces(chans, wide):
                part, stored = out[out_rows, out_chans], self._index[i, product // deep, k].item()
                if deep == 1 and part.shape == (tall, wide) and part.flags.c_contiguous:
                    self._fill(part, *stored)
                else:
                    self._fill(self._spare, *stored)
                    part[:] = self._spare[chunk_rows, product % deep, chunk_chans]

    def _fill(self, chunk: Float32[np.ndarray, "..."], offset: int, size: int, skipped_filters: int) -> None:
        decode = None if skipped_filters & 1 else self._decode
        stored = self._packed[:size] if decode else chunk
        name, read_bytes = f"chunk of {size} bytes at {offset}", os.preadv(self._file.fileno(), [stored.data], offset)
        if not read_bytes == stored.nbytes == size:
            raise TruncatedFileError(f"{name}: expected {stored.nbytes} bytes, found {read_bytes}")
        if decode and not _unpack(decode, stored, chunk):
            raise TruncatedFileError(f"{name}: expected {chunk.nbytes} bytes when decoded, found invalid data")


def _pieces(selection: slice, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each chunk along one axis that overlaps the selection: number, overlap in the chunk, in the selection."""
    for number in range(selection.start // chunk, -(-selection.stop // chunk)):
        first = number * chunk
        start, stop = max(selection.start, first), min(selection.stop, first + chunk)
        yield number, slice(start - first, stop - first), slice(start - selection.start, stop - selection.start)


def _unpack(decode: Decoder, packed: UInt8[np.ndarray, " bytes"], chunk: Float32[np.ndarray, "..."]) -> bool:
    """Decode unless a length is wrong; return whether every byte was used."""
    with suppress(struct.error):  # a length that points outside the chunk
        nbytes, block_bytes = HEAD.unpack_from(packed.data)
        block, rest = divmod(block_bytes or DEFAULT_BLOCK_BYTES, VALUE_BYTES)
        if (nbytes, rest, block % 8) != (chunk.nbytes, 0, 0) or _end(packed.data, chunk.size, block) != packed.size:
            return False
        used = decode(packed.ctypes.data + HEAD.size, chunk.ctypes.data, chunk.size, VALUE_BYTES, block)
        return used == packed.size - HEAD.size
    return False


def _end(packed: memoryview, values: int, block: int) -> int:
    """Return the size in bytes that the block lengths of a packed chunk add up to."""
    # `unpack_from` is a local name because the loop runs 512 times for each row of a coarse channel.
    at, unpack_from = HEAD.size, LENGTH.unpack_from
    for _ in range(-(-(values - values % 8) // block)):
        at += LENGTH.size + unpack_from(packed, at)[0]
    return at + values % 8 * VALUE_BYTES
