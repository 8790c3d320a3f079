"""Explain why a signal was not reported: follow one frequency through every stage of a search.

The blocks of band around the frequency are searched by the same functions as a whole band. Every line found near the
frequency is reported, with the stage at which it was rejected. Lines too faint to be hits are listed too, so that a
near miss can be recognized. Blocks further away are searched for the lines on which the odds of a signal depend.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.detector.detector import Detector
from aetherscan.header import NOT_MEASURED
from aetherscan.io import Observation
from aetherscan.io.binning import bin_rows
from aetherscan.options.search import Gates, SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.blocks import overlap_channels, read_blocks
from aetherscan.search.cutouts import snippet_level, track_snippet
from aetherscan.search.density import WITHIN_MHZ, density_at, interfering_lines, odds_factor
from aetherscan.search.features import APPLIES, forest_applies, measurements
from aetherscan.search.follow import SNR, as_track, channels_at
from aetherscan.search.on_off import HIT_MARGIN, WITH_A_KIND, find_tracks, hits_between, home_of, merge, note_on

NEAR_HZ = 500.0
FAINTEST = 4.0
LISTED = 5
"""Number of lines listed at a stage, the brightest."""


def trace(
    observations: Sequence[Observation],
    detector: Detector,
    settings: SearchSettings,
    frequency_mhz: float,
    on: tuple[int, ...] = ON_POSITIONS,
) -> Iterator[str]:
    """Yield lines of text that report what a search does with a signal.

    Args:
        observations: open, of the same channels, in time order.
        detector: a release in memory.
        settings: how to search.
        frequency_mhz: of the signal at the start of the first ON.
        on: positions of the ONs.

    Raises:
        CadenceError: the observations do not make a cadence.
        ReadError: a file could not be read.
    """
    detector, gates = detector.for_mode("tracks"), settings.gates
    threshold = detector.threshold_for(settings.threshold, settings.alarms_per_100_mhz)
    observations = bin_rows(observations)
    cadence = geometry_of([observation.header for observation in observations], on, settings.coarse_channels)
    header = cadence.headers[0]
    channel = round(header.channel(frequency_mhz))
    if not 0 <= channel < cadence.nchans:
        yield "band: {:.6f} to {:.6f} MHz; {:.6f} is not in it".format(*header.band_mhz, frequency_mhz)
        return
    block, tracks, rejections, vetoed = _search_around(channel, observations, cadence, settings)
    start, stop = block.first + block.overlap[0], block.first + block.sigmas.shape[-1] - block.overlap[1]
    yield f"band: channel {channel} of {cadence.nchans}, in the block from {start} to {stop}"
    if channel - block.first in block.spikes:
        yield "bandpass: channel of a DC spike, which stands in ONs and OFFs alike: set to zero, not measured"
    yield from _weak_rows(block)
    yield from _hits(block, channel, cadence, gates)
    first_row = cadence.starts[on[0]]
    near = np.abs(channels_at(tracks, first_row)[:, 0] - channel) * cadence.hz < NEAR_HZ
    if not near.any():
        yield f"follow: no hit within {NEAR_HZ:g} Hz was followed"
    for i in sorted(np.flatnonzero(near), key=lambda i: -np.nansum(tracks[i, SNR::2][list(on)]))[:LISTED]:
        yield f"follow: {_description(tracks[i], cadence)}"
        if rejections[i] in WITH_A_KIND and forest_applies(cadence, detector.release.snippet[0]):
            yield from _kind(tracks[i], cadence, detector)
        if rejections[i]:
            yield f"  stops here: {rejections[i].replace('_', ' ')}"
            continue
        rivals = np.flatnonzero(rejections == "")
        if i not in rivals[merge(tracks[rivals], cadence)]:
            yield "  stops here: a brighter track follows the same line"
            continue
        if note := note_on(tracks[i], cadence, gates.min_valid):
            withheld = f": less than {gates.min_valid:g} of its pixels; kept, but not announced"
            yield f"  {note}{withheld if NOT_MEASURED in note else ''}"
        density = density_at(tracks[[i]], vetoed, cadence)
        yield from _score(block, tracks[i], density, cadence, detector, threshold)


def _search_around(
    channel: int, observations: Sequence[Observation], cadence: Geometry, settings: SearchSettings
) -> tuple[NormalizedBlock, Float64[np.ndarray, "tracks fields"], np.ndarray, Float64[np.ndarray, "lines ons"]]:
    """Return the block that holds a channel, its tracks, why each is rejected, and the channels of vetoed lines."""
    overlap = overlap_channels(cadence.headers, cadence.max_drift(settings.max_drift_hz_s))
    reach = round((WITHIN_MHZ * 1e6 + NEAR_HZ) / cadence.hz)
    around, vetoed = (channel - reach, channel + reach), []
    batches = read_blocks(observations, overlap, read_channels=settings.block_channels, only=around)
    for raw in chain.from_iterable(batches):
        part = raw.normalize(cadence, dc_spikes=settings.dc_spikes)
        tracks, rejections, _ = find_tracks(part, cadence, settings.gates)
        vetoed.append(interfering_lines(tracks, rejections, cadence))
        if raw.start <= channel < raw.stop:
            found = part, tracks, rejections
    return *found, np.concatenate(vetoed)


def _weak_rows(block: NormalizedBlock) -> Iterator[str]:
    for i, rows in enumerate(block.lengths):
        weights = block.weights[i, 0, :rows]
        weak = np.flatnonzero(weights < 0.5 * np.median(weights))
        if weak.size:
            yield f"bandpass: observation {i}: low weight in rows {', '.join(map(str, weak))} (bursts, or no power)"


def _hits(block: NormalizedBlock, channel: int, cadence: Geometry, gates: Gates) -> Iterator[str]:
    reach, max_drift = NEAR_HZ / cadence.hz, cadence.max_drift(gates.max_drift_hz_s)
    home = cadence.on[home_of(cadence)]
    for i in cadence.on:
        gap = cadence.middles[i] - cadence.starts[cadence.on[0]]
        farthest = reach + max_drift * gap
        order, limits = [i], (channel - farthest, channel + farthest)
        if i == home:
            order += [other for other in cadence.on if other != i]
        alone, joint = hits_between(block, cadence, order, limits, max_drift, (FAINTEST, FAINTEST))
        found = {f"ON {i}": (alone, gates.hit_snr if i == home else None)}
        if len(order) > 1:
            found["ONs together"] = (joint, gates.min_joint_snr - HIT_MARGIN)
        for name, (hits, least) in found.items():
            yield from _near(name, hits, least, (channel, reach, gap, cadence.lengths[i]), cadence)


def _near(
    name: str, hits: np.ndarray, least: float | None, place: tuple[int, float, float, int], cadence: Geometry
) -> Iterator[str]:
    """Yield a line for each hit near the signal.

    Args:
        name: of what was searched.
        hits: all hits.
        least: SNR from which a hit is followed; None: hits of this ON are not followed.
        place: channel at the first ON, reach in channels, rows from there to the middle of the ON, and its length.
        cadence: its geometry.
    """
    channel, reach, gap, rows = place
    # The drift of a hit is known to a width over its length, so its position at the first ON is blurred.
    blur = reach + hits["width"] * gap / rows
    near = hits[np.abs(hits["channel"] - hits["drift"] * gap - channel) < blur]
    for hit in near[:LISTED]:
        verdict = "" if least is None else ": a hit" if hit["snr"] >= least else f": no hit, below {least:g}"
        where = f"{cadence.mhz(hit['channel']):.6f} MHz, {_hz_s(hit['drift'], cadence):+.2f} Hz/s"
        yield f"propose: {name}: SNR {hit['snr']:.1f} at {where}, {hit['width']:g} channels{verdict}"
    if not near.size:
        yield f"propose: {name}: nothing above SNR {FAINTEST:g} within {NEAR_HZ:g} Hz"


def _hz_s(drift: float, cadence: Geometry) -> float:
    return float(drift * cadence.headers[0].foff * 1e6 / cadence.headers[0].tsamp)


def _description(row: Float64[np.ndarray, " fields"], cadence: Geometry) -> str:
    track = as_track(row)
    first_row = cadence.starts[cadence.on[0]]
    where = f"{cadence.mhz(track.channel(first_row)):.6f} MHz, {_hz_s(track.drift_at(first_row), cadence):+.3f} Hz/s"
    if track.curvature:
        where += f", {_hz_s(track.curvature, cadence) / cadence.headers[0].tsamp:+.1e} Hz/s^2"
    return f"{where}, {track.width * cadence.hz:.0f} Hz wide, SNR " + " ".join(
        f"{snr:.1f}" if valid == 1 else f"{snr:.1f} ({valid:.0%} measured)"
        for snr, valid in zip(track.snr, track.valid, strict=True)
    )


def _kind(row: Float64[np.ndarray, " fields"], cadence: Geometry, detector: Detector) -> Iterator[str]:
    (kind,), (probability,) = detector.kinds(measurements(row[None], cadence))
    if kind:
        yield f"  kind: looks like {kind.replace('_', ' ')}, probability {probability:.2f}"


def _score(
    block: NormalizedBlock,
    row: Float64[np.ndarray, " fields"],
    density: Float64[np.ndarray, "1"],
    cadence: Geometry,
    detector: Detector,
    threshold: float,
) -> Iterator[str]:
    shape = detector.release.snippet
    if not forest_applies(cadence, shape[0]):
        yield f"  score: none, as the forest reads {APPLIES.format(*shape)}: a candidate by the gates"
        return
    latents = detector.encode_snippets([track_snippet(block, row, cadence, shape)])
    measured, factor = (latents, measurements(row[None], cadence)), odds_factor(density)
    (probability,), (spread,) = detector.score(*measured, factor), detector.spread(*measured, factor)
    yield f"  snippet: binned by {1 << snippet_level(as_track(row).box)}"
    crowd = f"{density[0]:.3g} interfering lines per MHz"
    yield f"  around: {crowd}, which multiplies the odds of a signal by {factor[0]:.2g}"
    verdict = "a candidate" if probability >= threshold else f"stops here: below the threshold {threshold:.3f}"
    yield f"  score: {probability:.3f} (spread {spread:.3f}): {verdict}"
