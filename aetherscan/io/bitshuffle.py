"""Chunks of an HDF5 dataset, read where they lie and decoded by the filter's own code, outside HDF5.

HDF5 has one lock for a whole process and carries each chunk through several buffers. So it is only asked where the
chunks lie: they are read with `preadv` and decoded by the bitshuffle that HDF5 itself would have called, straight into
the caller's rows, without Python's lock. Threads that read different files do not wait for each other.

A chunk packed with bitshuffle and LZ4 is its size when decoded (8 bytes) and its block size (4 bytes), both in bytes
and big-endian; then the blocks, each after its length (4 bytes); then, as they are, the values left over from a
multiple of eight. The decoder believes these lengths and would follow them out of the buffer, so we add them up first.
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
"""bshuf_decompress_lz4: addresses of blocks and values, values, bytes a value, values a block -> bytes used, or < 0."""
PLACE = np.dtype([("offset", np.int64), ("size", np.int64), ("skipped_filters", np.uint32)])
HEAD, LENGTH = struct.Struct(">QI"), struct.Struct(">I")
VALUE_BYTES, DEFAULT_BLOCK_BYTES = 4, 8192


class Chunks:
    """The chunks of one float32 dataset, for one thread at a time: their `places` on its grid; `decode` if packed."""

    def __init__(
        self,
        file: FileIO,
        shape: tuple[int, int, int],
        places: Shaped[np.ndarray, "rows products chans"],
        decode: Decoder | None,
    ) -> None:
        self._file, self._shape, self._places, self._decode = file, shape, places, decode
        self._spare = np.empty(shape, np.float32)
        self._packed = np.empty(HEAD.size + 2 * self._spare.nbytes, np.uint8)  # more than LZ4 makes of any values

    def read(self, rows: slice, product: int, chans: slice, out: Float32[np.ndarray, "time freq"]) -> None:
        """Fill `out`, whose rows may lie apart, with one product's power."""
        tall, deep, wide = self._shape
        for i, chunk_rows, out_rows in _pieces(rows, tall):
            for k, chunk_chans, out_chans in _pieces(chans, wide):
                part, place = out[out_rows, out_chans], self._places[i, product // deep, k].item()
                if deep == 1 and part.shape == (tall, wide) and part.flags.c_contiguous:
                    self._fill(part, *place)
                else:
                    self._fill(self._spare, *place)
                    part[:] = self._spare[chunk_rows, product % deep, chunk_chans]

    def _fill(self, chunk: Float32[np.ndarray, "..."], offset: int, size: int, skipped_filters: int) -> None:
        decode = None if skipped_filters & 1 else self._decode
        stored = self._packed[:size] if decode else chunk
        where, got = f"chunk of {size} bytes at {offset}", os.preadv(self._file.fileno(), [stored.data], offset)
        if not got == stored.nbytes == size:
            raise TruncatedFileError(f"{where}: expected {stored.nbytes}, found {got}")
        if decode and not _unpacked(decode, stored, chunk):
            raise TruncatedFileError(f"{where}: expected {chunk.nbytes} when decoded, found what does not decode")


def _pieces(wanted: slice, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the chunks along one axis that hold what is wanted: the number of each, its part, the same part of ours."""
    for number in range(wanted.start // chunk, -(-wanted.stop // chunk)):
        first = number * chunk
        start, stop = max(wanted.start, first), min(wanted.stop, first + chunk)
        yield number, slice(start - first, stop - first), slice(start - wanted.start, stop - wanted.start)


def _unpacked(decode: Decoder, packed: UInt8[np.ndarray, " bytes"], chunk: Float32[np.ndarray, "..."]) -> bool:
    """Decode, unless a length is wrong; return whether it went well to the last byte."""
    with suppress(struct.error):  # a length that leads out of the chunk
        nbytes, block_bytes = HEAD.unpack_from(packed.data)
        block, rest = divmod(block_bytes or DEFAULT_BLOCK_BYTES, VALUE_BYTES)
        if (nbytes, rest, block % 8) != (chunk.nbytes, 0, 0) or _end(packed.data, chunk.size, block) != packed.size:
            return False
        used = decode(packed.ctypes.data + HEAD.size, chunk.ctypes.data, chunk.size, VALUE_BYTES, block)
        return used == packed.size - HEAD.size
    return False


def _end(packed: memoryview, values: int, block: int) -> int:
    at, unpack_from = HEAD.size, LENGTH.unpack_from  # 512 times in a row of a coarse channel
    for _ in range(-(-(values - values % 8) // block)):
        at += LENGTH.size + unpack_from(packed, at)[0]
    return at + values % 8 * VALUE_BYTES
