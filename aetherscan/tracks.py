"""From power to tracks that may be candidates: equalize, propose in the ONs, follow through the cadence, gate, show.

The search, the training examples and the trace call these same functions.
"""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

from aetherscan.dedoppler import find_hits, row_noise, row_weights
from aetherscan.equalize import block_of, equalize
from aetherscan.geometry import Geometry, spikes
from aetherscan.normalize import snippet
from aetherscan.track import (
    DRIFT,
    FIELDS,
    HIT_SNR,
    OFF_AROUND,
    OFF_NEAR,
    RESIDUAL,
    SNR,
    START,
    STEADY,
    WIDTH,
    follow_hits,
)

MODES = ("tracks", "windows")
COARSEST = 4
"""Snippets are binned by 16 at most: their 512 bins are then 8,192 channels, 23 kHz."""
BOX_BINS = 1.5
"""Bins that a signal's width and smear should take, at least, in a snippet."""
LOOKED_AROUND = 1.5
"""SNR by which the brightest of many lines near a track may exceed what a line on it may: noise gives it that much."""
SAME_LINE = 16
"""Channels, beyond their widths, within which two tracks that lie together all cadence long are one signal."""
WINDOW_LEVEL = 3
"""Windows are binned by eight, as in the papers: 512 bins of 22 Hz."""
MEASUREMENTS = (
    "on_together", "on_weakest", "on_brightest", "off_together", "off_brightest", "off_to_on", "off_near",
    "off_around", "around_to_on", "drift_hz_s", "width_hz", "box_channels", "residual", "steady", "hit_to_on",
)  # fmt: skip
"""What the forest is told of a track beside its latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search. A threshold of None is the release's own; SNR is in sigma, of a line along its drift."""

    mode: str = "tracks"
    threshold: float | None = None
    max_drift_hz_s: float = 4.0
    hit_snr: float = 5.0
    min_on_snr: float = 4.0
    min_together_snr: float = 9.0
    max_off_snr: float = 5.0
    block_channels: int = 2**20
    threads: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a probability in 0-1, found {self.threshold}")
        if not 0 < self.max_drift_hz_s <= 10:
            raise ValueError(f"max_drift_hz_s: expected Hz/s above 0, at most 10, found {self.max_drift_hz_s}")
        if self.hit_snr < 4:
            raise ValueError(f"hit_snr: expected at least 4, below which noise alone is a hit, found {self.hit_snr}")
        if self.block_channels < 2**15:
            raise ValueError(f"block_channels: expected at least {2**15}, found {self.block_channels}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, found {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """A stretch in units of its noise, and what its rows count."""

    sigmas: Float32[np.ndarray, "obs time freq"]
    noise: Float32[np.ndarray, "obs level time"]
    weights: Float32[np.ndarray, "obs level time"]


def equalize_arrays(
    power: Float32[np.ndarray, "obs _ freq"],
    cadence: Geometry,
    first: int = 0,
    out: Float32[np.ndarray, "obs time stretch"] | None = None,
    channel: int = 0,
) -> Equalized:
    """Return six observations in units of their noise, as wide as `out`, the DC spikes of coarse channels set to zero.

    Column `first` of `power` is the band's channel number `channel`.
    """
    sigmas = np.empty_like(power) if out is None else out
    header, noise, weights = cadence.headers[0], [], []
    block, coarse = block_of(header.nfpc or header.coarse_chans), (header.coarse_chans, -channel % header.coarse_chans)
    dead = spikes(header, channel, channel + sigmas.shape[-1])
    for one, equal in zip(power, sigmas, strict=True):
        scatter = equalize(one[: cadence.rows], first, equal, block, coarse)
        equal[:, dead] = 0
        noise.append(row_noise(equal))
        weights.append(row_weights(noise[-1], scatter))
    return Equalized(sigmas=sigmas, noise=np.stack(noise), weights=np.stack(weights))


def find_tracks(
    equalized: Equalized,
    own: tuple[int, int],
    cadence: Geometry,
    settings: SearchSettings,
    clock: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> tuple[Float64[np.ndarray, "tracks fields"], np.ndarray, Counter[str]]:
    """Return every track that a hit in the channels `own` leads to, why it is no candidate ('' if it is), and counts.

    A hit that an earlier ON's track explains is not followed again.
    """
    max_drift = cadence.max_drift(settings.max_drift_hz_s)
    counts = Counter[str]()
    tracks, fates = np.empty((0, len(FIELDS))), np.empty(0, dtype="U32")
    for position in cadence.on:
        with clock("propose"):
            hits, sums = find_hits(
                equalized.sigmas[position], equalized.weights[position], max_drift=max_drift, min_snr=settings.hit_snr
            )
            hits = hits[(own[0] <= hits["channel"]) & (hits["channel"] < own[1])]
        with clock("follow"):
            known = tracks[(fates == "") | (fates == "in_an_off")]
            followed, explained = follow_hits(
                hits, position, equalized.sigmas, equalized.weights, cadence.middles, cadence.on,
                settings.min_on_snr, known,
            )  # fmt: skip
        counts.update(sums_above_threshold=sums, hits=len(hits), hits_on_a_track_already_followed=explained)
        tracks = np.concatenate([tracks, followed])
        fates = np.concatenate([fates, fate(followed, cadence, settings)])
    counts.update(f"tracks_{why}" for why in fates if why)
    counts["tracks"] = len(tracks)
    return tracks, fates, counts


def fate(tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry, settings: SearchSettings) -> np.ndarray:
    """Return for each track why it is no candidate: the first reason of several, '' where there is none.

    An emitter that wanders or curves may miss the line in the OFFs by a little: it shows near it.
    """
    on, off = tracks[:, SNR:][:, cadence.on], tracks[:, SNR:][:, cadence.off]
    reasons = {
        "weak_in_an_on": ~(on.min(axis=1) >= settings.min_on_snr),
        "weak_together": ~(on.sum(axis=1) / 3**0.5 >= settings.min_together_snr),
        "too_fast": np.abs(tracks[:, DRIFT]) > cadence.max_drift(settings.max_drift_hz_s) + 0.05,
        # Of one OFF or of all of them, as a side lobe shows faintly in each.
        "in_an_off": ~(np.maximum(off.max(axis=1), off.sum(axis=1) / 3**0.5) <= settings.max_off_snr)
        | (tracks[:, OFF_NEAR] > settings.max_off_snr + LOOKED_AROUND),
    }
    return np.select(list(reasons.values()), list(reasons), default="").astype("U32")


def merge(tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry) -> list[int]:
    """Return which is the brightest of each group of tracks that follow the same line, by channel."""
    last = cadence.middles[-1] + cadence.rows / 2
    order = np.lexsort((tracks[:, START], -tracks[:, SNR:][:, cadence.on].sum(axis=1)))
    kept: list[int] = []
    for i in order:
        one, others = tracks[i], tracks[kept]
        reach = SAME_LINE + 2 * (np.hypot(one[WIDTH], one[DRIFT]) + np.hypot(others[:, WIDTH], others[:, DRIFT]))
        apart = np.maximum(
            np.abs(others[:, START] - one[START]),
            np.abs(others[:, START] + others[:, DRIFT] * last - one[START] - one[DRIFT] * last),
        )
        if not (apart < reach).any():
            kept.append(int(i))
    return sorted(kept, key=lambda i: float(tracks[i, START]))


@njit(cache=True, nogil=True)
@no_type_check
def snippet_level(box: float) -> int:
    """Return the binning, as a power of two, at which a box of so many channels takes a bin and a half in each row."""
    return max(0, min(COARSEST, math.floor(math.log2(box / BOX_BINS))))


def track_snippet(
    equalized: Equalized, track: Float64[np.ndarray, " fields"], cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees of a track, centred on it in each observation."""
    centres = track[START] + track[DRIFT] * cadence.middles
    return _shown(equalized, centres, snippet_level(math.hypot(track[WIDTH], track[DRIFT])), cadence, shape)


def window_snippet(
    equalized: Equalized, start: float, cadence: Geometry, shape: tuple[int, int], level: int = WINDOW_LEVEL
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees of the window that begins at channel `start`, binned by eight, or by 2**level."""
    return _shown(equalized, np.full(6, start + shape[1] * 2**level / 2), level, cadence, shape)


def _shown(
    equalized: Equalized, centres: Float64[np.ndarray, " obs"], level: int, cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    return snippet(equalized.sigmas, equalized.noise, centres, level, *shape)[cadence.order]


def measurements(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry
) -> Float32[np.ndarray, "tracks measurements"]:
    """Return what the forest is told of each track beside its latents: the columns of `MEASUREMENTS`."""
    on, off = tracks[:, SNR:][:, cadence.on], tracks[:, SNR:][:, cadence.off]
    box = np.hypot(tracks[:, WIDTH], tracks[:, DRIFT])
    together = on.sum(axis=1) / 3**0.5
    columns = {
        "on_together": together,
        "on_weakest": on.min(axis=1) / on.mean(axis=1),
        "on_brightest": on.max(axis=1) / on.mean(axis=1),
        "off_together": off.sum(axis=1) / 3**0.5,
        "off_brightest": off.max(axis=1),
        "off_to_on": off.sum(axis=1) / on.sum(axis=1),
        "off_near": tracks[:, OFF_NEAR],
        "off_around": tracks[:, OFF_AROUND],
        "around_to_on": tracks[:, OFF_AROUND] / on.mean(axis=1),
        "drift_hz_s": np.abs(tracks[:, DRIFT]) * cadence.hz / cadence.headers[0].tsamp,
        "width_hz": tracks[:, WIDTH] * cadence.hz,
        "box_channels": box,
        "residual": tracks[:, RESIDUAL],
        "steady": tracks[:, STEADY],
        "hit_to_on": tracks[:, HIT_SNR] / on.mean(axis=1),
    }
    assert tuple(columns) == MEASUREMENTS
    return np.stack(list(columns.values()), axis=1).astype(np.float32)
