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
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from aetherscan.backgrounds import Shelf, Source, compose, fill, plan_of, sources
from aetherscan.crew import Crew, Plan, Rooms
from aetherscan.errors import FeedError
from aetherscan.geometry import ON
from aetherscan.inject import FWHM_TO_SIGMA
from aetherscan.normalize import shade_table
from aetherscan.patches import ExampleSettings
from aetherscan.tracks import WINDOW_LEVEL, snippet_level

QUARTERS = 4
QUIET, INTERFERENCE, SIGNAL, BOTH = range(QUARTERS)
BLOCK = 32
"""Examples that are made at a time, from random numbers of their own."""
MOST_SLOTS = 64
"""Blocks in flight at most: 100 MB, and no more questions and answers than pipes hold."""
RENEWED = 4
"""One in so many backgrounds is replaced from one epoch to the next."""
APART, OFF_CENTRE, TILTED, WIDER = 0.2, 0.55, 1.4, (0.08, 0.18)
"""How wrongly tracks are measured, over 513 tones that searches found: channels, and boxes over SNR, from the middle;
boxes over SNR from the first observation to the last; and the logarithm of the box, mean and scatter."""
FAINTEST = 4.0
"""SNR at which a track is measured worst."""
FOUND = 0.5
"""Share of what interference is centred on that the search found in the backgrounds."""
DRAWS = 11
"""Random numbers that decide an example, beside those that say how wrongly it is measured."""

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
class Kitchen:
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


def prepare(kitchen: Kitchen, rooms: Rooms, number: int, side: int) -> None:
    """Put a background where it belongs."""
    fill(_shelf(rooms), kitchen.place(number, side), kitchen.sources[side], number)


def cook(
    kitchen: Kitchen, rooms: Rooms, slot: int, epoch: int, block: int, snr: tuple[float, float], side: int
) -> None:
    """Fill a slot of the ring."""
    rng = np.random.default_rng([kitchen.settings.seed, 3, side, epoch, block])
    places = np.array([kitchen.place(number, side) for number in kitchen.numbers(epoch, side)])
    show(
        _shelf(rooms), shade_table(), places[rng.integers(places.size, size=BLOCK)], rng.random((BLOCK, DRAWS)),
        rng.normal(size=(BLOCK, 3)), np.log(snr), kitchen.settings.windows, rooms["ring"][slot],
    )  # fmt: skip


def _shelf(rooms: Rooms) -> Shelf:
    return Shelf(*(rooms[name] for name in Shelf._fields))


