"""The whole search of a cadence, read aloud: blocks of band -> windows -> encoder -> forest -> tracks -> candidates.

`--mode windows` is the papers' way: every window of 4,096 channels, half overlapping, averaged by eight, through the
encoder and the forest. Where the papers end, with a window and a probability, we begin to measure: the lines in the
window are found at full resolution and followed through the six observations; what is in an OFF is no candidate.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from aetherscan.candidates import Candidate
from aetherscan.dedoppler import find_hits, spread
from aetherscan.detector import Detector
from aetherscan.errors import CadenceError
from aetherscan.io import Observation
from aetherscan.normalize import flatten, normalize, standardize
from aetherscan.observation import SECONDS_PER_DAY, Header
from aetherscan.track import Track, follow

ON = (0, 2, 4)
MODES = ("windows",)
SAME_LINE = 16
"""Channels, beyond their widths, within which two tracks that lie together all cadence long are one signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search. A threshold of None is the release's own."""

    mode: str = "windows"
    threshold: float | None = None
    max_drift_hz_s: float = 4.0
    min_on_snr: float = 6.0
    max_off_snr: float = 5.0
    block_channels: int = 2**20

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a probability in 0-1, found {self.threshold}")
        if not 0 < self.max_drift_hz_s <= 10:
            raise ValueError(f"max_drift_hz_s: expected Hz/s above 0, at most 10, found {self.max_drift_hz_s}")
        if self.block_channels < 2**15:
            raise ValueError(f"block_channels: expected at least {2**15}, found {self.block_channels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Candidates by frequency, what every stage took in and let through, and what it cost."""

    candidates: tuple[Candidate, ...]
    counts: dict[str, int]
    stage_s: dict[str, float]
    bytes_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    track: Track  # in channels of the file
    probability: float
    proposer_score: float
    latents: tuple[float, ...]


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.stage_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.perf_counter() - began


def search_cadence(
    observations: Sequence[Observation],
    detector: Detector,
    settings: SearchSettings | None = None,
    progress: Callable[[float], None] = lambda _: None,
    on: tuple[int, ...] = ON,
) -> SearchResult:
    """Search six observations, in time order.

    Args:
        observations: open, of the same channels.
        detector: a release in memory.
        settings: how to search; the defaults where not given.
        progress: called often with the share of the band that is done.
        on: positions of the ONs: (1, 3, 5) where the target came second.

    Raises:
        CadenceError: the observations do not share a band, or are not six.
        ReadError: a file could not be read, or changed meanwhile.
    """
    settings = settings or SearchSettings()
    headers = [observation.header for observation in observations]
    check_cadence(headers)
    geometry = detector.release.snippet
    window = geometry["bins"] * geometry["binning"]
    threshold = detector.release.threshold if settings.threshold is None else settings.threshold
    roles = [*on, *(i for i in range(6) if i not in on)]
    order = [roles[i] for i in (0, 3, 1, 4, 2, 5)]  # as the encoder was taught: ON first
    clock, counts, found = _Clock(), Counter[str](), []
    nchans, rows = min(header.nchans for header in headers), min(header.ntime for header in headers)
    if nchans < window:
        raise CadenceError(f"nchans: expected at least one window of {window} channels, found {nchans}")
    power, held = np.empty((6, rows, 0), dtype=np.float32), 0
    for start, stop in blocks(nchans, settings.block_channels, window):
        with clock("read"):
            # The overlap is in memory already; only whole blocks are decoded, and each channel once.
            fresh = np.stack([observation.read(held, stop)[:rows] for observation in observations])
            power, held = np.concatenate([power[..., power.shape[-1] - (held - start) :], fresh], axis=-1), stop
        with clock("normalize"):
            firsts = [*range(0, stop - start - window, window // 2), stop - start - window]
            cuts = (fit_rows(power[order, :, first : first + window], geometry["rows"]) for first in firsts)
            snippets = np.stack([normalize(cut, geometry["binning"]) for cut in cuts])
        with clock("score"):
            latents = detector.encode_snippets(snippets)
            probability = detector.score(latents, np.empty((len(snippets), 0), dtype=np.float32))
        counts["windows"] += len(firsts)
        with clock("measure"):
            for i in np.flatnonzero(probability >= threshold):
                counts["windows_above_threshold"] += 1
                progress(start / nchans)  # a crowded block can take long, and whoever waits must see that we live
                low, high = max(0, firsts[i] - window // 2), min(stop - start, firsts[i] + window * 3 // 2)
                sigmas = [flatten(standardize(obs)) for obs in np.ascontiguousarray(power[..., low:high])]
                for obs in sigmas:
                    obs[:, spikes(headers[0], start + low, start + high)] = 0
                inside = (firsts[i] - low, firsts[i] - low + window)
                for track, score in _on_only(sigmas, inside, headers, on, settings, counts):
                    found.append(
                        _Found(
                            track=replace(track, start_channel=track.start_channel + start + low),
                            probability=float(probability[i]),
                            proposer_score=score,
                            latents=tuple(float(value) for value in latents.mean[i].ravel()),
                        )
                    )
        progress(stop / nchans)
    kept = merge(found, headers)
    counts["merged_into_another"] = len(found) - len(kept)
    counts["candidates"] = len(kept)
    return SearchResult(
        candidates=tuple(_candidate(one, headers, on, detector, settings) for one in kept),
        counts=dict(counts),
        stage_s=clock.stage_s,
        bytes_read=sum(observation.header.nchans * rows * 4 for observation in observations),
    )


def check_cadence(headers: Sequence[Header]) -> None:
    """Raise CadenceError unless these are six observations of the same channels, in time order."""
    if len(headers) != 6:
        raise CadenceError(f"expected six observations, found {len(headers)}")
    first = headers[0]
    for i, header in enumerate(headers[1:], 1):
        same = (
            abs(header.nchans - first.nchans) <= 1
            and abs(header.foff - first.foff) < abs(first.foff) * 1e-6
            and abs(header.fch1 - first.fch1) <= abs(first.foff)
        )
        if not same:
            band = "{0.nchans} channels from {0.fch1} MHz in steps of {0.foff}"
            raise CadenceError(f"{header.source_name}: expected {band.format(first)}, found {band.format(header)}")
        before = headers[i - 1].tstart
        if header.tstart <= before:
            raise CadenceError(f"{header.source_name}: expected a start after MJD {before}, found {header.tstart}")


def blocks(nchans: int, block: int, window: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of blocks that reach two windows back into the last, so that each track lies whole in one."""
    for start in range(0, nchans, block):
        yield max(0, start - 2 * window), min(start + block, nchans)


def spikes(header: Header, start: int, stop: int) -> list[int]:
    """Return where, from `start`, the DC spikes of the coarse channels lie: the middle channel and its neighbours."""
    width = header.coarse_chans
    middles = range(start // width * width + width // 2, stop + 2, width)
    return [c - start for middle in middles for c in (middle - 1, middle, middle + 1) if start <= c < stop]


def fit_rows(power: Float32[np.ndarray, "obs time freq"], rows: int) -> Float32[np.ndarray, "obs rows freq"]:
    """Return `power` with as many rows as the encoder takes: the last are left off, or repeated."""
    found = power.shape[1]
    return power[:, np.minimum(np.arange(rows), found - 1)]


def _on_only(
    sigmas: Sequence[Float32[np.ndarray, "time freq"]],
    inside: tuple[int, int],
    headers: Sequence[Header],
    on: tuple[int, ...],
    settings: SearchSettings,
    counts: Counter[str],
) -> Iterator[tuple[Track, float]]:
    """Yield the tracks that are in all three ONs and in no OFF, with the SNR of the hit each began with."""
    first, rows = headers[0], sigmas[0].shape[0]
    middles_s = np.array([(h.tstart - first.tstart) * SECONDS_PER_DAY + rows / 2 * h.tsamp for h in headers])
    max_drift = settings.max_drift_hz_s * first.tsamp / abs(first.foff * 1e6)
    scatters = [spread(observation) for observation in sigmas]
    for position in on:
        for hit in find_hits(sigmas[position], scatters[position], max_drift=max_drift, min_snr=settings.min_on_snr):
            if not inside[0] <= hit.channel < inside[1]:
                continue
            counts["hits"] += 1
            track = follow(hit, position, sigmas, scatters, middles_s, first.tsamp, on)
            if min(track.snr[i] for i in on) < settings.min_on_snr:
                counts["hits_weak_in_an_on"] += 1
            elif _off_snr(track, on) > settings.max_off_snr:
                counts["hits_in_an_off"] += 1
            elif abs(track.drift) > max_drift:
                counts["hits_too_fast"] += 1
            else:
                yield track, hit.snr


def _off_snr(track: Track, on: tuple[int, ...]) -> float:
    """Return the SNR of the brightest OFF or of all of them together, as a side lobe shows faintly in each."""
    offs = [snr for i, snr in enumerate(track.snr) if i not in on]
    return max(*offs, sum(offs) / len(offs) ** 0.5)


def merge(found: Sequence[_Found], headers: Sequence[Header]) -> list[_Found]:
    """Return the brightest of each group of findings that follow the same line, by channel."""
    last_s = (headers[-1].tstart - headers[0].tstart) * SECONDS_PER_DAY + headers[-1].duration_s
    tsamp = headers[0].tsamp
    kept: list[_Found] = []
    for one in sorted(found, key=lambda one: (-sum(one.track.snr), one.track.start_channel)):
        if not any(_same_line(one.track, other.track, last_s, tsamp) for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.track.start_channel)


def _same_line(one: Track, other: Track, last_s: float, tsamp: float) -> bool:
    reach = SAME_LINE + 2 * (one.width + other.width)
    return all(abs(one.channel(at_s, tsamp) - other.channel(at_s, tsamp)) < reach for at_s in (0.0, last_s))


def _candidate(
    one: _Found, headers: Sequence[Header], on: tuple[int, ...], detector: Detector, settings: SearchSettings
) -> Candidate:
    header = headers[on[0]]
    step_hz = header.foff * 1e6
    start_s = (header.tstart - headers[0].tstart) * SECONDS_PER_DAY
    return Candidate(
        frequency_mhz=headers[0].frequency(one.track.channel(start_s, header.tsamp)),
        drift_rate_hz_s=one.track.drift * step_hz / header.tsamp,
        bandwidth_hz=one.track.width * abs(step_hz),
        snr=one.track.snr,
        probability=one.probability,
        proposer_score=one.proposer_score,
        latents=one.latents,
        target=header.source_name,
        tstart_mjd=header.tstart,
        release=detector.release.name,
        mode=settings.mode,
    )
