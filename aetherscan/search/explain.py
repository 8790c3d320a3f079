"""Why was this not reported? One frequency through every stage of a search, in words.

The stretch of band that holds it is searched by the functions that search all of it; what they find nearby is told,
with what each stage made of it. Lines too faint to be hits are shown as well, so that a near miss can be seen as one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of, spikes
from aetherscan.detector.detector import Detector
from aetherscan.io import Observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.blocks import blocks, halo
from aetherscan.search.cutouts import snippet_level, track_snippet
from aetherscan.search.dedoppler import find_hits
from aetherscan.search.features import measurements
from aetherscan.search.follow import DRIFT, SNR, START, as_track
from aetherscan.search.on_off import find_tracks, merge

NEAR_HZ = 500.0
FAINTEST = 4.0
MOST = 5
"""Lines told of at a stage, the brightest."""


def trace(
    observations: Sequence[Observation],
    detector: Detector,
    settings: SearchSettings,
    frequency_mhz: float,
    on: tuple[int, ...] = ON_POSITIONS,
) -> Iterator[str]:
    """Yield lines that say what a search makes of a signal at `frequency_mhz` at the start of the first ON.

    Raises:
        CadenceError: the observations do not share a band, or are not six.
        ReadError: a file could not be read.
    """
    detector = detector.for_mode("tracks")
    cadence = geometry_of([observation.header for observation in observations], on)
    header = cadence.headers[0]
    channel = round(header.channel(frequency_mhz))
    if not 0 <= channel < cadence.nchans:
        yield "band: {:.6f} to {:.6f} MHz; {:.6f} is not in it".format(*header.band_mhz, frequency_mhz)
        return
    reach = halo(cadence.headers, cadence.max_drift(settings.max_drift_hz_s))
    ((stretch,),) = blocks(observations, reach, block=settings.block_channels, only=channel)
    sigmas = np.empty((6, cadence.rows, stretch.high - stretch.low), dtype=np.float32)
    equalized = normalize_block(stretch.power, cadence, stretch.low - stretch.origin, sigmas, stretch.low)
    yield f"band: channel {channel} of {cadence.nchans}, in the stretch {stretch.start} to {stretch.stop}"
    if spikes(header, channel, channel + 1):
        yield "equalize: a DC spike's channel, set to zero"
    yield from _rows(equalized)
    yield from _hits(equalized, stretch.low, channel, cadence, settings)
    own = (stretch.start - stretch.low, stretch.stop - stretch.low)
    tracks, rejections, _ = find_tracks(equalized, own, cadence, settings)
    first = cadence.middles[on[0]] - cadence.rows / 2
    near = np.abs(tracks[:, START] + tracks[:, DRIFT] * first + stretch.low - channel) * cadence.hz < NEAR_HZ
    if not near.any():
        yield f"follow: no hit within {NEAR_HZ:g} Hz was followed"
    for i in sorted(np.flatnonzero(near), key=lambda i: -np.nansum(tracks[i, SNR:][list(on)]))[:MOST]:
        yield f"follow: {_named(tracks[i], stretch.low, cadence)}"
        if rejections[i]:
            yield f"  stops here: {rejections[i].replace('_', ' ')}"
            continue
        rivals = np.flatnonzero(rejections == "")
        if i not in rivals[merge(tracks[rivals], cadence)]:
            yield "  stops here: another track follows the same line, and is brighter"
            continue
        yield from _score(equalized, tracks[i], cadence, detector, settings)


def _rows(equalized: NormalizedBlock) -> Iterator[str]:
    for i, weights in enumerate(equalized.weights[:, 0]):
        low = np.flatnonzero(weights < 0.5 * np.median(weights))
        if low.size:
            yield f"equalize: observation {i}: rows {', '.join(map(str, low))} count less (bursts, or dead)"


def _hits(
    equalized: NormalizedBlock, low: int, channel: int, cadence: Geometry, settings: SearchSettings
) -> Iterator[str]:
    reach, max_drift = NEAR_HZ / cadence.hz, cadence.max_drift(settings.max_drift_hz_s)
    for i in cadence.on:
        gap = cadence.middles[i] - cadence.middles[cadence.on[0]] + cadence.rows / 2
        first = int(max(0, channel - low - reach - max_drift * gap))
        part = np.ascontiguousarray(equalized.sigmas[i, :, first : int(channel - low + reach + max_drift * gap)])
        hits, _ = find_hits(part, equalized.weights[i], max_drift=max_drift, min_snr=FAINTEST)
        # A hit knows its drift to a width over its length; from another ON it points back no better.
        blur = reach + hits["width"] * gap / cadence.rows
        near = hits[np.abs(hits["channel"] + first + low - hits["drift"] * gap - channel) < blur]
        for hit in near[:MOST]:
            verdict = "a hit" if hit["snr"] >= settings.hit_snr else f"no hit, below {settings.hit_snr:g}"
            where = f"{cadence.mhz(hit['channel'] + first + low):.6f} MHz, {_hz_s(hit['drift'], cadence):+.2f} Hz/s"
            yield f"propose: ON {i}: SNR {hit['snr']:.1f} at {where}, {hit['width']:g} channels: {verdict}"
        if not near.size:
            yield f"propose: ON {i}: nothing above SNR {FAINTEST:g} within {NEAR_HZ:g} Hz"


def _hz_s(drift: float, cadence: Geometry) -> float:
    return float(drift * cadence.headers[0].foff * 1e6 / cadence.headers[0].tsamp)


def _named(row: Float64[np.ndarray, " fields"], low: int, cadence: Geometry) -> str:
    track = as_track(row)
    first = cadence.middles[cadence.on[0]] - cadence.rows / 2
    where = f"{cadence.mhz(track.channel(first) + low):.6f} MHz, {_hz_s(track.drift, cadence):+.3f} Hz/s"
    return f"{where}, {track.width * cadence.hz:.0f} Hz wide, SNR " + " ".join(f"{snr:.1f}" for snr in track.snr)


def _score(
    equalized: NormalizedBlock,
    row: Float64[np.ndarray, " fields"],
    cadence: Geometry,
    detector: Detector,
    settings: SearchSettings,
) -> Iterator[str]:
    latents = detector.encode_snippets([track_snippet(equalized, row, cadence, detector.release.snippet)])
    told = measurements(row[None], cadence)
    (probability,), (spread,) = detector.score(latents, told), detector.spread(latents, told)
    threshold = detector.threshold if settings.threshold is None else settings.threshold
    yield f"  snippet: binned by {1 << snippet_level(as_track(row).box)}"
    verdict = "a candidate" if probability >= threshold else f"stops here: below the threshold {threshold:.3f}"
    yield f"  score: {probability:.3f} (spread {spread:.3f}): {verdict}"
