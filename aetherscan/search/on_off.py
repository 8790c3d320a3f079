"""From a normalized block to tracks: propose lines in the ONs, follow them, apply the ON/OFF rule.

A signal from the target is in every ON and in no OFF of the cadence: the rule of Enriquez et al. 2017
(arXiv:1709.03491) and Price et al. 2020 (arXiv:1906.07750), which Ma et al. 2023 (arXiv:2301.12670) leave to a neural
network. Those searches compare the hits of single observations. Here each observation is measured along one track, so
that a faint side lobe in all OFFs counts too. The search, the training examples and `search --trace` call these
functions.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from jaxtyping import Float64
from scipy.special import chdtri

from aetherscan.cadence.geometry import Geometry
from aetherscan.header import NOT_MEASURED
from aetherscan.options.search import Gates
from aetherscan.search.bandpass import NormalizedBlock, count_unmeasured
from aetherscan.search.curved import BETTER, LOOSE, follow_curves
from aetherscan.search.dedoppler import MOST_HITS, find_hits
from aetherscan.search.follow import (
    CURVATURE,
    DRIFT,
    HIT_SNR,
    OFF_CLOSE,
    OFF_WIDE,
    RESIDUAL,
    SNR,
    START,
    VALID,
    Arrays,
    boxes,
    channels_at,
    follow_hits,
    track_columns,
)
from aetherscan.search.joint import measure_hits

CLOSE_SNR_EXCESS = 1.5
"""SNR by which the brightest of many lines close to a track exceeds, in noise, that of the one line on it."""
HIT_MARGIN = 1.75
"""SNR by which the sums of bins may miss the best straight line."""
FAINTEST_ON, FAINT_OFF, FAINT_OFFS, FAINT_OFF_CLOSE, FAINT_OFF_WIDE = 2.0, 4.0, 3.0, 4.5, 5.0
"""SNR that a faint line must have in each ON, and may have in an OFF, in all OFFs, close to it, and around it."""
UNEVEN, UNEVEN_SHARE = 0.011, 0.1
"""Share of steady lines that are more uneven in the ONs, and variance allowed as a share of the mean squared."""
DRIFT_TOLERANCE = 0.05
"""Channels per row by which a track may exceed the largest drift."""
LEAST_SENSITIVE = 0.4
"""With it the limit of SNR 5 in an OFF becomes 2, which noise passes once in 44 OFFs."""
BRIGHT_HIT = 10.0
"""SNR of a hit in one ON that is a line, whatever the other observations show: the threshold of most searches."""
SAME_LINE = 16
"""Channels, beyond their widths, within which two tracks that stay together all cadence long are one signal."""
WITH_A_KIND = ("", "in_an_off")
"""Rejection reasons of the lines that have a kind: none, or an OFF that shows the line."""


def find_tracks(
    block: NormalizedBlock,
    cadence: Geometry,
    gates: Gates,
    clock: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> tuple[Float64[np.ndarray, "tracks fields"], np.ndarray, Counter[str]]:
    """Return the tracks of all hits outside the block's overlap, why each is rejected, and counts by stage.

    Tracks are rows as `follow.Track` defines them, in file channels. A rejection reason is '' for a track that may be a
    candidate. Hits of the middle ON are followed through the others, each at its own place; those of the other ONs only
    where the middle one was not measured. Where no straight line explains a hit, a curved one through all ONs takes the
    place of its track if it is brighter. Joint hits that no track explains are measured on one straight line.

    Args:
        block: the observations.
        cadence: their geometry; its channels are those of the file.
        gates: what a track must show.
        clock: measures the time spent in a stage.
    """
    max_drift = cadence.max_drift(gates.max_drift_hz_s)
    low, high = block.overlap[0], block.sigmas.shape[-1] - block.overlap[1]
    on, off, lengths = (np.array(part, dtype=np.int64) for part in (cadence.on, cadence.off, cadence.lengths))
    rows = np.empty(block.sigmas.shape[1])
    arrays = Arrays(block.sigmas, block.weights, lengths, cadence.middles, on, off, rows)
    home, counts = home_of(cadence), Counter[str]()
    with clock("propose"):
        hits, joint_hits, peaks = find_hits(
            block.sigmas, block.weights, np.roll(on, -home), lengths, cadence.starts,
            max_drift=max_drift, min_snrs=(gates.hit_snr, gates.min_joint_snr - HIT_MARGIN),
        )  # fmt: skip
        hits, joint_hits = (some[(low <= some["channel"]) & (some["channel"] < high)] for some in (hits, joint_hits))
    tracks, rejections = np.empty((0, track_columns(len(cadence.headers)))), np.empty(0, dtype="U32")
    with clock("follow"):
        tracks, _ = follow_hits(hits, home, arrays, gates.min_on_snr, tracks)
        rejections = rejection_reasons(tracks, cadence, gates)
    with clock("curved"):
        on_line = tracks[:, RESIDUAL] <= LOOSE
        straight = tracks[(rejections == "in_an_off") | ((rejections == "") & on_line)]
        tried = np.isin(rejections, ["weak_in_an_on", "weak_together"]) | ((rejections == "") & ~on_line)
        curved = follow_curves(hits, tried, home, arrays, (gates.min_on_snr, gates.min_together_snr), straight)
        passed = on_snr(tracks, cadence) * (rejections == "")
        bent = on_snr(curved, cadence) ** 2 > passed**2 + BETTER
        tracks[bent] = curved[bent]
        rejections[bent] = rejection_reasons(tracks[bent], cadence, gates)
    with clock("follow"):
        for other, seen in _hits_unseen_by(home, block, cadence, gates):
            inside = (low <= seen["channel"]) & (seen["channel"] < high)
            more, _ = follow_hits(seen[inside], other, arrays, gates.min_on_snr, tracks[rejections == ""])
            tracks = np.concatenate([tracks, more])
            rejections = np.concatenate([rejections, rejection_reasons(more, cadence, gates)])
    with clock("joint"):
        known = tracks[np.isin(rejections, WITH_A_KIND)]
        measured, explained = measure_hits(joint_hits, home, arrays, gates.min_joint_snr, known)
        tracks = np.concatenate([tracks, measured])
        rejections = np.concatenate([rejections, rejection_reasons(measured, cadence, gates, straight=True)])
    counts.update(
        sums_above_threshold=sum(peaks),
        sums_dropped=sum(max(0, count - MOST_HITS) for count in peaks),
        hits=len(hits),
        joint_hits=len(joint_hits),
        joint_hits_on_a_track=explained,
        curved_tracks=int(bent.sum()),
    )
    counts.update(f"tracks_{reason}" for reason in rejections if reason)
    counts["tracks"] = len(tracks)
    tracks[:, START] += block.first
    return tracks, rejections, counts


def _hits_unseen_by(
    home: int, block: NormalizedBlock, cadence: Geometry, gates: Gates
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the other ONs, counted among the ONs, with their hits where too little of the ON `home` was measured."""
    position, rows = cadence.on[home], cadence.lengths[cadence.on[home]]
    lost = count_unmeasured(block.sigmas[position, :rows]) / rows > 1 - gates.min_valid
    for spike in block.spikes:  # a DC spike is in all observations
        lost[max(0, spike - 1) : spike + 2] = False
    for other in range(len(cadence.on)) if lost.any() else ():
        if other == home:
            continue
        hits, _, _ = find_hits(
            block.sigmas, block.weights, np.array(cadence.on)[[other]], np.array(cadence.lengths), cadence.starts,
            max_drift=cadence.max_drift(gates.max_drift_hz_s), min_snrs=(gates.hit_snr, np.inf),
        )  # fmt: skip
        gap = cadence.middles[position] - cadence.middles[cadence.on[other]]
        there = np.round(hits["channel"] + hits["drift"] * gap).astype(int).clip(0, len(lost) - 1)
        yield other, hits[lost[there]]


