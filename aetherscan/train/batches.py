"""What the encoder is fed: snippets as it is served them, made while it learns, by processes that share memory.

A quarter of the examples is quiet, one shows interference, one a signal, one a signal beside interference; windows as
`--mode windows` has them are a share of each. Half of the interference is what the search found in the backgrounds, the
rest is injected like the signals, so that none is seen twice. A snippet is centred as a search would centre it: on the
track, as wrongly as tracks are measured. Example `place` of epoch `number` is the same whoever makes it and whenever.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from aetherscan.errors import FeedError
from aetherscan.search.cutouts import shade_table
from aetherscan.train.background_cache import BackgroundArrays, fill, plan_of
from aetherscan.train.backgrounds import Source, sources
from aetherscan.train.process_pool import Plan, ProcessPool, SharedArrays
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.render import BLOCK, DRAWS, QUARTERS, SIGNAL, show
from aetherscan.train.streams import Stream, generator

MOST_SLOTS = 64
"""Blocks in flight at most: 100 MB, and no more questions and answers than pipes hold."""
RENEWED = 4
"""One in so many backgrounds is replaced from one epoch to the next."""

Batch = tuple[UInt8[np.ndarray, "batch obs rows bins"], Float32[np.ndarray, " batch"]]
"""Snippets in shades, and 1 where there is a signal from the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """What the encoder is fed, and how much of it is in memory."""

    seed: int = 1
    train_files: tuple[Path, ...] = ()  # plates (`.npy`), or observations that make cadences; none: simulated
    num_target_backgrounds: int = 1200  # of 4,096 channels
    background_load_chunk_size: int = 300
    max_chunks_per_file: int = 4
    signal_injection_chunk_size: int = 512
    windows: float = 0.25  # share that `--mode windows` would show
    examples: ExampleSettings = field(default_factory=ExampleSettings)
    held_bytes: int = 2**30  # of backgrounds in memory at once, beside an eighth as many to validate on


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSource:
    """What a process needs to make examples."""

    settings: FeedSettings
    sources: tuple[Source, ...]  # to learn on, and to validate on: sides 0 and 1
    held: tuple[int, int]  # how many backgrounds of each are in memory

    @property
    def plan(self) -> Plan:
        """What is shared: backgrounds, and the ring of blocks that are ready or being made."""
        examples = self.settings.examples
        slots = min(MOST_SLOTS, max(1, self.settings.signal_injection_chunk_size // BLOCK))
        ring = {"ring": ("u1", (slots, BLOCK, 6, examples.rows, examples.bins))}
        return plan_of(examples, sum(self.held)) | ring

    def place(self, number: int, side: int) -> int:
        """Return where a background is."""
        return side * self.held[0] + number % self.held[side]

    def numbers(self, epoch: int, side: int) -> range:
        """Return the backgrounds of an epoch."""
        first = 0 if side else epoch * max(1, self.held[0] // RENEWED)
        return range(first, first + self.held[side])


def prepare(source: BatchSource, rooms: SharedArrays, number: int, side: int) -> None:
    """Put a background where it belongs."""
    fill(_shelf(rooms), source.place(number, side), source.sources[side], number)


def cook(
    source: BatchSource, rooms: SharedArrays, slot: int, epoch: int, block: int, snr: tuple[float, float], side: int
) -> None:
    """Fill a slot of the ring."""
    rng = generator(source.settings.seed, Stream.EXAMPLES, side, epoch, block)
    places = np.array([source.place(number, side) for number in source.numbers(epoch, side)])
    show(
        _shelf(rooms), shade_table(), places[rng.integers(places.size, size=BLOCK)], rng.random((BLOCK, DRAWS)),
        rng.normal(size=(BLOCK, 3)), np.log(snr), source.settings.windows, rooms["ring"][slot],
    )  # fmt: skip


def _shelf(rooms: SharedArrays) -> BackgroundArrays:
    return BackgroundArrays(*(rooms[name] for name in BackgroundArrays._fields))


class Feed:
    """Examples for the encoder, epoch after epoch. One epoch at a time: to begin another is to leave the last."""

    def __init__(self, source: BatchSource, crew: ProcessPool) -> None:
        self._kitchen, self._crew = source, crew
        self._held: dict[int, int] = {}  # number of the background in each place
        self._turn = 0

    def epoch(
        self, number: int, count: int, snr: tuple[float, float], *, batch: int = 32, unseen: bool = False
    ) -> Iterator[Batch]:
        """Yield `count` examples in batches, the last of them smaller.

        Args:
            number: of the epoch; with the seed and their places it decides what the examples are.
            count: a multiple of four.
            snr: of signals, lowest and highest, before each ON's own 0.8 to 1.25.
            batch: examples yielded together.
            unseen: on backgrounds kept for validation, which no other epoch shows.

        Raises:
            FeedError: a process ended or failed, or another epoch was begun meanwhile.
        """
        if count < 4 or count % 4:
            raise ValueError(f"count: expected a multiple of 4, found {count}")
        waiting = list[UInt8[np.ndarray, "block obs rows bins"]]()
        labels = (np.arange(count) % QUARTERS >= SIGNAL).astype(np.float32)
        first = made = 0
        for block in self._blocks(number, -(-count // BLOCK), snr, int(unseen)):
            waiting.append(block[: count - made].copy())
            made += len(waiting[-1])
            while made - first >= batch or first < made == count:
                joined = np.concatenate(waiting)
                yield joined[:batch], labels[first : first + batch]
                waiting, first = [joined[batch:]], min(first + batch, made)

    def _blocks(
        self, number: int, blocks: int, snr: tuple[float, float], side: int
    ) -> Iterator[UInt8[np.ndarray, "block obs rows bins"]]:
        """Yield so many blocks in order, each good until the next is asked for."""
        self._turn = turn = self._turn + 1
        crew = self._crew
        while crew.busy:  # with an epoch that was left
            crew.answer()
        self._stock(number, side)
        ring, asked, made = crew.rooms["ring"], 0, dict[Any, int]()
        free = list(range(len(ring)))
        for block in range(blocks):
            while free and asked < blocks:
                slot = free.pop()
                crew.ask((asked, slot), cook, slot, number, asked, snr, side)
                asked += 1
            while block not in made:
                made |= [crew.answer()]
            yield ring[made[block]]
            if turn != self._turn:
                raise FeedError(f"epoch {number}: expected to be read to its end, found another begun meanwhile")
            free.append(made.pop(block))

    def _stock(self, number: int, side: int) -> None:
        """Have the backgrounds of an epoch in their places."""
        for wanted in self._kitchen.numbers(number, side):
            place = self._kitchen.place(wanted, side)
            if self._held.get(place) != wanted:
                self._crew.ask(f"background {wanted}", prepare, wanted, side)
                self._held[place] = wanted
        while self._crew.busy:
            self._crew.answer()


def sources_of(settings: FeedSettings) -> tuple[Source, ...]:
    """Return where backgrounds come from, to learn on and to validate on; raises what `sources` does."""
    return sources(
        settings.train_files, settings.examples, settings.seed, settings.num_target_backgrounds,
        settings.background_load_chunk_size, settings.max_chunks_per_file,
    )  # fmt: skip


@contextmanager
def feed(settings: FeedSettings, processes: int = 1) -> Iterator[Feed]:
    """Open a feed that so many processes fill.

    Raises:
        FormatError: a file of backgrounds holds something else.
        CadenceError: files make no cadence that backgrounds can be cut from.
    """
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, found {processes}")
    found = sources_of(settings)
    each = sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in plan_of(settings.examples, 1).values())
    held = min(found[0].count, max(1, settings.held_bytes // each))
    source = BatchSource(settings=settings, sources=found, held=(held, min(found[1].count, max(1, held // 8))))
    with ProcessPool(processes, source.plan, source) as crew:
        yield Feed(source, crew)
