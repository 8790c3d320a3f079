"""Account for every row of a search of a known sky: which tones it finds, and what it is if it finds none."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from aetherscan.evaluate.scenarios import TONE
from aetherscan.evaluate.searchers import Row
from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import ON_POSITIONS
from aetherscan.simulate.sky import Sky

NEAR_HZ, CLOSE_HZ, CLOSE_HZ_S = 500.0, 20.0, 0.1
NOISE = "noise"
RULES = {
    "SNR": """the ideal matched filter's in each ON, sqrt(sum over pixels of (signal / sigma)^2): true width and smear,
        noise as it is, bursts included""",
    "found": """a row within max(20 Hz, the tone's width, 2 channels x the binning that its width and smear fill) of the
        tone's frequency at the start of the first ON, and within 0.1 Hz/s of its drift; for a curved tone, of the
        straight line that fits it best in the ONs, give or take the most that it departs from that line""",
    "alarm": """a row that finds no tone; its kind is that of the emitter whose track, at some time of the cadence,
        comes nearest to the row's, if nearer than 500 Hz beyond its width, else noise""",
    "near": """a tone is near an emitter if, at some time of the cadence, their tracks are within 500 Hz beyond the
        emitter's width; such tones are never left out, and shown apart as well""",
    "swapped": """the same files, searched for what is in every OFF and in no ON; an emitter that is just that is then a
        tone; side lobes, which lean to the ONs by nature, are left out of the share that one way has of all alarms""",
    "interval": "95%: Wilson's for a share, its limit for a count of rare events, its ranks for a percentile",
    "seed": """the emitters and the noise of cadence n of a cell are drawn from the two children of
        SeedSequence(seed, spawn_key=(crc32("aetherscan.evaluate"), crc32(name of the cell), n))""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """What became of one tone; errors are those of the row that lies nearest."""

    frequency_mhz: float  # of its straight line, at the start of the first ON
    drift_hz_s: float
    width_hz: float
    curvature_hz_s2: float
    snr: float
    ons: int  # that it is in
    near: bool
    rows: int
    probability: float = 0.0
    frequency_error_hz: float | None = None
    drift_error_hz_s: float | None = None
    snr_error: float | None = None  # as a share


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What one row was."""

    row: Row
    kind: str
    finds: bool  # a tone
    true: bool  # a tone that is a signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One cadence, searched once, and what came of it."""

    cell: str
    finder: str
    cadence: int
    mhz: float
    file_bytes: int
    write_s: float
    search_s: float
    stage_s: dict[str, float]
    counts: dict[str, int]
    digest: str  # of the list of candidates
    tones: tuple[Tone, ...]
    rows: tuple[Reported, ...]


def is_signal(emitter: Emitter, on: tuple[int, ...]) -> bool:
    """Say whether an emitter is in every ON and in no OFF."""
    return all((snr > 0) == (i in on) for i, snr in enumerate(emitter.snr))


def judge(
    rows: Sequence[Row], sky: Sky, on: tuple[int, ...] = ON_POSITIONS
) -> tuple[tuple[Tone, ...], tuple[Reported, ...]]:
    """Return what became of every tone of a sky, and what every row was."""
    starts_s = np.array([(header.tstart - sky.header.tstart) * SECONDS_PER_DAY for header in sky.headers()])
    edges_s = (starts_s[:, None] + sky.header.tsamp * np.arange(sky.header.ntime + 1)).ravel()
    truths = [one for one in sky.emitters if one.kind == TONE or is_signal(one, on)]
    lines = [_straight(one, starts_s[list(on)], sky.header) for one in truths]
    found, reported = defaultdict[int, list[Row]](list), []
    for row in rows:
        away = [abs(row.frequency_mhz - mhz) * 1e6 for mhz, _, _ in lines]
        close = [
            i
            for i, (_, drift, reach_hz) in enumerate(lines)
            if away[i] <= reach_hz and abs(row.drift_hz_s - drift) <= CLOSE_HZ_S
        ]
        if close:
            best = min(close, key=away.__getitem__)
            found[best].append(row)
            kind = truths[best].kind
            reported.append(Reported(row=row, kind=kind, finds=True, true=is_signal(truths[best], on)))
        else:
            track = row.frequency_mhz + row.drift_hz_s * (edges_s - starts_s[on[0]]) * 1e-6
            reported.append(Reported(row=row, kind=nearest(track, sky.emitters, edges_s), finds=False, true=False))
    others = [one for one in sky.emitters if one.kind != TONE and not is_signal(one, on)]
    tones = (
        _outcome(truth, line, found[i], on, near=nearest(truth.track_mhz(edges_s), others, edges_s) != NOISE)
        for i, (truth, line) in enumerate(zip(truths, lines, strict=True))
    )
    return tuple(tones), tuple(reported)


def _outcome(
    truth: Emitter, line: tuple[float, float, float], found: Sequence[Row], on: tuple[int, ...], *, near: bool
) -> Tone:
    mhz, drift, _ = line
    snr = max(truth.snr)
    errors = {}
    if found:
        best = min(found, key=lambda row: abs(row.frequency_mhz - mhz))
        errors = {
            "probability": max(row.probability for row in found),
            "frequency_error_hz": (best.frequency_mhz - mhz) * 1e6,
            "drift_error_hz_s": best.drift_hz_s - drift,
            "snr_error": best.snr / snr - 1,
        }
    return Tone(
        frequency_mhz=mhz, drift_hz_s=drift, width_hz=truth.width_hz, curvature_hz_s2=truth.curvature_hz_s2, snr=snr,
        ons=sum(truth.snr[i] > 0 for i in on), near=near, rows=len(found), **errors,
    )  # fmt: skip


def _straight(truth: Emitter, on_starts_s: Float64[np.ndarray, " ons"], header: Header) -> tuple[float, float, float]:
    """Return the line that fits a tone best in the ONs, MHz at the start of the first and Hz/s, and its reach in Hz."""
    middles_s = (on_starts_s[:, None] + header.tsamp * (np.arange(header.ntime) + 0.5)).ravel()
    offset_hz = (truth.track_mhz(middles_s) - truth.frequency_mhz) * 1e6
    drift, start_hz = np.polyfit(middles_s - on_starts_s[0], offset_hz, 1)
    departs_hz = float(np.abs(offset_hz - start_hz - drift * (middles_s - on_starts_s[0])).max())
    channel_hz = abs(header.foff * 1e6)
    box = max(1.0, float(np.hypot(truth.width_hz, drift * header.tsamp)) / channel_hz)
    reach_hz = max(CLOSE_HZ, truth.width_hz, 2 * channel_hz * 2 ** int(np.log2(box)))
    return truth.frequency_mhz + float(start_hz) * 1e-6, float(drift), reach_hz + departs_hz


def nearest(
    track_mhz: Float64[np.ndarray, " times"], emitters: Sequence[Emitter], times_s: Float64[np.ndarray, " times"]
) -> str:
    """Return the kind of the emitter that comes nearest to a track, 'noise' where none comes near."""
    away_hz = [np.abs(one.track_mhz(times_s) - track_mhz).min() * 1e6 - one.width_hz for one in emitters]
    best = int(np.argmin(away_hz)) if away_hz else 0
    return emitters[best].kind if away_hz and away_hz[best] < NEAR_HZ else NOISE
