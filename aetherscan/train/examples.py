"""Draw labelled tracks and windows for the forests: sky patches, searched by the code that searches observations.

A patch is simulated, or it is a real background with injected signals and interference. Its tracks are found and cut
out as in a search. A track that lies on an injected signal is labelled 1, other tracks that pass the gates 0. The
examples of a patch depend only on the seed, the stream and the number of the patch. The encoder needs many more
examples, without features; `aetherscan.train.batches` makes them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.options.search import MODES, SearchSettings
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.cutouts import WINDOW_LEVEL, to_uint8, track_snippet, window_snippet
from aetherscan.search.density import beside, interfering_lines
from aetherscan.search.features import measurements
from aetherscan.search.follow import SNR, as_track, channels_at
from aetherscan.search.on_off import channels_in_ons, find_tracks
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky
from aetherscan.train.background_cache import inject
from aetherscan.train.backgrounds import Source
from aetherscan.train.progress import Progress
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Stream, generator

Drawn = TypeVar("Drawn")
PATCHES_PER_TASK = 8
"""Patches that a process draws at a time."""
KIND, NEAR_CHANNELS = "U16", 64
"""Type of the name of a kind, and channels within which a track stays of the interference that it is."""
HINT = 3.0
"""SNR in an OFF that one signal in 250 reaches by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Snippets with their labels. Tracks also have features."""

    snippets: UInt8[np.ndarray, "batch obs rows bins"]  # the encoder's input 0..1, times `UINT8_MAX`
    labels: Float32[np.ndarray, " batch"]  # 1 with a signal from the target, 0 without
    snrs: Float32[np.ndarray, " batch"]  # of the signal in its faintest ON; 0 without a signal
    measurements: Float32[np.ndarray, "batch measurements"]  # no columns for windows
    kinds: Shaped[np.ndarray, " batch"]  # kind of the interference that a track is; "" for others, and for windows
    beside: Bool[np.ndarray, " batch"]  # whether a track is beside interference (`search.density`)

    def only(self, chosen: np.ndarray) -> "Examples":
        """Return the chosen examples, by index or by mask."""
        return Examples(**{column.name: getattr(self, column.name)[chosen] for column in fields(self)})

    @staticmethod
    def join(parts: Sequence["Examples"]) -> "Examples":
        """Concatenate examples."""
        names = [column.name for column in fields(Examples)]
        return Examples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def draw_examples(
    rng: np.random.Generator, settings: ExampleSettings, background: tuple[NormalizedBlock, Geometry] | None = None
) -> tuple[Examples, Examples]:
    """Draw the tracks and some windows of one patch, simulated or on a real background.

    Lines already in a real background are unlabelled: interference if an OFF shows them (`HINT`), otherwise dropped.
    Windows that hold a dropped line are dropped too. Windows are assumed to hold no fainter signal from the target.
    """
    normalized, cadence, signals, interference = draw_sky(rng, settings, background)
    emitters = [*signals, *interference]
    followed_tracks, rejections = followed(normalized, cadence, settings)
    vetoed, tracks = interfering_lines(followed_tracks, rejections, cadence), followed_tracks[rejections == ""]
    matches = np.array([_match(track, signals, cadence) for track in tracks]).reshape(-1, 2)
    labelled = matches[:, 0] >= 0
    doubtful = np.empty(0)
    if background:
        injected = np.array([_match(track, emitters, cadence)[0] != 0 for track in tracks], dtype=bool)
        unknown = ~injected & (tracks[:, SNR::2][:, cadence.off].max(axis=1, initial=0) < HINT)
        labelled &= ~unknown
        doubtful = channels_at(tracks[unknown], cadence.middles.mean())[:, 0]
    shape = (settings.rows, settings.bins)
    on_tracks = Examples(
        snippets=to_uint8([track_snippet(normalized, track, cadence, shape) for track in tracks[labelled]], shape),
        labels=matches[labelled, 0].astype(np.float32),
        snrs=matches[labelled, 1].astype(np.float32),
        measurements=measurements(tracks[labelled], cadence),
        kinds=np.array([kind_of(track, interference, cadence) for track in tracks[labelled]], dtype=KIND),
        beside=beside(channels_in_ons(tracks[labelled], cadence), vetoed, cadence),
    )
    starts = _window_starts(rng, settings, [_channels(signal, cadence).mean() for signal in signals])
    half = settings.bins * 2**WINDOW_LEVEL / 2
    starts = starts[~(np.abs(doubtful - starts[:, None] - half) < half).any(axis=1)]
    present = [[s for s in signals if _inside(_channels(s, cadence) - start, 2 * half)] for start in starts]
    windows = Examples(
        snippets=to_uint8([window_snippet(normalized, start, cadence, shape) for start in starts], shape),
        labels=np.array([bool(inside) for inside in present], dtype=np.float32),
        snrs=np.array([max((signal.snr[0] for signal in inside), default=0.0) for inside in present], dtype=np.float32),
        measurements=np.empty((len(starts), 0), dtype=np.float32),
        kinds=np.zeros(len(starts), dtype=KIND),
        beside=np.zeros(len(starts), dtype=bool),
    )
    return on_tracks, windows


def draw_sky(
    rng: np.random.Generator, settings: ExampleSettings, background: tuple[NormalizedBlock, Geometry] | None = None
) -> tuple[NormalizedBlock, Geometry, list[Emitter], list[Emitter]]:
    """Return one patch, simulated or on a real background, with its geometry, its signals and its interference."""
    cadence = background[1] if background else geometry_of(Sky(header=patch_header(settings)).headers())
    signals, interference = draw_emitters(rng, settings, cadence.headers[0])
    if not background:
        power = draw_power(rng, [*signals, *interference], settings)
        return normalize_block(power, cadence), cadence, signals, interference
    inject(background[0], [*signals, *interference], cadence)
    return background[0], cadence, signals, interference


def followed(
    block: NormalizedBlock, cadence: Geometry, settings: ExampleSettings
) -> tuple[Float64[np.ndarray, "tracks fields"], np.ndarray]:
    """Return the tracks that a search follows in a patch, and why each is rejected."""
    gates = SearchSettings(max_drift_hz_s=settings.max_drift_hz_s).gates
    tracks, rejections, _ = find_tracks(block, cadence, gates)
    return tracks, rejections


def draw(
    seed: int,
    stream: Stream,
    patches: range,
    settings: ExampleSettings,
    processes: int = 1,
    source: Source | None = None,
) -> Iterator[dict[str, Examples]]:
    """Yield the examples of each search mode, a few patches at a time, drawn a little ahead by several processes.

    Args:
        seed: of the training.
        stream: from which the patches are drawn.
        patches: numbers of the patches, which are also the numbers of their backgrounds.
        settings: of the examples.
        processes: that draw.
        source: of real backgrounds; patches are simulated without one.
    """
    task = partial(draw_patches, seed=seed, stream=stream, settings=settings, source=source)
    yield from in_processes(task, patches, processes)


def in_processes(task: Callable[[range], Drawn], patches: range, processes: int) -> Iterator[Drawn]:
    """Yield what a task draws of some patches at a time, in their order, a little ahead by several processes."""
    pending = deque[Future[Drawn]]()
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        closing(Progress("patches", len(patches))) as progress,
    ):
        for first in range(0, len(patches), PATCHES_PER_TASK):
            pending.append(pool.submit(task, patches[first : first + PATCHES_PER_TASK]))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
                progress.advance(PATCHES_PER_TASK)
        yield from (future.result() for future in pending)


def draw_patches(
    patches: Sequence[int], seed: int, stream: Stream, settings: ExampleSettings, source: Source | None
) -> dict[str, Examples]:
    """Return the examples of each search mode from some patches, each drawn from its own generator.

    Args:
        patches: numbers of the patches.
        seed: of the training.
        stream: from which the patches are drawn.
        settings: of the examples.
        source: of real backgrounds, or None.
    """
    drawn = (
        draw_examples(generator(seed, stream, i), settings, source.normalized(i) if source else None) for i in patches
    )
    return dict(zip(MODES, map(Examples.join, zip(*drawn, strict=True)), strict=True))


def _window_starts(rng: np.random.Generator, settings: ExampleSettings, middles: list[float]) -> np.ndarray:
    """Return the first channels of a patch's windows: half of them near a signal, the others anywhere."""
    half = settings.bins * 2**WINDOW_LEVEL / 2
    order = rng.permutation(len(middles))[: settings.windows // 2]
    near = [middles[i] + rng.uniform(-0.8, 0.8) * half for i in order]
    anywhere = rng.uniform(half, settings.chans - half, settings.windows - len(near))
    return np.clip(np.array([*near, *anywhere]) - half, 0, settings.chans - 2 * half).round()


def _channels(signal: Emitter, cadence: Geometry) -> np.ndarray:
    """Return the channel of a signal in the middle of each observation."""
    header = cadence.headers[0]
    return (signal.track_mhz(cadence.middles * header.tsamp) - header.fch1) / header.foff


def _inside(channels: np.ndarray, width: float) -> bool:
    """Return whether a track is inside a window in all three ONs."""
    return bool(((channels[list(ON_POSITIONS)] >= 0) & (channels[list(ON_POSITIONS)] < width)).all())


def kind_of(track: np.ndarray, interference: Sequence[Emitter], cadence: Geometry) -> str:
    """Return the kind of the emitter nearest to a track, "" if none stays close to it in the ONs."""
    on = list(ON_POSITIONS)
    line, box = channels_at(track[None], cadence.middles[on])[0], as_track(track).box
    distances = [
        np.abs(line - _channels(emitter, cadence)[on]).max() - emitter.width_hz / cadence.hz for emitter in interference
    ]
    nearest = int(np.argmin(distances)) if distances else -1
    return interference[nearest].kind if distances and distances[nearest] < NEAR_CHANNELS + 2 * box else ""


def _match(track: np.ndarray, signals: list[Emitter], cadence: Geometry) -> tuple[float, float]:
    """Return label and SNR of a track: (1, SNR) on a signal, (0, 0) far from all, (-1, 0) near one: not labelled."""
    label = (0.0, 0.0)
    for signal in signals:
        distance = np.abs(channels_at(track[None], cadence.middles)[0] - _channels(signal, cadence))
        reach = 4 + 0.5 * as_track(track).box + 0.5 * signal.width_hz / cadence.hz
        if (distance < reach).all():
            return 1.0, min(signal.snr[i] for i in ON_POSITIONS)
        if distance.min() < 10 * reach:
            label = (-1.0, 0.0)
    return label
