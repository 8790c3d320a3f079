"""Read the band of a cadence in blocks: every part of a file once, in whole chunks, ahead of the search.

The block boundaries depend on the files alone. The result for a block is therefore identical to the last bit, whatever
the read size, the number of threads and the worker.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import Geometry
from aetherscan.errors import CadenceError
from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.io import Observation
from aetherscan.search.bandpass import NormalizedBlock, normalize_block

BLOCK_CHANNELS = 2**18
"""Channels of a block with 16 rows. Blocks with more rows are narrower. One thread searches one block."""
SNIPPET_REACH = 2**12
"""Channels on either side of a track in a snippet at the coarsest binning."""
LARGEST_OVERLAP = 2**16
READ_BYTES = 2**30
"""Largest size of the read buffers, overlap included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """File channels `start` to `stop`, with an overlap into the neighboring blocks, in a buffer of power."""

    start: int
    stop: int
    overlap: tuple[int, int]  # channels before `start` and from `stop` on that the buffer also holds
    power: Float32[np.ndarray, "obs time _"]  # valid until the next block is requested
    column: int  # of `power` in which the overlap begins

    def normalize(
        self,
        cadence: Geometry,
        scratch: Float32[np.ndarray, " pixels"] | None = None,
        *,
        dc_spikes: bool = True,
    ) -> NormalizedBlock:
        """Return the block in units of its noise, stored in `scratch` if given; see `normalize_block`."""
        first = self.start - self.overlap[0]
        shape = (len(self.power), cadence.rows, self.stop + self.overlap[1] - first)
        sigmas = np.empty(shape, np.float32) if scratch is None else scratch[: math.prod(shape)].reshape(shape)
        block = normalize_block(self.power, cadence, self.column, sigmas, first, dc_spikes=dc_spikes)
        return replace(block, first=first, overlap=self.overlap)


def overlap_channels(headers: Sequence[Header], max_drift: float) -> int:
    """Return the overlap that holds any track of up to `max_drift` channels per row, in steps of 1,024 channels.

    Raises:
        CadenceError: a track may cross more channels than are searched together.
    """
    rows = (headers[-1].tstart - headers[0].tstart) * SECONDS_PER_DAY / headers[0].tsamp + headers[-1].ntime
    overlap = -(-int(SNIPPET_REACH + max_drift * rows + 256) // 1024) * 1024
    if overlap > LARGEST_OVERLAP and headers[0].nchans > LARGEST_OVERLAP:
        hours, most = rows * headers[0].tsamp / 3600, (LARGEST_OVERLAP - SNIPPET_REACH - 256) / rows
        raise CadenceError(
            f"max_drift_hz_s: expected at most {most * abs(headers[0].foff) * 1e6 / headers[0].tsamp:.3g} for channels "
            f"of {abs(headers[0].foff) * 1e6:.3g} Hz in a cadence of {hours:.1f} h: a faster line crosses more than "
            f"{LARGEST_OVERLAP} channels, which are searched together"
        )
    return min(overlap, LARGEST_OVERLAP)


def block_pixels(rows: int, overlap: int) -> int:
    """Return the largest number of pixels in one observation of a block."""
    return rows * (BLOCK_CHANNELS * 16 // max(rows, 16) + 2 * overlap)


def block_limits(nchans: int, rows: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each block."""
    width = 2**13
    while width < BLOCK_CHANNELS and width * 2 * max(rows, 16) <= BLOCK_CHANNELS * 16:
        width *= 2
    return [(a, min(a + width, nchans)) for a in range(0, nchans, width)]


def read_width(chunk: int, *, pixels: int, preferred: int, retained: int) -> int:
    """Return the number of channels to read at once.

    Args:
        chunk: channels that the file decodes together; the result is a multiple of it where memory allows.
        pixels: of one channel, in all observations.
        preferred: channels to read where memory allows.
        retained: channels that stay in the buffer from the previous read; they count toward `READ_BYTES`.
    """
    largest = max(READ_BYTES // (pixels * 4) - retained, retained)
    return max(1, min(preferred, largest) // chunk) * chunk if chunk <= largest else largest


def read_blocks(
    observations: Sequence[Observation],
    overlap: int,
    *,
    read_channels: int,
    pool: ThreadPoolExecutor | None = None,
    only: tuple[int, int] | None = None,
) -> Iterator[list[Block]]:
    """Yield the blocks of the band in channel order, each time those that one read completes.

    Args:
        observations: open, of the same channels.
        overlap: channels to include on either side of a block.
        read_channels: approximate number of channels to read at once.
        pool: threads that read ahead while the caller searches; None reads on demand.
        only: first and last channel; yield just the blocks that hold some of them.
    """
    nchans = min(observation.header.nchans for observation in observations)
    rows = max(observation.header.ntime for observation in observations)
    low, high = only or (0, nchans)
    limits = [(start, stop) for start, stop in block_limits(nchans, rows) if start <= high and low < stop]
    retained = limits[0][1] - limits[0][0] + 2 * overlap
    begin, end = max(0, limits[0][0] - overlap), min(nchans, limits[-1][1] + overlap)
    chunk = max(observation.chunk_channels for observation in observations)
    pixels = len(observations) * rows
    width = min(read_width(chunk, pixels=pixels, preferred=read_channels, retained=retained), end - begin)
    # Two buffers where threads can use them and memory allows: one is filled while the other is searched.
    allowed = 2 * len(observations) * rows * 4 * (retained + width) <= READ_BYTES
    shape = (len(observations), rows, retained + width)
    buffers = [np.empty(shape, np.float32) for _ in range(2 if pool and allowed and end - begin > width else 1)]

    def fetch(first: int, buffer: Float32[np.ndarray, "obs time _"]) -> list[Callable[[], object]]:
        last = min(first + width, end)
        reads = [
            partial(observation.read, first, last, part[: observation.header.ntime, retained : retained + last - first])
            for observation, part in zip(observations, buffer, strict=True)
        ]
        return [pool.submit(read).result for read in reads] if pool else list(reads)

    power = buffers[0]
    pending = fetch(begin, power)
    for count, first in enumerate(range(begin, end, width), 1):
        for wait in pending:
            wait()
        last, ready = min(first + width, end), []
        while limits and (last == end or limits[0][1] + overlap <= last):
            start, stop = limits.pop(0)
            below, above = min(start, overlap), min(nchans - stop, overlap)
            column = start - below - first + retained
            ready.append(Block(start=start, stop=stop, overlap=(below, above), power=power, column=column))
        following = buffers[count % len(buffers)]
        if following is power or last == end:
            yield ready
        if last < end:
            for kept, row in zip(following.reshape(-1, shape[2]), power.reshape(-1, shape[2]), strict=True):
                kept[:retained] = row[width : width + retained]  # NumPy copies what overlaps, here of one row at most
            pending = fetch(last, following)
            if following is not power:
                yield ready
            power = following
