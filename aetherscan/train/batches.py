"""Make training batches for the encoder while it trains, from backgrounds in memory.

A quarter of the examples are background alone, a quarter interference, a quarter a signal, and a quarter a signal
beside interference. A fraction of each is cut like the windows of `--mode windows`; the others are centered on a track
like the snippets of a search, with the errors that searches make. Half of the interference was found in the
backgrounds; the rest is injected like the signals, with brightness and position drawn for each example.

Threads make the examples: the renderer is compiled and releases the interpreter lock. An example depends on the seed,
the split, the epoch and its position in the epoch, not on the number of threads.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from aetherscan.search.cutouts import quantization_table
from aetherscan.train.background_cache import BackgroundArrays, empty_arrays, load_background
from aetherscan.train.backgrounds import Source, sources
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.render import CLASSES, DRAWS, SIGNAL, render_examples
from aetherscan.train.streams import Split, Stream, generator

GROUP = 32
"""Examples that one thread makes at a time, from one random generator."""
MOST_GROUPS = 64
"""Most groups made ahead of the training: 100 MB."""
EPOCHS_IN_MEMORY = 4
"""Epochs for which a training background stays in memory: each epoch replaces a quarter of them."""

Snippets = UInt8[np.ndarray, "batch obs rows bins"]
Batch = tuple[Snippets, Float32[np.ndarray, " batch"]]
"""Snippets as uint8, and labels: 1 with a signal, 0 without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What the examples are made from, and how much of it is held in memory."""

    seed: int = 1
    train_files: tuple[Path, ...] = ()  # stamps (`.npy`), or observations that form cadences; none: simulated
    num_target_backgrounds: int = 1200  # of 4,096 channels
    background_load_chunk_size: int = 300
    max_chunks_per_file: int = 4
    signal_injection_chunk_size: int = 512  # examples made ahead of the training
    windows: float = 0.25  # fraction of the examples that are cut as `--mode windows` cuts them
    examples: ExampleSettings = field(default_factory=ExampleSettings)
    held_bytes: int = 2**30  # of training backgrounds in memory; an eighth as many validation backgrounds come on top


def make_group(
    arrays: BackgroundArrays,
    settings: BatchSettings,
    places: Int64[np.ndarray, " backgrounds"],
    snr: tuple[float, float],
    key: tuple[Split, int, int],
) -> UInt8[np.ndarray, "group obs rows bins"]:
    """Return a group of examples, the four classes in turn.

    Args:
        arrays: backgrounds in memory.
        settings: of the batches.
        places: of the backgrounds to draw from, in `arrays`.
        snr: lowest and highest SNR of a signal in an ON.
        key: split, epoch and number of the group, which with the seed determine the examples.
    """
    rng, examples = generator(settings.seed, Stream.EXAMPLES, *key), settings.examples
    group = np.empty((GROUP, 6, examples.rows, examples.bins), dtype=np.uint8)
    render_examples(
        arrays, quantization_table(), places[rng.integers(places.size, size=GROUP)], rng.random((GROUP, DRAWS)),
        rng.normal(size=(GROUP, 3)), np.log(snr), settings.windows, group,
    )  # fmt: skip
    return group


class BatchSource:
    """Batches of examples, epoch after epoch. One epoch is open at a time: starting another ends it."""

    def __init__(self, settings: BatchSettings, backgrounds: tuple[Source, ...], pool: ThreadPoolExecutor) -> None:
        one_background = sum(array.nbytes for array in empty_arrays(settings.examples, 1))
        training = min(backgrounds[Split.TRAINING].count, max(1, settings.held_bytes // one_background))
        self._held = (training, min(backgrounds[Split.VALIDATION].count, max(1, training // 8)))
        self._settings, self._backgrounds, self._pool = settings, backgrounds, pool
        self._arrays = empty_arrays(settings.examples, sum(self._held))
        self._loaded: dict[int, int] = {}  # number of the background at each place
        self._pending = deque[Future[UInt8[np.ndarray, "group obs rows bins"]]]()

    def epoch(
        self, number: int, count: int, snr: tuple[float, float], *, batch: int = 32, validation: bool = False
    ) -> Iterator[Batch]:
        """Yield `count` examples in batches; the last batch may be smaller.

        Args:
            number: of the epoch.
            count: a multiple of four.
            snr: lowest and highest SNR of a signal; each ON has 0.8 to 1.25 times the value drawn.
            batch: examples in a batch.
            validation: draw from the backgrounds kept for validation.

        Raises:
            ValueError: the count is no multiple of four.
            RuntimeError: another epoch was started before this one was read to its end.
            ReadError: a file of backgrounds changed.
        """
        if count < CLASSES or count % CLASSES:
            raise ValueError(f"count: expected a multiple of {CLASSES}, found {count}")
        labels = (np.arange(count) % CLASSES >= SIGNAL).astype(np.float32)
        groups = self._groups(number, -(-count // GROUP), snr, Split(validation))
        rest = next(groups)
        for first in range(0, count, batch):
            size, parts = min(batch, count - first), [rest]
            while sum(map(len, parts)) < size:
                parts.append(next(groups))
            joined = np.concatenate(parts)
            yield joined[:size], labels[first : first + size]
            rest = joined[size:]

    def _groups(
        self, epoch: int, count: int, snr: tuple[float, float], split: Split
    ) -> Iterator[UInt8[np.ndarray, "group obs rows bins"]]:
        """Yield the groups of an epoch in order, some of them made ahead."""
        for future in self._pending:  # of an epoch that was not read to its end
            future.cancel()
        wait(self._pending)
        make = partial(make_group, self._arrays, self._settings, self._load(epoch, split), snr)
        coming = (self._pool.submit(make, (split, epoch, group)) for group in range(count))
        ahead = min(MOST_GROUPS, max(1, self._settings.signal_injection_chunk_size // GROUP))
        pending = self._pending = deque(islice(coming, ahead))
        while pending:
            group = pending.popleft().result()
            pending.extend(islice(coming, 1))
            yield group
            if self._pending is not pending:
                raise RuntimeError(f"epoch {epoch}: expected to be read to its end, found another epoch started")

    def _load(self, epoch: int, split: Split) -> Int64[np.ndarray, " backgrounds"]:
        """Load the backgrounds of an epoch that are not in memory, and return the places of all of them."""
        held, offset = self._held[split], split * self._held[0]
        first = 0 if split == Split.VALIDATION else epoch * max(1, held // EPOCHS_IN_MEMORY)
        numbers = {offset + number % held: number for number in range(first, first + held)}
        missing = {place: number for place, number in numbers.items() if self._loaded.get(place) != number}
        for place in missing:
            self._loaded.pop(place, None)
        load = partial(load_background, self._arrays, self._backgrounds[split])
        list(self._pool.map(load, missing, missing.values()))
        self._loaded |= missing
        return np.array(list(numbers))


def sources_of(settings: BatchSettings) -> tuple[Source, ...]:
    """Return the training and the validation backgrounds; raises what `sources` raises."""
    return sources(
        settings.train_files, settings.examples, settings.seed, settings.num_target_backgrounds,
        settings.background_load_chunk_size, settings.max_chunks_per_file,
    )  # fmt: skip


@contextmanager
def open_batches(
    settings: BatchSettings, threads: int = 1, backgrounds: tuple[Source, ...] | None = None
) -> Iterator[BatchSource]:
    """Open a source of batches; without backgrounds, those of `sources_of`.

    Raises:
        FormatError: a file of backgrounds holds no stamps.
        CadenceError: the files form no cadence that backgrounds can be cut from.
        ValueError: no threads.
    """
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, found {threads}")
    pool = ThreadPoolExecutor(threads)
    try:
        yield BatchSource(settings, backgrounds or sources_of(settings), pool)
    finally:
        pool.shutdown(cancel_futures=True)
