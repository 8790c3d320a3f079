"""Labelled tracks and windows to learn from: skies in memory, searched by the code that serves.

A patch is simulated, or it is a background that tones and interference are put into: a piece of a cadence in files, or
plates side by side, each equalized by itself, at whose borders what was there before ends. Its tracks are found and cut
out as in a search; a track that lies on a tone is a signal, and whatever else got as far is not. What is drawn for
patch k depends on the seed and k alone. Forests learn from these; the encoder, which needs many more and no
measurements, from the feed.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context

import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.options.search import MODES, SearchSettings
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.cutouts import to_uint8, track_snippet, window_snippet
from aetherscan.search.features import measurements
from aetherscan.search.follow import DRIFT, SNR, START, WIDTH
from aetherscan.search.on_off import find_tracks
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky
from aetherscan.train.background_cache import inject
from aetherscan.train.backgrounds import Source
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Stream, generator

AT_ONCE = 8
"""Patches that a process draws at a time."""
HINT = 3.0
"""SNR in an OFF that one signal from the target in 250 has by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Snippets with what is known of them; tracks also with their measurements."""

    snippets: UInt8[np.ndarray, "batch obs rows bins"]  # 0..1 in `UINT8_MAX`
    labels: Float32[np.ndarray, " batch"]  # 1 where there is a signal from the target
    snrs: Float32[np.ndarray, " batch"]  # of the signal, in an ON; 0 without one
    measurements: Float32[np.ndarray, "batch measurements"]  # no columns for windows

    def only(self, chosen: np.ndarray) -> "Examples":
        """Return some of them."""
        return Examples(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    @staticmethod
    def join(parts: Sequence["Examples"]) -> "Examples":
        """Return several as one."""
        names = [one.name for one in fields(Examples)]
        return Examples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def draw_examples(
    rng: np.random.Generator, settings: ExampleSettings, background: tuple[NormalizedBlock, Geometry] | None = None
) -> tuple[Examples, Examples]:
    """Return the tracks and some windows of one patch: a simulated one, or a background that tones are put into.

    Of what a search finds in a background by itself nobody knows what it is. Here it is taken for interference where an
    OFF hints at it (`HINT`), and for nothing where it is in the ONs alone, nor are windows shown that hold such a line;
    that windows hold no fainter signal from the target is assumed, as a target that has one is rare.
    """
    cadence = background[1] if background else geometry_of(Sky(header=patch_header(settings)).headers())
    tones, others = draw_emitters(rng, settings, cadence.headers[0])
    if background:
        equalized = background[0]
        inject(equalized, [*tones, *others], cadence)
    else:
        equalized = normalize_block(draw_power(rng, [*tones, *others], settings), cadence)
    search = SearchSettings(max_drift_hz_s=settings.max_drift_hz_s)
    tracks, rejections, _ = find_tracks(equalized, (0, settings.chans), cadence, search)
    tracks = tracks[rejections == ""]
    on_tone = np.array([_match(track, tones, cadence) for track in tracks]).reshape(-1, 2)
    clear = on_tone[:, 0] >= 0  # neither on a tone nor away from all of them: found, but measured wrongly
    doubtful = np.empty(0)
    if background:
        drawn = np.array([_match(track, [*tones, *others], cadence)[0] != 0 for track in tracks], dtype=bool)
        unknown = ~drawn & (tracks[:, SNR:][:, cadence.off].max(axis=1, initial=0) < HINT)
        clear &= ~unknown
        doubtful = tracks[unknown, START] + tracks[unknown, DRIFT] * cadence.middles.mean()
    shape = (settings.rows, settings.bins)
    found = Examples(
        snippets=to_uint8([track_snippet(equalized, track, cadence, shape) for track in tracks[clear]], shape),
        labels=on_tone[clear, 0].astype(np.float32),
        snrs=on_tone[clear, 1].astype(np.float32),
        measurements=measurements(tracks[clear], cadence),
    )
    middles = [_channels(tone, cadence).mean() for tone in tones]
    half = settings.bins * 4
    around = [middles[i] + rng.uniform(-0.8, 0.8) * half for i in rng.permutation(len(tones))[: settings.windows // 2]]
    anywhere = rng.uniform(half, settings.chans - half, settings.windows - len(around))
    starts = np.clip(np.array([*around, *anywhere]) - half, 0, settings.chans - 2 * half).round()
    starts = starts[~(np.abs(doubtful - starts[:, None] - half) < half).any(axis=1)]
    held = [[tone for tone in tones if _inside(_channels(tone, cadence) - start, 2 * half)] for start in starts]
    windows = Examples(
        snippets=to_uint8([window_snippet(equalized, start, cadence, shape) for start in starts], shape),
        labels=np.array([bool(one) for one in held], dtype=np.float32),
        snrs=np.array([max((tone.snr[0] for tone in one), default=0.0) for one in held], dtype=np.float32),
        measurements=np.empty((len(starts), 0), dtype=np.float32),
    )
    return found, windows


def draw(
    seed: int,
    stream: Stream,
    patches: range,
    settings: ExampleSettings,
    processes: int = 1,
    source: Source | None = None,
) -> Iterator[dict[str, Examples]]:
    """Yield the tracks and the windows of so many patches, some at a time, on backgrounds or simulated.

    So many processes draw ahead of what is done with them, and never far.
    """
    one = partial(draw_patches, seed=seed, stream=stream, settings=settings, source=source)
    coming = deque[Future[dict[str, Examples]]]()
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        tqdm(desc="patches", total=len(patches), leave=False, disable=not sys.stderr.isatty()) as bar,
    ):
        for first in range(0, len(patches), AT_ONCE):
            coming.append(pool.submit(one, patches[first : first + AT_ONCE]))
            if len(coming) > 2 * processes:
                yield coming.popleft().result()
                bar.update(AT_ONCE)
        yield from (ahead.result() for ahead in coming)


def draw_patches(
    patches: Sequence[int], seed: int, stream: Stream, settings: ExampleSettings, source: Source | None
) -> dict[str, Examples]:
    """Return the tracks and the windows of some patches, each drawn from its own generator."""
    drawn = (
        draw_examples(generator(seed, stream, i), settings, source.equalized(i) if source else None) for i in patches
    )
    return dict(zip(MODES, map(Examples.join, zip(*drawn, strict=True)), strict=True))


def _channels(tone: Emitter, cadence: Geometry) -> np.ndarray:
    """Return where a tone is in the middle of each observation."""
    header = cadence.headers[0]
    return (tone.track_mhz(cadence.middles * header.tsamp) - header.fch1) / header.foff


def _inside(channels: np.ndarray, width: float) -> bool:
    """Say whether a track is in a window in all the ONs."""
    return bool(((channels[list(ON_POSITIONS)] >= 0) & (channels[list(ON_POSITIONS)] < width)).all())


def _match(track: np.ndarray, tones: list[Emitter], cadence: Geometry) -> tuple[float, float]:
    """Return (1, SNR) for a track that lies on a tone, (0, 0) far from all of them, (-1, 0) in between."""
    label = (0.0, 0.0)
    for tone in tones:
        apart = np.abs(track[START] + track[DRIFT] * cadence.middles - _channels(tone, cadence))
        reach = 4 + 0.5 * np.hypot(track[WIDTH], track[DRIFT]) + 0.5 * tone.width_hz / cadence.hz
        if (apart < reach).all():
            return 1.0, min(tone.snr[i] for i in ON_POSITIONS)
        if apart.min() < 10 * reach:
            label = (-1.0, 0.0)
    return label