@njit(cache=True, nogil=True)
@no_type_check
def _begin(
    shelf: Shelf, place: int, line: int, snr: float, chance: Float64[np.ndarray, "3"], bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return where a snippet begins in each observation that shows a line as a search would, and its binning."""
    at, middles = shelf.middles[place], _middles(shelf.edges[place, line])
    drift = (middles[ON[2]] - middles[ON[0]]) / (at[ON[2]] - at[ON[0]])
    box = math.hypot(shelf.widths[place, line] / FWHM_TO_SIGMA, drift)
    unsure = box / max(snr, FAINTEST)
    level = snippet_level(max(1.0, box * math.exp(WIDER[0] + WIDER[1] * chance[2])))
    tilt = drift + TILTED * unsure * chance[0] / (at[-1] - at[0])
    centre = (middles[ON[0]] + middles[ON[1]] + middles[ON[2]]) / 3 + math.hypot(APART, OFF_CENTRE * unsure) * chance[1]
    return centre + tilt * (at - (at[ON[0]] + at[ON[1]] + at[ON[2]]) / 3) - (bins << level) / 2, level


@njit(cache=True, nogil=True)
@no_type_check
def _begin_window(
    edges: Float64[np.ndarray, "obs edges"], chance: float, bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return where a window begins that holds a line in the middle of each ON, if any does, and its binning."""
    middles, width = _middles(edges), bins << WINDOW_LEVEL
    low = max(middles[ON[0]], middles[ON[1]], middles[ON[2]]) - width
    high = min(middles[ON[0]], middles[ON[1]], middles[ON[2]])
    if low > high:
        low, high = middles.mean() - width, middles.mean()
    return np.full(middles.size, low + chance * (high - low)), WINDOW_LEVEL


@njit(cache=True, nogil=True)
@no_type_check
def _middles(edges: Float64[np.ndarray, "obs edges"]) -> Float64[np.ndarray, " obs"]:
    """Return where a line is in the middle of each observation."""
    middles = np.empty(edges.shape[0])
    for i in range(middles.size):
        middles[i] = edges[i].mean()
    return middles


@njit(cache=True, nogil=True)
@no_type_check
def show(
    shelf: Shelf,
    table: tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " shades"]],
    places: Int64[np.ndarray, " batch"],
    chances: Float64[np.ndarray, "batch draws"],
    errors: Float64[np.ndarray, "batch 3"],
    snr: Float64[np.ndarray, "2"],
    windows: float,
    out: UInt8[np.ndarray, "batch obs time bins"],
) -> None:
    """Fill `out` with examples, a quarter of each kind.

    Args:
        shelf: of backgrounds.
        table: of shades.
        places: background of each example.
        chances: uniform in 0..1.
        errors: normal, of scatter 1.
        snr: logarithms of the lowest and the highest.
        windows: share of them.
        out: all of it is overwritten.
    """
    bins, tracks, chans = out.shape[-1], shelf.widths.shape[1] // 2, shelf.sigmas.shape[-1]
    for n in range(places.size):
        place, quarter, chance, window = places[n], n % QUARTERS, chances[n], chances[n, 0] < windows
        count = shelf.counts[place, 0]
        if quarter == INTERFERENCE and not window and count and chance[1] < FOUND:
            out[n] = shelf.found[place, int(chance[2] * count)]
            continue
        tone, other = int(chance[3] * tracks), tracks + int(chance[4] * tracks)
        focus, brighter = (
            (other, 1.0) if quarter == INTERFERENCE else (tone, math.exp(snr[0] + chance[5] * (snr[1] - snr[0])))
        )
        if window:
            lefts, level = _begin_window(shelf.edges[place, focus], chance[6], bins)
        else:
            strength = shelf.snrs[place, focus]
            mean = brighter * (strength[ON[0]] + strength[ON[1]] + strength[ON[2]]) / 3
            lefts, level = _begin(shelf, place, focus, mean, errors[n], bins)
        width = bins << level
        anchor, quiet = 0.0, -1.0  # the quietest of a few places, unless something else is to be near
        for candidate in chance[7:10] if quarter in (QUIET, SIGNAL) else chance[7:8]:
            middle = width / 2 + candidate * (chans - width)
            alone = np.abs(shelf.lines[place] - middle).min()
            if alone > quiet:
                anchor, quiet = middle - lefts.mean() - width / 2, alone
        beside = lefts.mean() + chance[10] * width - shelf.edges[place, other].mean()
        chosen = np.array([tone, other])[1 if quarter == INTERFERENCE else 0 : (0, 2, 1, 2)[quarter]]
        begins = np.floor(lefts + anchor + 0.5)
        firsts = np.empty(begins.size, dtype=np.int64)
        edges = shelf.edges[place][chosen]
        for i in range(firsts.size):
            firsts[i] = min(max(0, int(np.rint(begins[i] / (1 << level)))), (chans - width) >> level) << level
            for e in range(chosen.size):
                edges[e, i] += anchor + (0.0 if chosen[e] == focus else beside) - begins[i]
        snrs = shelf.snrs[place][chosen]
        for e in range(chosen.size):
            if chosen[e] == tone:
                snrs[e] *= brighter
        compose(
            shelf.sigmas[place], shelf.noise[place], shelf.shades[place], table, firsts, level, edges,
            shelf.widths[place][chosen], shelf.brightness[place][chosen], snrs, out[n],
        )  # fmt: skip


class Feed:
    """Examples for the encoder, epoch after epoch. One epoch at a time: to begin another is to leave the last."""

    def __init__(self, kitchen: Kitchen, crew: Crew) -> None:
        self._kitchen, self._crew = kitchen, crew
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
    kitchen = Kitchen(settings=settings, sources=found, held=(held, min(found[1].count, max(1, held // 8))))
    with Crew(processes, kitchen.plan, kitchen) as crew:
        yield Feed(kitchen, crew)
