"""The skies that judge a search: which there are, what is put into them, and how they become files.

A cell is a kind of sky, one line of `CELLS`. Its band is drawn as cadences of a few coarse channels. The seed, the
cell's name and the cadence's number seed each cadence: cadences share neither noise nor emitters, and any one can be
drawn again alone. Tones have exactly the SNR
that they are said to have in each ON: where a burst drowns some rows, they are as much brighter as that costs.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.header import SECONDS_PER_DAY, Header, gbt_header
from aetherscan.io import write_fil
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.interference import ON_POSITIONS, log_uniform, random_interference, zoo
from aetherscan.simulate.noise import BURST_NOISE
from aetherscan.simulate.sky import Sky, random_levels, write_cadence

COARSE = 2**20
CADENCE_CHANS = 8 * COARSE
SNRS = (6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0)
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
TONE = "tone"
"""The kind of an emitter that we hope for."""
WIDTH_HZ, MAX_DRIFT_HZ_S, NEARLY_STILL = (2.0, 50.0), 4.0, 0.15
"""Of tones: widths log-uniform, drifts uniform, but for a share of about 0.02 Hz/s."""
SPAN_MHZ = 0.01
"""What the fastest tone crosses in a cadence, and a little: tones have so much room to themselves."""
STRETCH = 2**18
"""The search joins what it found in stretches of so many channels."""
BESIDE = (-450, -150, 150, 450)
"""Channels from a place, give or take 50, at which parallel tones are half-way through the cadence."""
PLACES = {"spike": (COARSE, COARSE // 2), "edge": (COARSE, 0), "border": (2 * STRETCH, STRETCH)}
"""Channels from one place to the next, and the first."""
STREAM = zlib.crc32(b"aetherscan.evaluate")
"""First key of every seed sequence here, so that no other part of the package draws from the same stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of sky, and how much of it is looked at."""

    name: str
    what: str
    quick_mhz: float
    full_mhz: float
    zoo_per_mhz: float = 0.0
    kind: str | None = None  # of all of the zoo
    tones_per_mhz: float = 0.0
    place: str | None = None  # where tones are: four at each
    curvature: tuple[float, float] | None = None  # Hz/s^2, log-uniform, either sign
    period_s: tuple[float, float] | None = None  # of tones that pulse
    some_ons: bool = False  # tones in one or two of the three ONs
    real: bool = False  # on a real slice, the same in all six observations
    suffix: str = ".fil"


CELLS = (
    Cell(name="noise", what="noise, gains, bursts", quick_mhz=58.6, full_mhz=1000),
    Cell(name="zoo", what="15 emitters a MHz", quick_mhz=29.3, full_mhz=102, zoo_per_mhz=15),
    Cell(name="tones", what="tones in the zoo", quick_mhz=29.3, full_mhz=300, zoo_per_mhz=15, tones_per_mhz=7),
    Cell(name="spike", what="tones beside DC spikes", quick_mhz=23.4, full_mhz=293, place="spike"),
    Cell(name="edge", what="tones beside edges of coarse channels", quick_mhz=23.4, full_mhz=293, place="edge"),
    Cell(name="border", what="tones where stretches of a search join", quick_mhz=11.7, full_mhz=146, place="border"),
    Cell(name="curved", what="curved tones", quick_mhz=11.7, full_mhz=58.6, tones_per_mhz=7, curvature=(1e-5, 1e-3)),
    Cell(name="pulsed", what="pulsed tones", quick_mhz=11.7, full_mhz=58.6, tones_per_mhz=7, period_s=(40, 180)),
    Cell(name="some_ons", what="tones in one or two ONs", quick_mhz=11.7, full_mhz=58.6, tones_per_mhz=7,
         some_ons=True),
    Cell(name="side_lobe", what="RFI, OFFs at 0.12-0.35 of the ONs (.h5)", quick_mhz=2.9, full_mhz=58.6, zoo_per_mhz=15,
         kind="side_lobe", suffix=".h5"),
    Cell(name="intermittent", what="RFI that comes and goes", quick_mhz=11.7, full_mhz=58.6, zoo_per_mhz=15,
         kind="intermittent"),
    Cell(name="off_only", what="RFI in the OFFs alone", quick_mhz=11.7, full_mhz=58.6, zoo_per_mhz=15, kind="off_only"),
    Cell(name="slice", what="a real slice in all six", quick_mhz=0.04, full_mhz=0.04, real=True),
    Cell(name="slice_tones", what="tones in a real slice", quick_mhz=1.8, full_mhz=9.2, tones_per_mhz=66, real=True),
)  # fmt: skip


def cadence_headers(cell: Cell, band_mhz: float, chans: int) -> Iterator[Header]:
    """Yield the first header of each cadence that a cell's band is cut into: whole coarse channels, `chans` at most.

    A real slice without tones is the same in every cadence, so it is searched once, whatever the band.
    """
    header = gbt_header(chans, source_name=f"CELL-{cell.name.upper()}")
    coarse = header.coarse_chans
    left = max(1, round(band_mhz / abs(header.foff * coarse))) * coarse
    if cell.real and not cell.tones_per_mhz:
        left = min(left, chans)
    while left > 0:
        yield replace(header, nchans=min(chans, left))
        left -= chans


def cadence_seeds(cell: Cell, seed: int, number: int) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """Return the seeds of a cadence's emitters and of its noise, independent of those of every other cadence.

    Args:
        cell: only its name counts.
        seed: of the evaluation.
        number: of the cadence within the cell, from 0.
    """
    key = (STREAM, zlib.crc32(cell.name.encode()), number)
    emitters, noise = np.random.SeedSequence(seed, spawn_key=key).spawn(2)
    return emitters, noise


def draw_sky(cell: Cell, header: Header, seed: np.random.SeedSequence) -> Sky:
    """Draw the gains, bursts, interference and tones of one cadence."""
    rng = np.random.default_rng(seed)
    gains, bursts = random_levels(rng)
    low, high = header.band_mhz
    crowd = zoo(rng, header, cell.zoo_per_mhz)
    if cell.kind:
        crowd = tuple(random_interference(rng, one.frequency_mhz, max(one.snr), cell.kind) for one in crowd)
    sky = Sky(header=header, emitters=crowd, gains=gains, bursts=() if cell.real else bursts)
    if cell.place:
        tones = _beside(rng, cell, sky)
    else:
        count = round(cell.tones_per_mhz * (high - low))
        room = (high - low) / max(count, 1)
        middles = (low + room * i + rng.uniform(SPAN_MHZ / 2, room - SPAN_MHZ / 2) for i in range(count))
        tones = [_tone(rng, cell, sky, middle, _drift(rng)) for middle in middles]
    return replace(sky, emitters=(*tones, *crowd))


def _beside(rng: np.random.Generator, cell: Cell, sky: Sky) -> list[Emitter]:
    """Return four parallel tones at each place of the cell's kind, but for the ends of the band."""
    step, first = PLACES[cell.place or ""]
    places = [place for place in range(first, sky.header.nchans, step) if place]
    drifts = {place: _drift(rng) for place in places}
    return [
        _tone(rng, cell, sky, sky.header.frequency(place + beside + rng.uniform(-50, 50)), drifts[place])
        for place in places
        for beside in BESIDE
    ]