def on_snr(tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry) -> Float64[np.ndarray, " tracks"]:
    """Return the SNR of the ONs together; 0 where one was not measured."""
    return np.nan_to_num(tracks[:, SNR::2][:, cadence.on].sum(axis=1) / len(cadence.on) ** 0.5)


def home_of(cadence: Geometry) -> int:
    """Return the ON that is searched alone, counted from 0 among the ONs: the middle one."""
    return len(cadence.on) // 2


def hits_between(
    block: NormalizedBlock,
    cadence: Geometry,
    on: Sequence[int],
    limits: tuple[float, float],
    max_drift: float,
    min_snrs: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hits of one ON, and of several together, in part of a block, brightest first: records of `HIT`.

    Args:
        block: the observations.
        cadence: their geometry.
        on: positions of the ONs, the first alone.
        limits: file channels between which to search; beyond the block there are none.
        max_drift: channels per row, in either direction.
        min_snrs: of a hit in one ON, and in all of them together.
    """
    low, high = (int(max(0, limit - block.first)) for limit in limits)
    part = np.ascontiguousarray(block.sigmas[..., low:high])
    alone, joint, _ = find_hits(
        part, block.weights, np.array(on), np.array(cadence.lengths), cadence.starts,
        max_drift=max_drift, min_snrs=min_snrs,
    )  # fmt: skip
    for hits in (alone, joint):
        hits["channel"] += low + block.first
    return alone, joint


def rejection_reasons(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry, gates: Gates, *, straight: bool = False
) -> np.ndarray:
    """Return for each track the first reason why it is not a candidate, '' if there is none.

    An ON that is too faint where most of it was not measured is another reason than one that is too faint. The OFFs are
    also tested close to the track, for an emitter that wanders or curves may miss the straight line in
    them by a little.

    A track that was measured on one straight line may be fainter if it looks like a steady line in noise: about as
    bright in all ONs, and with less in the OFFs.

    Args:
        tracks: rows as `follow.Track` defines them.
        cadence: their geometry.
        gates: what a track must show.
        straight: whether they were measured on one straight line.
    """
    on, off = tracks[:, SNR::2][:, cadence.on], tracks[:, SNR::2][:, cadence.off]
    off = off / off_sensitivity(cadence)
    masked = tracks[:, VALID::2][:, cadence.on] < gates.min_valid
    together, mean, offs = on.sum(axis=1) / len(cadence.on) ** 0.5, on.mean(axis=1), len(cadence.off) ** 0.5
    faint = np.full(len(tracks), straight) & ~(
        (on.min(axis=1) >= gates.min_on_snr) & (together >= gates.min_together_snr)
    )
    uneven = ((on - mean[:, None]) ** 2).sum(axis=1) > chdtri(len(cadence.on) - 1, UNEVEN) + UNEVEN_SHARE * mean**2
    min_on = np.where(faint, FAINTEST_ON, gates.min_on_snr)
    close = np.where(faint, FAINT_OFF_CLOSE, gates.max_off_snr + CLOSE_SNR_EXCESS)
    reasons = {
        "an_on_not_measured": (~(on >= min_on[:, None]) & masked).any(axis=1),
        "weak_in_an_on": ~(on.min(axis=1) >= min_on),
        "weak_together": ~(together >= np.where(faint, gates.min_joint_snr, gates.min_together_snr)),
        "uneven": faint & uneven,
        "too_fast": np.abs(tracks[:, DRIFT] + tracks[:, CURVATURE] * cadence.end / 2)
        > cadence.max_drift(gates.max_drift_hz_s) + DRIFT_TOLERANCE,
        # In one OFF or in all of them together, as a side lobe is.
        "in_an_off": ~(off.max(axis=1) <= np.where(faint, min(FAINT_OFF, gates.max_off_snr), gates.max_off_snr))
        | ~(off.sum(axis=1) <= np.where(faint, min(FAINT_OFFS, gates.max_off_snr), gates.max_off_snr) * offs)
        | (tracks[:, OFF_CLOSE] > close)
        | (faint & (tracks[:, OFF_WIDE] > FAINT_OFF_WIDE)),
    }
    return np.select(list(reasons.values()), list(reasons), default="").astype("U32")


def off_sensitivity(cadence: Geometry) -> Float64[np.ndarray, " offs"]:
    """Return the SNR that a steady line has in each OFF, over that in an ON; 1 at most, and `LEAST_SENSITIVE` at least.

    A line of SNR 12 in half an hour has SNR 5 in five minutes, so a short OFF must be that much emptier.
    """
    mean = np.mean([cadence.lengths[i] for i in cadence.on])
    lengths = np.array([cadence.lengths[i] for i in cadence.off])
    return np.sqrt(lengths / mean).clip(LEAST_SENSITIVE, 1.0)


def rejected_channels(
    tracks: Float64[np.ndarray, "tracks fields"], rejections: np.ndarray, cadence: Geometry
) -> Float64[np.ndarray, " lines"]:
    """Return the file channel of each line that was rejected: it is in all ONs and an OFF too, or its hit is bright.

    The channel is that in the ON that is searched alone. A bright line is also hit by sums of other drift rates that
    cross it there, and their tracks begin elsewhere.

    Args:
        tracks: rows as `follow.Track` defines them, in file channels.
        rejections: reason why each is rejected, '' if it is not.
        cadence: their geometry.
    """
    lines = (rejections == "in_an_off") | ((rejections != "") & (tracks[:, HIT_SNR] >= BRIGHT_HIT))
    return home_channels(tracks[lines], cadence)


def channels_in_ons(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry
) -> Float64[np.ndarray, "tracks ons"]:
    """Return the channel of each track in the middle of each ON."""
    return channels_at(tracks, cadence.middles[list(cadence.on)])


def home_channels(tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry) -> Float64[np.ndarray, " tracks"]:
    """Return the channel of each track in the middle of the ON that is searched alone."""
    return channels_at(tracks, cadence.middles[cadence.on[home_of(cadence)]])[:, 0]


def note_on(track: Float64[np.ndarray, " fields"], cadence: Geometry, min_valid: float) -> str:
    """Return what a candidate lacks, as in "OFF 2 4 not measured" or "OFF 6 missing"; '' if nothing.

    An ON or OFF of which less than `min_valid` of the track was measured can neither confirm nor clear a candidate. A
    missing OFF is one that the cadence is searched without. Observations are counted from 1.
    """
    if cadence.absent == cadence.off:
        return "no OFF measured"
    masked = [i for i in range(len(cadence.headers)) if track[VALID + 2 * i] < min_valid and i not in cadence.absent]
    kinds = {
        ("ON", NOT_MEASURED): [i for i in masked if i in cadence.on],
        ("OFF", NOT_MEASURED): [i for i in masked if i in cadence.off],
        ("OFF", "missing"): cadence.absent,
    }
    return "; ".join(f"{kind} {' '.join(str(i + 1) for i in at)} {why}" for (kind, why), at in kinds.items() if at)


def merge(tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry) -> list[int]:
    """Return the indices of the brightest track of each group that follows the same line, by channel."""
    times = np.array([0, cadence.end / 2, cadence.end])
    order = np.lexsort((tracks[:, START], -tracks[:, SNR::2][:, cadence.on].sum(axis=1)))
    kept: list[int] = []
    for i in order:
        track, others = tracks[i], tracks[kept]
        reach = SAME_LINE + 2 * (boxes(track[None]) + boxes(others))
        distance = np.abs(channels_at(others, times) - channels_at(track[None], times)).max(axis=1)
        if not (distance < reach).any():
            kept.append(int(i))
    return sorted(kept, key=lambda i: float(tracks[i, START]))
