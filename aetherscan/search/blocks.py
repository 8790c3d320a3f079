"""The band of a cadence, a stretch at a time: read once, in whole chunks, while the last part is being searched.

Stretches lie on a grid that depends on the files alone. What is computed of a stretch, with the halo it is given, is
therefore the same to the last bit, however much is read at once, by however many threads and whatever worker.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32

from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.io import Observation

STRETCH = 2**18
"""Channels of 16 rows that one thread works on."""
SNIPPET_REACH = 2**12
"""Channels to either side of a track that the encoder sees at the coarsest binning."""
LARGEST_HALO = 2**16
POWER_BYTES = 2**30
"""Of power in memory at once, halo and all, unless a chunk of the file is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of the band: channels `start` to `stop` are its own, `low` to `high` what it may look at."""

    start: int
    stop: int
    low: int
    high: int
    power: Float32[np.ndarray, "obs time _"]  # from channel `origin`; good until the next block is asked for
    origin: int


def halo(headers: Sequence[Header], max_drift: float) -> int:
    """Return how far, in whole blocks of 1,024 channels, a track of `max_drift` channels a row gets from its hit."""
    rows = (headers[-1].tstart - headers[0].tstart) * SECONDS_PER_DAY / headers[0].tsamp + headers[0].ntime
    reach = SNIPPET_REACH + max_drift * rows + 256
    return min(LARGEST_HALO, -(-int(reach) // 1024) * 1024)


def grid(nchans: int, rows: int, start: int = 0) -> list[tuple[int, int]]:
    """Return (start, stop) of each stretch from the one that holds channel `start`; narrower where rows are many."""
    width = 2**13
    while width < STRETCH and width * 2 * max(rows, 16) <= STRETCH * 16:
        width *= 2
    first = start // width * width
    return [(a, min(a + width, nchans)) for a in range(first, nchans, width)]


def block_width(chunk: int, *, rows: int, wanted: int, carried: int) -> int:
    """Return how many channels to read at once: whole chunks, near `wanted`, within `POWER_BYTES` where that can be."""
    most = POWER_BYTES // (6 * rows * 4) - carried
    return max(1, min(wanted, most) // chunk) * chunk


def blocks(
    observations: Sequence[Observation],
    reach: int,
    *,
    block: int,
    pool: ThreadPoolExecutor | None = None,
    only: int | None = None,
) -> Iterator[list[Block]]:
    """Yield the stretches of the band in channel order, as many at a time as a block of reading completes.

    Args:
        observations: open, of the same channels.
        reach: channels of halo.
        block: channels to read at once, roughly.
        pool: reads the next block while this one is searched; without one, reading waits its turn.
        only: a channel; just the stretch that holds it.
    """
    nchans = min(observation.header.nchans for observation in observations)
    rows = max(observation.header.ntime for observation in observations)
    todo = grid(nchans, rows, only or 0)[: None if only is None else 1]
    carried = todo[0][1] - todo[0][0] + 2 * reach
    begin = max(0, todo[0][0] - reach)
    end = nchans if only is None else min(nchans, todo[0][1] + reach)
    chunk = max(observation.chunk_channels for observation in observations)
    width = (
        min(block_width(chunk, rows=rows, wanted=block, carried=carried), end - begin) if only is None else end - begin
    )
    # Two buffers where there is a use for them and room: one is filled while the other is searched.
    room = 2 * len(observations) * rows * 4 * (carried + width) <= 2 * POWER_BYTES
    shape = (len(observations), rows, carried + width)
    buffers = [np.empty(shape, np.float32) for _ in range(2 if pool and room and end - begin > width else 1)]

    def fetch(first: int, into: Float32[np.ndarray, "obs time _"]) -> list[Callable[[], object]]:
        last = min(first + width, end)
        jobs = [
            partial(observation.read, first, last, power[: observation.header.ntime, carried : carried + last - first])
            for observation, power in zip(observations, into, strict=True)
        ]
        return [pool.submit(job).result for job in jobs] if pool else list(jobs)

    power = buffers[0]
    waiting = fetch(begin, power)
    for count, first in enumerate(range(begin, end, width), 1):
        for done in waiting:
            done()
        last, ready = min(first + width, end), []
        while todo and (last == end or todo[0][1] + reach <= last):
            start, stop = todo.pop(0)
            low, high = max(0, start - reach), min(stop + reach, nchans)
            ready.append(Block(start=start, stop=stop, low=low, high=high, power=power, origin=first - carried))
        following = buffers[count % len(buffers)]
        if following is power or last == end:
            yield ready
        if last < end:
            tail = power[..., width : width + carried]
            following[..., :carried] = tail.copy() if following is power else tail
            waiting = fetch(last, following)
            if following is not power:
                yield ready
            power = following