def _drift(rng: np.random.Generator) -> float:
    return rng.normal(0, 0.02) if rng.random() < NEARLY_STILL else rng.uniform(-MAX_DRIFT_HZ_S, MAX_DRIFT_HZ_S)


def _tone(rng: np.random.Generator, cell: Cell, sky: Sky, middle_mhz: float, drift: float) -> Emitter:
    """Draw a tone by its frequency half-way through the cadence; its curvature turns about there."""
    headers, snr, lit = sky.headers(), float(rng.choice(SNRS)), ON_POSITIONS
    if cell.some_ons:
        lit = tuple(rng.choice(ON_POSITIONS, rng.integers(1, 3), replace=False))
    curvature = rng.choice((-1, 1)) * log_uniform(rng, *cell.curvature) if cell.curvature else 0.0
    half_s = (headers[-1].tstart - headers[0].tstart) * SECONDS_PER_DAY / 2 + headers[-1].duration_s / 2
    return Emitter(
        frequency_mhz=middle_mhz - (drift * half_s - 0.5 * curvature * half_s**2) * 1e-6,
        drift_hz_s=drift - curvature * half_s,
        width_hz=log_uniform(rng, *WIDTH_HZ),
        snr=tuple(snr if i in lit else 0.0 for i in range(6)),
        curvature_hz_s2=curvature,
        period_s=rng.uniform(*cell.period_s) if cell.period_s else 0.0,
        phase_s=rng.uniform(0, 200),
    )


def _through_bursts(tone: Emitter, sigmas: Float64[np.ndarray, "obs time"]) -> Emitter:
    """Return a tone as much brighter as it must be for its SNR, where some rows are noisier than 1."""
    cost = np.mean(sigmas**-2.0, axis=1) ** -0.5
    return replace(tone, snr=tuple(float(snr) for snr in tone.snr * cost))


def write_sky(
    folder: Path,
    cell: Cell,
    sky: Sky,
    seed: np.random.SeedSequence,
    real: Float32[np.ndarray, "time freq"] | None = None,
) -> tuple[Path, ...]:
    """Write a cadence's six files; return their paths in time order.

    Args:
        folder: existing folder for the files.
        cell: decides the format of the files and whether the power is real.
        sky: what the six observations record.
        seed: of the noise; unused on real power.
        real: linear power of one observation, the background of a real cell in all six.
    """
    sigmas = np.ones((6, sky.header.ntime))
    if not cell.real or real is None:
        for observation, row, times in sky.bursts:
            sigmas[observation, row] = times * BURST_NOISE
        emitters = (_through_bursts(one, sigmas) if one.kind == TONE else one for one in sky.emitters)
        return write_cadence(folder, replace(sky, emitters=tuple(emitters)), seed, suffix=cell.suffix)
    noise = MAD_TO_SIGMA * np.median(np.abs(real - np.median(real, axis=1)[:, None]), axis=1).astype(np.float64)
    sigmas[:] = noise / np.median(noise)
    paths = []
    for position, header in enumerate(sky.headers()):
        power = real.copy()
        start_s = (header.tstart - sky.header.tstart) * SECONDS_PER_DAY
        for tone in sky.emitters:
            add_emitter(
                power, _through_bursts(tone, sigmas), position=position, start_s=start_s, tsamp=header.tsamp,
                fch1=header.fch1, foff=header.foff, noise=np.full(len(noise), np.median(noise)),
            )  # fmt: skip
        paths.append(folder / f"{position}.fil")
        write_fil(paths[-1], header, [power])
    return tuple(paths)
