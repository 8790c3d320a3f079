"""From power to tracks that may be candidates: equalize, propose in the ONs, follow through the cadence, gate, show.

The search, the training examples and the trace call these same functions.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import Geometry
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.dedoppler import find_hits
from aetherscan.search.follow import (
    DRIFT,
    FIELDS,
    OFF_NEAR,
    SNR,
    START,
    WIDTH,
    follow_hits,
)

LOOKED_AROUND = 1.5
"""SNR by which the brightest of many lines near a track may exceed what a line on it may: noise gives it that much."""
SAME_LINE = 16
"""Channels, beyond their widths, within which two tracks that lie together all cadence long are one signal."""


def find_tracks(
    equalized: NormalizedBlock,
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
    tracks, rejections = np.empty((0, len(FIELDS))), np.empty(0, dtype="U32")
    for position in cadence.on:
        with clock("propose"):
            hits, sums = find_hits(
                equalized.sigmas[position], equalized.weights[position], max_drift=max_drift, min_snr=settings.hit_snr
            )
            hits = hits[(own[0] <= hits["channel"]) & (hits["channel"] < own[1])]
        with clock("follow"):
            known = tracks[(rejections == "") | (rejections == "in_an_off")]
            followed, explained = follow_hits(
                hits, position, equalized.sigmas, equalized.weights, cadence.middles, cadence.on,
                settings.min_on_snr, known,
            )  # fmt: skip
        counts.update(sums_above_threshold=sums, hits=len(hits), hits_on_a_track_already_followed=explained)
        tracks = np.concatenate([tracks, followed])
        rejections = np.concatenate([rejections, rejection_reasons(followed, cadence, settings)])
    counts.update(f"tracks_{why}" for why in rejections if why)
    counts["tracks"] = len(tracks)
    return tracks, rejections, counts


def rejection_reasons(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry, settings: SearchSettings
) -> np.ndarray:
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
