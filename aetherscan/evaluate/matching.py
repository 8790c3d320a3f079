"""Match the detections in a simulated cadence with its tones, and name the cause of every false alarm."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.evaluate.scenarios import TONE
from aetherscan.evaluate.searchers import Detection
from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky

NEAR_HZ = 500.0
"""Distance beyond an emitter's width within which a track is near the emitter."""
MATCH_HZ, MATCH_HZ_S = 20.0, 0.1
"""Smallest tolerance of a match in frequency, and its tolerance in drift rate."""
NOISE = "noise"
DEFINITIONS = {
    "SNR": """of the ideal matched filter in each ON, sqrt(sum over pixels of (signal / sigma)^2), with the tone's true
        width and smearing and the true noise, bursts included""",
    "found": """a tone is found by a detection within max(20 Hz, the tone's width, 2 channels x the binning that its
        width and smearing fill) of its frequency at the start of the first ON and within 0.1 Hz/s of its drift rate;
        curved tones and detections are replaced by the straight lines that fit them best in the ONs, and the tolerance
        grows by the largest departure of the tone from its line""",
    "alarm": """a detection that finds no tone; its kind is that of the emitter whose track comes nearest to the
        detection's at any time of the cadence, if within 500 Hz beyond the emitter's width; otherwise it is noise""",
    "near": """a tone is near an emitter if their tracks come within 500 Hz beyond the emitter's width at any time of
        the cadence; such tones count like all others, and are also listed separately""",
    "swapped": """the same files searched for signals in every OFF and in no ON; an emitter with that pattern counts as
        a tone; side lobes, which are brighter in the ONs, are left out of the fraction of alarms that the swapped
        search raises""",
    "interval": """95%: Wilson's for fractions, the exact Poisson interval for counts of alarms, order statistics for
        percentiles""",
    "seed": """the emitters and the noise of cadence n of a scenario are drawn from the two children of
        SeedSequence(seed, spawn_key=(crc32("aetherscan.evaluate"), crc32(name of the scenario), n))""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToneOutcome:
    """One tone and how it was found; the errors are those of the detection nearest in frequency."""

    frequency_mhz: float  # of its straight line, at the start of the first ON
    drift_hz_s: float
    width_hz: float
    curvature_hz_s2: float
    snr: float
    ons: int  # number of ONs that it is in
    near: bool
    detections: int
    probability: float = 0.0
    frequency_error_hz: float | None = None
    drift_error_hz_s: float | None = None
    snr_error: float | None = None  # relative


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedDetection:
    """A detection and the emitter that it was matched with."""

    detection: Detection
    kind: str
    finds: bool  # a tone, or what counts as a tone
    true: bool  # that tone is in every ON and in no OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSearch:
    """One search of one cadence, with the outcome of every tone and of every detection."""

    scenario: str
    searcher: str
    cadence: int
    mhz: float
    density: float  # interferers per MHz
    file_bytes: int
    write_s: float
    search_s: float
    stage_s: dict[str, float]
    counts: dict[str, int]
    digest: str  # of the candidate table
    tones: tuple[ToneOutcome, ...]
    detections: tuple[MatchedDetection, ...]

    @property
    def alarms(self) -> list[MatchedDetection]:
        """The detections that find no tone."""
        return [matched for matched in self.detections if not matched.finds]


def is_signal(emitter: Emitter, on: tuple[int, ...]) -> bool:
    """Return whether an emitter is in every ON and in no OFF."""
    return all((snr > 0) == (i in on) for i, snr in enumerate(emitter.snr))


def match_detections(
    detections: Sequence[Detection], sky: Sky, on: tuple[int, ...] = ON_POSITIONS
) -> tuple[tuple[ToneOutcome, ...], tuple[MatchedDetection, ...]]:
    """Return the outcome of every tone of a sky and of every detection; a detection finds the nearest tone it fits."""
    starts_s = np.array([(header.tstart - sky.header.tstart) * SECONDS_PER_DAY for header in sky.headers()])
    edges_s = (starts_s[:, None] + sky.header.tsamp * np.arange(sky.header.ntime + 1)).ravel()
    tones = [emitter for emitter in sky.emitters if emitter.kind == TONE or is_signal(emitter, on)]
    others = [emitter for emitter in sky.emitters if emitter.kind != TONE and not is_signal(emitter, on)]
    on_starts_s = starts_s[list(on)]
    lines = [_straight_line(tone, on_starts_s, sky.header) for tone in tones]
    by_tone, matched = defaultdict[int, list[tuple[Detection, float, float]]](list), []
    for detection in detections:
        start_hz, slope, _ = _fit(partial(_offset_hz, detection), on_starts_s, sky.header)
        found_mhz = detection.frequency_mhz + start_hz * 1e-6
        distances_hz = [abs(found_mhz - mhz) * 1e6 for mhz, _, _ in lines]
        fitting = [
            i
            for i, (_, drift, tolerance_hz) in enumerate(lines)
            if distances_hz[i] <= tolerance_hz and abs(slope - drift) <= MATCH_HZ_S
        ]
        if fitting:
            nearest = min(fitting, key=distances_hz.__getitem__)
            by_tone[nearest].append((detection, found_mhz, slope))
            kind, true = tones[nearest].kind, is_signal(tones[nearest], on)
        else:
            track = detection.frequency_mhz + _offset_hz(detection, edges_s - starts_s[on[0]]) * 1e-6
            kind, true = nearest_kind(track, sky.emitters, edges_s), False
        matched.append(MatchedDetection(detection=detection, kind=kind, finds=bool(fitting), true=true))
    outcomes = (
        _outcome(tone, line, by_tone[i], on, near=nearest_kind(tone.track_mhz(edges_s), others, edges_s) != NOISE)
        for i, (tone, line) in enumerate(zip(tones, lines, strict=True))
    )
    return tuple(outcomes), tuple(matched)


def _outcome(
    tone: Emitter,
    line: tuple[float, float, float],
    detections: Sequence[tuple[Detection, float, float]],
    on: tuple[int, ...],
    *,
    near: bool,
) -> ToneOutcome:
    mhz, drift, _ = line
    snr = max(tone.snr)
    errors = {}
    if detections:
        nearest, found_mhz, slope = min(detections, key=lambda detection: abs(detection[1] - mhz))
        errors = {
            "probability": max(detection.probability for detection, _, _ in detections),
            "frequency_error_hz": (found_mhz - mhz) * 1e6,
            "drift_error_hz_s": slope - drift,
            "snr_error": nearest.snr / snr - 1,
        }
    return ToneOutcome(
        frequency_mhz=mhz, drift_hz_s=drift, width_hz=tone.width_hz, curvature_hz_s2=tone.curvature_hz_s2, snr=snr,
        ons=sum(tone.snr[i] > 0 for i in on), near=near, detections=len(detections), **errors,
    )  # fmt: skip


def _straight_line(
    tone: Emitter, on_starts_s: Float64[np.ndarray, " ons"], header: Header
) -> tuple[float, float, float]:
    """Return the best straight line of a tone in the ONs: MHz at the first one's start, Hz/s, and tolerance in Hz."""
    start_hz, drift, departure_hz = _fit(
        lambda at_s: (tone.track_mhz(at_s + on_starts_s[0]) - tone.frequency_mhz) * 1e6, on_starts_s, header
    )
    channel_hz = abs(header.foff * 1e6)
    channels = max(1.0, float(np.hypot(tone.width_hz, drift * header.tsamp)) / channel_hz)
    tolerance_hz = max(MATCH_HZ, tone.width_hz, 2 * channel_hz * 2 ** int(np.log2(channels)))
    return tone.frequency_mhz + start_hz * 1e-6, drift, tolerance_hz + departure_hz


def _fit(
    offset_hz: Callable[[Float64[np.ndarray, " times"]], Float64[np.ndarray, " times"]],
    on_starts_s: Float64[np.ndarray, " ons"],
    header: Header,
) -> tuple[float, float, float]:
    """Return the straight line that fits a track best in the ONs: Hz at the first one's start, Hz/s, and departure.

    Args:
        offset_hz: returns the place of the track, Hz, at times in s after the start of the first ON.
        on_starts_s: start of each ON, in s after the start of the first observation.
        header: of an ON.
    """
    at_s = (on_starts_s[:, None] - on_starts_s[0] + header.tsamp * (np.arange(header.ntime) + 0.5)).ravel()
    track_hz = offset_hz(at_s)
    drift, start_hz = np.polyfit(at_s, track_hz, 1)
    return float(start_hz), float(drift), float(np.abs(track_hz - start_hz - drift * at_s).max())


def _offset_hz(detection: Detection, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
    """Return how far a detection is from its frequency, at times after the start of the first ON."""
    return detection.drift_hz_s * at_s + detection.curvature_hz_s2 / 2 * at_s**2


def nearest_kind(
    track_mhz: Float64[np.ndarray, " times"], emitters: Sequence[Emitter], times_s: Float64[np.ndarray, " times"]
) -> str:
    """Return the kind of the emitter that comes nearest to a track, 'noise' if none comes near."""
    distances_hz = [
        np.abs(emitter.track_mhz(times_s) - track_mhz).min() * 1e6 - emitter.width_hz for emitter in emitters
    ]
    nearest = int(np.argmin(distances_hz)) if distances_hz else 0
    return emitters[nearest].kind if distances_hz and distances_hz[nearest] < NEAR_HZ else NOISE
