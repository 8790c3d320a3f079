"""Labelled tracks and windows to learn from: skies in memory, searched by the code that serves.

A patch of six observations at native resolution holds noise, gains, bursts, a piece of filter shape, emitters of the
zoo and ON-only tones. It is equalized, its tracks are found and cut out as in a search; a track that lies on a tone is
a signal, and whatever else got as far is not. Kinds that come close to looking like a signal are drawn more
often than the sky has them, and fainter. What is drawn for patch k depends on the seed and k alone.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from aetherscan.geometry import ON, Geometry, geometry_of
from aetherscan.inject import Emitter, add_emitter
from aetherscan.observation import Header
from aetherscan.simulate import (
    NOISE,
    SCAN_S,
    Sky,
    burst,
    filter_shape,
    gbt_header,
    log_uniform,
    noise,
    random_interference,
    random_levels,
    random_signal,
)
from aetherscan.track import DRIFT, START, WIDTH
from aetherscan.tracks import (
    SearchSettings,
    equalize_arrays,
    find_tracks,
    measurements,
    track_snippet,
    window_snippet,
)

KINDS = {
    # kind: (share, range of SNR)
    "persistent": (1, (6, 3000)),
    "drifting": (2, (6, 3000)),
    "curved": (1, (6, 1000)),
    "wandering": (2, (6, 1000)),
    "wide": (1, (8, 3000)),
    "pulsed": (2, (6, 100)),
    "intermittent": (3, (6, 100)),
    "side_lobe": (6, (6, 40)),
    "off_only": (1, (6, 100)),
    "partial": (3, (6, 60)),
}
"""What is no signal: the zoo's kinds, and tones that one or two of the ONs lack."""
COARSE = 2**20
SHADES = 255
"""Snippets are kept as bytes: 0.03 of a row's noise is one shade."""
WINDOWS = 6
"""Of each patch, for `--mode windows`; half of them around a tone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSettings:
    """What patches look like."""

    chans: int = 2**16
    tones: int = 7
    interference: int = 18
    rejected: float = 0.3  # share of what a search finds in the OFFs too that is shown to the encoder
    signal_snr: tuple[float, float] = (6.0, 60.0)
    max_drift_hz_s: float = 4.0
    rows: int = 16
    bins: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Snippets with what is known of them; tracks also with their measurements."""

    snippets: UInt8[np.ndarray, "batch obs rows bins"]  # 0..1 in `SHADES`
    labels: Float32[np.ndarray, " batch"]  # 1 where there is a signal from the target
    snrs: Float32[np.ndarray, " batch"]  # of the signal, in an ON; 0 without one
    measurements: Float32[np.ndarray, "batch measurements"]  # no columns for windows
    gated: np.ndarray  # whether a search would have shown it to the forest

    def only(self, chosen: np.ndarray) -> "Examples":
        """Return some of them."""
        return Examples(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    @staticmethod
    def join(parts: Sequence["Examples"]) -> "Examples":
        """Return several as one."""
        names = [one.name for one in fields(Examples)]
        return Examples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def patch_header(settings: ExampleSettings) -> Header:
    """Return the header of a patch: a part of a coarse channel."""
    return replace(gbt_header(settings.chans, rows=settings.rows), nfpc=COARSE)


def draw_emitters(rng: np.random.Generator, settings: ExampleSettings) -> tuple[list[Emitter], list[Emitter]]:
    """Return the tones and the interference of a patch, each tone with its whole track inside."""
    header = patch_header(settings)
    span = 5 * SCAN_S + header.duration_s

    def placed(emitter: Emitter) -> Emitter:
        reach = emitter.drift_hz_s * span / (header.foff * 1e6)
        start = rng.uniform(max(0, -reach) + 50, settings.chans - max(0, reach) - 50)
        return replace(emitter, frequency_mhz=header.frequency(start))

    def tone(low: float, high: float) -> Emitter:
        return placed(random_signal(rng, header.fch1, log_uniform(rng, low, high), settings.max_drift_hz_s))

    kinds, shares = list(KINDS), np.array([share for share, _ in KINDS.values()], dtype=float)
    others = []
    for which in rng.choice(len(kinds), settings.interference, p=shares / shares.sum()):
        kind = kinds[which]
        limits = KINDS[kind][1]
        if kind == "partial":
            kept = rng.permutation(np.array(ON))[: rng.integers(1, 3)]
            one = tone(*limits)
            others.append(replace(one, kind=kind, snr=tuple(s if i in kept else 0.0 for i, s in enumerate(one.snr))))
        else:
            others.append(placed(random_interference(rng, header.fch1, log_uniform(rng, *limits), kind)))
    return [tone(*settings.signal_snr) for _ in range(settings.tones)], others


def draw_power(
    rng: np.random.Generator, emitters: list[Emitter], settings: ExampleSettings
) -> Float32[np.ndarray, "obs time freq"]:
    """Return six observations of a patch that lies anywhere in a coarse channel; level 1 in its middle."""
    header, (gains, bursts) = patch_header(settings), random_levels(rng)
    shape = filter_shape(COARSE)
    last = shape.size - settings.chans
    first = int(rng.choice(np.array([0, last, rng.integers(last)])))
    power = np.empty((6, header.ntime, settings.chans), dtype=np.float32)
    for position in range(6):
        power[position] = noise(rng, header.ntime, settings.chans)
        for _, row, times in (one for one in bursts if one[0] == position):
            power[position, row] = burst(power[position, row], times)
        for emitter in emitters:
            add_emitter(
                power[position], emitter, position=position, start_s=position * SCAN_S, tsamp=header.tsamp,
                fch1=header.fch1, foff=header.foff, noise=np.full(header.ntime, NOISE),
            )  # fmt: skip
        power[position] *= shape[first : first + settings.chans] * np.float32(gains[position])
    return power


def draw_examples(rng: np.random.Generator, settings: ExampleSettings) -> tuple[Examples, Examples]:
    """Return the tracks and some windows of one patch."""
    tones, others = draw_emitters(rng, settings)
    cadence = geometry_of(Sky(header=patch_header(settings)).headers())
    equalized = equalize_arrays(draw_power(rng, [*tones, *others], settings), cadence)
    search = SearchSettings(max_drift_hz_s=settings.max_drift_hz_s)
    tracks, fates, _ = find_tracks(equalized, (0, settings.chans), cadence, search)
    shown = (fates == "") | ((fates == "in_an_off") & (rng.random(len(fates)) < settings.rejected))
    tracks, fates = tracks[shown], fates[shown]
    on_tone = np.array([_match(track, tones, cadence) for track in tracks]).reshape(-1, 2)
    clear = on_tone[:, 0] >= 0  # neither on a tone nor away from all of them: found, but measured wrongly
    shape = (settings.rows, settings.bins)
    found = Examples(
        snippets=_stack([track_snippet(equalized, track, cadence, shape) for track in tracks[clear]], shape),
        labels=on_tone[clear, 0].astype(np.float32),
        snrs=on_tone[clear, 1].astype(np.float32),
        measurements=measurements(tracks[clear], cadence),
        gated=fates[clear] == "",
    )
    middles = [_channels(tone, cadence).mean() for tone in tones]
    half = settings.bins * 4
    around = [middles[i] + rng.uniform(-0.8, 0.8) * half for i in rng.permutation(len(tones))[: WINDOWS // 2]]
    anywhere = rng.uniform(half, settings.chans - half, WINDOWS - len(around))
    starts = np.clip(np.array([*around, *anywhere]) - half, 0, settings.chans - 2 * half).round()
    held = [[tone for tone in tones if _inside(_channels(tone, cadence) - start, 2 * half)] for start in starts]
    windows = Examples(
        snippets=_stack([window_snippet(equalized, start, cadence, shape) for start in starts], shape),
        labels=np.array([bool(one) for one in held], dtype=np.float32),
        snrs=np.array([max((tone.snr[0] for tone in one), default=0.0) for one in held], dtype=np.float32),
        measurements=np.empty((len(starts), 0), dtype=np.float32),
        gated=np.ones(len(starts), dtype=bool),
    )
    return found, windows


def draw(seed: list[int], patches: int, settings: ExampleSettings, processes: int = 1) -> dict[str, Examples]:
    """Return the tracks and the windows of so many patches, drawn by so many processes."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        one = partial(_patch, seed=seed, settings=settings)
        tracks, windows = zip(*pool.map(one, range(patches), chunksize=8), strict=True)
    return {"tracks": Examples.join(tracks), "windows": Examples.join(windows)}


def _patch(index: int, seed: list[int], settings: ExampleSettings) -> tuple[Examples, Examples]:
    return draw_examples(np.random.default_rng([*seed, index]), settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """What the encoder is fed, and how much of it is in memory."""

    seed: int = 1
    batch: int = 32
    train_files: tuple[Path, ...] = ()  # plates (`.npy`), or six observations after each other; none: simulated
    num_target_backgrounds: int = 15_000  # of 4,096 channels each
    background_load_chunk_size: int = 200
    max_chunks_per_file: int = 25
    signal_injection_chunk_size: int = 1_000
    windows: float = 0.25  # share that `--mode windows` would show
    examples: ExampleSettings = field(default_factory=ExampleSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Examples for the encoder, epoch after epoch."""

    settings: FeedSettings

    def epoch(
        self, number: int, count: int, snr: tuple[float, float], *, unseen: bool = False
    ) -> Iterator[tuple[UInt8[np.ndarray, "batch obs rows bins"], Float32[np.ndarray, " batch"]]]:
        """Yield `count` examples in batches, the last of them smaller, as the seed, `number` and their places have it.

        Args:
            number: of the epoch.
            count: a multiple of four.
            snr: of signals, lowest and highest, before each ON's own 0.8 to 1.25.
            unseen: on backgrounds kept for validation, which no other epoch shows.
        """
        drawn = replace(self.settings.examples, signal_snr=snr)
        snippets, labels, patch = [], [], 0
        ready = 0
        for first in range(0, count, self.settings.batch):
            wanted = min(self.settings.batch, count - first)
            while ready < wanted:
                rng = np.random.default_rng([self.settings.seed, int(unseen), number, patch])
                for part in draw_examples(rng, drawn):
                    snippets.append(part.snippets)
                    labels.append(part.labels)
                    ready += len(part.labels)
                patch += 1
            shown, known = np.concatenate(snippets), np.concatenate(labels)
            yield shown[:wanted], known[:wanted]
            snippets, labels, ready = [shown[wanted:]], [known[wanted:]], ready - wanted


@contextmanager
def feed(settings: FeedSettings, processes: int = 1) -> Iterator[Feed]:
    """Open a feed that so many processes fill."""
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, found {processes}")
    yield Feed(settings=settings)


def _stack(
    snippets: list[Float32[np.ndarray, "obs rows bins"]], shape: tuple[int, int]
) -> UInt8[np.ndarray, "batch obs rows bins"]:
    if not snippets:
        return np.empty((0, 6, *shape), dtype=np.uint8)
    return np.rint(np.stack(snippets) * SHADES).astype(np.uint8)


def _channels(tone: Emitter, cadence: Geometry) -> np.ndarray:
    """Return where a tone is in the middle of each observation."""
    header = cadence.headers[0]
    return (tone.track_mhz(cadence.middles * header.tsamp) - header.fch1) / header.foff


def _inside(channels: np.ndarray, width: float) -> bool:
    """Say whether a track is in a window in all the ONs."""
    return bool(((channels[list(ON)] >= 0) & (channels[list(ON)] < width)).all())


def _match(track: np.ndarray, tones: list[Emitter], cadence: Geometry) -> tuple[float, float]:
    """Return (1, SNR) for a track that lies on a tone, (0, 0) far from all of them, (-1, 0) in between."""
    label = (0.0, 0.0)
    for tone in tones:
        apart = np.abs(track[START] + track[DRIFT] * cadence.middles - _channels(tone, cadence))
        reach = 4 + 0.5 * np.hypot(track[WIDTH], track[DRIFT]) + 0.5 * tone.width_hz / cadence.hz
        if (apart < reach).all():
            return 1.0, min(tone.snr[i] for i in ON)
        if apart.min() < 10 * reach:
            label = (-1.0, 0.0)
    return label
