"""The simulated skies on which a search is evaluated: what each scenario contains, and how it becomes files.

The band of a scenario is cut into cadences of a few coarse channels. The evaluation's seed, the scenario's name and the
cadence's number seed each cadence: cadences share neither noise nor emitters, and any one can be drawn again alone. A
tone has its nominal SNR in each ON: where a burst raises the noise of some rows, the tone is made brighter to
compensate, as if it were equally bright in every row. A pulsed tone is not, so a burst changes its SNR.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.header import MAD_TO_SIGMA, SECONDS_PER_DAY, Header, gbt_header
from aetherscan.io import write_fil
from aetherscan.search.blocks import BLOCK_CHANNELS
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.interference import log_uniform, random_interference, zoo
from aetherscan.simulate.noise import BURST_NOISE
from aetherscan.simulate.sky import Sky, random_levels, write_cadence

COARSE_CHANS = 2**20
CADENCE_CHANS = 8 * COARSE_CHANS
SNRS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 60.0)
"""SNRs that tones are drawn from, of the ideal matched filter in each ON."""
TONE = "tone"
"""Kind of the emitters that a search should report."""
WIDTHS_HZ, MAX_DRIFT_HZ_S = (2.0, 50.0), 4.0
SLOW_SHARE, SLOW_DRIFT_HZ_S = 0.15, 0.02
"""Fraction of tones that hardly drift, and the standard deviation of their drift rates."""
TONE_ROOM_MHZ = 0.01
"""Band that the fastest tone crosses in a cadence, with a margin; tones are drawn at least this far apart."""
TONE_OFFSETS = (-450, -150, 150, 450)
"""Channels from a place to its four parallel tones, half-way through the cadence; each varies by up to 50."""
PLACES = {
    "spike": (COARSE_CHANS, COARSE_CHANS // 2),
    "edge": (COARSE_CHANS, 0),
    "border": (2 * BLOCK_CHANNELS, BLOCK_CHANNELS),
}
"""Channels from one place to the next, and the channel of the first."""
STREAM = zlib.crc32(b"aetherscan.evaluate")
"""First key of every seed sequence here, so that no other part of the package draws from the same stream."""


SHARES = (0.0, 0.25, 0.5, 0.66, 0.75, 0.88, 0.95, 0.984, 0.995, 1.0)
OCCUPANCY = {
    "L": (0.0, 0.0, 0.22, 1.0, 2.97, 14.2, 54.6, 100.0, 156.0, 286.0),
    "S": (0.0, 0.0, 0.0, 0.01, 0.08, 0.64, 2.42, 10.3, 24.4, 75.0),
    "C": (0.0, 0.0, 0.0, 0.0, 0.0, 0.18, 2.83, 7.7, 10.5, 13.9),
    "X": (0.0, 0.0, 0.0, 0.0, 0.0, 0.18, 1.82, 3.8, 4.77, 5.75),
}
"""Interferers per MHz that these shares of a band's MHz do not exceed: turboSETI's hits with SNR >= 10, the mean of 651
observations at Green Bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of sky and the band of it that is searched, in MHz of cadence."""

    name: str
    description: str
    quick_mhz: float
    full_mhz: float
    zoo_per_mhz: float = 0.0
    occupancy: str | None = None  # key of `OCCUPANCY`: each coarse channel is a cadence of its own density
    zoo_kind: str | None = None  # the only kind of interference; all kinds if None
    tones_per_mhz: float = 0.0
    place: str | None = None  # key of `PLACES`: four tones at each
    curvature_hz_s2: tuple[float, float] | None = None  # of tones: log-uniform, either sign
    period_s: tuple[float, float] | None = None  # of tones that pulse
    partial_ons: bool = False  # tones are in one or two of the three ONs
    real: bool = False  # tones are added to a real slice, which is the same in all six observations
    suffix: str = ".fil"


SCENARIOS = (
    Scenario(name="noise", description="noise, gains, bursts", quick_mhz=58.6, full_mhz=2000),
    Scenario(name="zoo", description="15 interferers per MHz", quick_mhz=58.6, full_mhz=2400, zoo_per_mhz=15),
    Scenario(name="tones", description="tones among 15 interferers per MHz", quick_mhz=46.9, full_mhz=300,
             zoo_per_mhz=15, tones_per_mhz=7),
    Scenario(name="tones_alone", description="tones in noise with gains and bursts", quick_mhz=23.4, full_mhz=300,
             tones_per_mhz=7),
    Scenario(name="spike", description="tones beside DC spikes", quick_mhz=23.4, full_mhz=293, place="spike"),
    Scenario(name="edge", description="tones beside edges of coarse channels", quick_mhz=23.4, full_mhz=293,
             place="edge"),
    Scenario(name="border", description="tones beside borders between blocks of the search", quick_mhz=11.7,
             full_mhz=146, place="border"),
    Scenario(name="curved", description="curved tones", quick_mhz=23.4, full_mhz=117, tones_per_mhz=7,
             curvature_hz_s2=(1e-5, 1e-3)),
    Scenario(name="pulsed", description="pulsed tones", quick_mhz=23.4, full_mhz=117, tones_per_mhz=7,
             period_s=(40, 180)),
    Scenario(name="some_ons", description="tones in one or two ONs", quick_mhz=11.7, full_mhz=58.6, tones_per_mhz=7,
             partial_ons=True),
    Scenario(name="side_lobe", description="interference with OFFs at 0.12-0.35 of the ONs (.h5)", quick_mhz=2.9,
             full_mhz=58.6, zoo_per_mhz=15, zoo_kind="side_lobe", suffix=".h5"),
    Scenario(name="intermittent", description="intermittent interference", quick_mhz=11.7, full_mhz=58.6,
             zoo_per_mhz=15, zoo_kind="intermittent"),
    Scenario(name="off_only", description="interference in the OFFs only", quick_mhz=11.7, full_mhz=58.6,
             zoo_per_mhz=15, zoo_kind="off_only"),
    *(
        Scenario(name=f"band_{band}", description=f"tones in skies as full as Green Bank's {band} band",
                 quick_mhz=11.7, full_mhz=293, occupancy=band, tones_per_mhz=7)
        for band in OCCUPANCY
    ),
    Scenario(name="slice", description="a real slice in all six observations", quick_mhz=0.04, full_mhz=0.04,
             real=True),
    Scenario(name="slice_tones", description="tones in a real slice", quick_mhz=1.8, full_mhz=9.2, tones_per_mhz=66,
             real=True),
)  # fmt: skip


def cadence_headers(scenario: Scenario, band_mhz: float, chans: int) -> Iterator[Header]:
    """Yield the first header of each cadence of a scenario's band, in whole coarse channels.

    A real slice without tones is the same in every cadence, so it has one cadence, whatever the band.

    Args:
        scenario: its name becomes the target.
        band_mhz: band over all cadences, in MHz.
        chans: fine channels of a cadence at most.
    """
    chans = min(chans, COARSE_CHANS) if scenario.occupancy else chans
    header = gbt_header(chans, source_name=f"SIM-{scenario.name.upper()}")
    coarse = header.coarse_chans
    left = max(1, round(band_mhz / abs(header.foff * coarse))) * coarse
    if scenario.real and not scenario.tones_per_mhz:
        left = min(left, chans)
    while left > 0:
        yield replace(header, nchans=min(chans, left))
        left -= chans


def cadence_seeds(scenario: Scenario, seed: int, number: int) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """Return the seeds of a cadence's emitters and of its noise, independent of those of every other cadence.

    Args:
        scenario: only its name counts.
        seed: of the evaluation.
        number: of the cadence within the scenario, from 0.
    """
    key = (STREAM, zlib.crc32(scenario.name.encode()), number)
    emitters, noise = np.random.SeedSequence(seed, spawn_key=key).spawn(2)
    return emitters, noise


def draw_sky(scenario: Scenario, header: Header, seed: np.random.SeedSequence) -> Sky:
    """Draw the gains, bursts, interference and tones of one cadence."""
    rng = np.random.default_rng(seed)
    gains, bursts = random_levels(rng)
    low, high = header.band_mhz
    per_mhz = scenario.zoo_per_mhz
    if scenario.occupancy:
        per_mhz = float(np.interp(rng.random(), SHARES, OCCUPANCY[scenario.occupancy]))
    interference = zoo(rng, header, per_mhz)
    if scenario.zoo_kind:
        interference = tuple(
            random_interference(rng, emitter.frequency_mhz, max(emitter.snr), scenario.zoo_kind)
            for emitter in interference
        )
    sky = Sky(header=header, emitters=interference, gains=gains, bursts=() if scenario.real else bursts)
    if scenario.place:
        tones = _tones_at_places(rng, scenario, sky)
    else:
        count = round(scenario.tones_per_mhz * (high - low))
        room = (high - low) / max(count, 1)
        centers = (low + room * i + rng.uniform(TONE_ROOM_MHZ / 2, room - TONE_ROOM_MHZ / 2) for i in range(count))
        tones = [_tone(rng, scenario, sky, center, _drift(rng)) for center in centers]
    return replace(sky, emitters=(*tones, *interference))


def _tones_at_places(rng: np.random.Generator, scenario: Scenario, sky: Sky) -> list[Emitter]:
    """Return four parallel tones at each place of the scenario, except at the ends of the band."""
    step, first = PLACES[scenario.place or ""]
    places = [place for place in range(first, sky.header.nchans, step) if place]
    drifts = {place: _drift(rng) for place in places}
    return [
        _tone(rng, scenario, sky, sky.header.frequency(place + offset + rng.uniform(-50, 50)), drifts[place])
        for place in places
        for offset in TONE_OFFSETS
    ]


def _drift(rng: np.random.Generator) -> float:
    slow = rng.random() < SLOW_SHARE
    return rng.normal(0, SLOW_DRIFT_HZ_S) if slow else rng.uniform(-MAX_DRIFT_HZ_S, MAX_DRIFT_HZ_S)


def _tone(rng: np.random.Generator, scenario: Scenario, sky: Sky, center_mhz: float, drift: float) -> Emitter:
    """Draw a tone; `center_mhz` and `drift` (Hz/s) are its frequency and drift rate half-way through the cadence."""
    headers, snr, on = sky.headers(), float(rng.choice(SNRS)), ON_POSITIONS
    if scenario.partial_ons:
        on = tuple(rng.choice(ON_POSITIONS, rng.integers(1, 3), replace=False))
    bounds = scenario.curvature_hz_s2
    curvature = rng.choice((-1, 1)) * log_uniform(rng, *bounds) if bounds else 0.0
    half_s = (headers[-1].tstart - headers[0].tstart) * SECONDS_PER_DAY / 2 + headers[-1].duration_s / 2
    return Emitter(
        frequency_mhz=center_mhz - (drift * half_s - 0.5 * curvature * half_s**2) * 1e-6,
        drift_hz_s=drift - curvature * half_s,
        width_hz=log_uniform(rng, *WIDTHS_HZ),
        snr=tuple(snr if i in on else 0.0 for i in range(6)),
        curvature_hz_s2=curvature,
        period_s=rng.uniform(*scenario.period_s) if scenario.period_s else 0.0,
        phase_s=rng.uniform(0, 200),
    )


def _compensate_noise(tone: Emitter, sigmas: Float64[np.ndarray, "obs time"]) -> Emitter:
    """Return a tone made brighter so that it keeps its SNR where rows are noisier than 1."""
    factors = np.mean(sigmas**-2.0, axis=1) ** -0.5
    return replace(tone, snr=tuple(float(snr) for snr in tone.snr * factors))


def write_sky(
    folder: Path,
    scenario: Scenario,
    sky: Sky,
    seed: np.random.SeedSequence,
    real: Float32[np.ndarray, "time freq"] | None = None,
) -> tuple[Path, ...]:
    """Write a cadence's six files; return their paths in time order.

    Args:
        folder: existing folder for the files.
        scenario: decides the format of the files and whether the power is real.
        sky: what the six observations record.
        seed: of the noise; unused on real power.
        real: linear power of one observation, the background of a real scenario in all six.
    """
    sigmas = np.ones((6, sky.header.ntime))
    if not scenario.real or real is None:
        for observation, row, factor in sky.bursts:
            sigmas[observation, row] = factor * BURST_NOISE
        emitters = (_compensate_noise(emitter, sigmas) if emitter.kind == TONE else emitter for emitter in sky.emitters)
        return write_cadence(folder, replace(sky, emitters=tuple(emitters)), seed, suffix=scenario.suffix)
    noise = MAD_TO_SIGMA * np.median(np.abs(real - np.median(real, axis=1)[:, None]), axis=1).astype(np.float64)
    sigmas[:] = noise / np.median(noise)
    paths = []
    for position, header in enumerate(sky.headers()):
        power = real.copy()
        start_s = (header.tstart - sky.header.tstart) * SECONDS_PER_DAY
        for tone in sky.emitters:
            add_emitter(
                power, _compensate_noise(tone, sigmas), position=position, start_s=start_s, tsamp=header.tsamp,
                fch1=header.fch1, foff=header.foff, noise=np.full(len(noise), np.median(noise)),
            )  # fmt: skip
        paths.append(folder / f"{position}.fil")
        write_fil(paths[-1], header, [power])
    return tuple(paths)
