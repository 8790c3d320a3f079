"""A sky to test on: whole cadences in exactly the recorders' format, from a seed.

Noise is chi-squared with 204 degrees of freedom (two polarisations of 51 spectra). Each coarse channel carries the
shape of its polyphase filter and a spike in its middle channel; each observation has its own gain, and broadband bursts
lift some rows. On top lie emitters: interference of every kind an observer knows, and the signals we hope for.

The whole sky is drawn a coarse channel at a time, each from its own child of the seed, so memory stays small and the
same coarse channel looks the same in a wider file.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from aetherscan.chi_squared import LANES, fill_chi_squared
from aetherscan.inject import Emitter, add_emitter
from aetherscan.io import write_fil, write_h5
from aetherscan.observation import SECONDS_PER_DAY, Header

DEGREES_OF_FREEDOM = 204
NOISE = (2 / DEGREES_OF_FREEDOM) ** 0.5
"""Sigma of one pixel, as a fraction of the level: 0.099."""
BURST_NOISE = 4.0
"""How much noisier than its level a row of a burst is: few integrations carry it (0.32-0.46 instead of 0.099)."""
LEVEL = 1e9
"""What the recorder writes for noise alone: an arbitrary unit."""
SCAN_S = 341.0
"""Start to start of consecutive scans, the median of real lists."""
ON_POSITIONS, OFF_POSITIONS = (0, 2, 4), (1, 3, 5)
TAPS = 12
THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """What six observations of a cadence see. `header` is the first ON's; the others follow it."""

    header: Header
    emitters: tuple[Emitter, ...] = ()
    off_names: tuple[str, str, str] = ("HIP1_OFF", "HIP2_OFF", "HIP3_OFF")
    gains: tuple[float, ...] = (1.0,) * 6
    bursts: tuple[tuple[int, int, float], ...] = ()  # observation, row, times brighter
    spike: float = 100.0  # DC spike, in levels

    def headers(self) -> tuple[Header, ...]:
        """Return the six headers in time order."""
        off = dict(zip(OFF_POSITIONS, self.off_names, strict=True))
        return tuple(
            replace(
                self.header,
                source_name=off.get(i, self.header.source_name),
                src_dej=self.header.src_dej + (i if i in off else 0),
                tstart=self.header.tstart + i * SCAN_S / SECONDS_PER_DAY,
            )
            for i in range(6)
        )


def gbt_header(nchans: int = 2**18, *, rows: int = 16, fch1: float = 1500.0, source_name: str = "HIP99427") -> Header:
    """Return a header as GBT's recorder writes it for the high-resolution product."""
    return Header(
        telescope_id=6,
        machine_id=20,
        source_name=source_name,
        src_raj=20.1829,
        src_dej=77.2361,
        tstart=59103.0229,
        tsamp=18.253611008,
        fch1=fch1,
        foff=-2.7939677238464355e-06,
        nchans=nchans,
        nifs=1,
        ntime=rows,
        nbits=32,
        nfpc=min(2**20, nchans),
    )


@lru_cache(maxsize=4)
def filter_shape(chans: int) -> Float32[np.ndarray, " freq"]:
    """Return the power response of one coarse channel: a 12-tap Hamming polyphase filter bank, 1 in the middle.

    A neighbouring channel's skirt folds back over each edge, so the edges stand at 0.5.
    """
    length = TAPS * 64
    prototype = np.hamming(length) * np.sinc(np.arange(length) / 64 - TAPS / 2)
    padded = np.abs(np.fft.rfft(prototype, 64 * 4096)) ** 2
    response = padded / padded[0]
    offset = np.abs((np.arange(chans) + 0.5) / chans - 0.5) * 4096  # 4096 steps of the padded transform to one channel
    steps = np.arange(response.size)
    return (np.interp(offset, steps, response) + np.interp(4096 - offset, steps, response)).astype(np.float32)


def noise(rng: np.random.Generator, rows: int, chans: int, binning: int = 1) -> Float32[np.ndarray, "time freq"]:
    """Return noise power around 1: chi-squared by Wilson and Hilferty's cube of a normal.

    Five sigma out, where it is worst, it is off by 1e-3. With `binning`, each value is the mean of so many channels.
    """
    ninth = 2 / (9 * DEGREES_OF_FREEDOM * binning)
    power = np.empty((rows, chans), dtype=np.float32)
    seeds = rng.integers(0, 2**32, (4, LANES), dtype=np.uint32)
    fill_chi_squared(power.reshape(-1), seeds, np.float32(ninth), np.float32(ninth**0.5))
    return power


def burst(noise: Float32[np.ndarray, " freq"], times: float) -> Float32[np.ndarray, " freq"]:
    """Return a row of noise as a broadband burst leaves it: so many times brighter, and noisier than its level."""
    return times * (1 + BURST_NOISE * (noise - 1))


def coarse_blocks(sky: Sky, position: int, seed: np.random.SeedSequence) -> Iterator[Float32[np.ndarray, "time freq"]]:
    """Yield the power of observation `position`, one coarse channel after the other."""
    header = sky.headers()[position]
    rows, width = header.ntime, header.coarse_chans
    bursts = [(row, times) for observation, row, times in sky.bursts if observation == position]
    start_s = (header.tstart - sky.header.tstart) * SECONDS_PER_DAY
    level = sky.gains[position] * LEVEL
    for first in range(0, header.nchans, width):
        rng = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(position, first // width)))
        chans = min(width, header.nchans - first)
        shape = filter_shape(width)[:chans] * np.float32(level)
        power = noise(rng, rows, chans)
        for row, times in bursts:
            power[row] = burst(power[row], times)
        block_mhz = sorted((header.frequency(first), header.frequency(first + chans)))
        for emitter in sky.emitters:
            track = emitter.track_mhz(np.array([start_s, start_s + header.duration_s]))
            reach = 1e-6 * (5 * emitter.width_hz + 1000)
            if track.max() + reach > block_mhz[0] and track.min() - reach < block_mhz[1]:
                add_emitter(
                    power,
                    emitter,
                    position=position,
                    start_s=start_s,
                    tsamp=header.tsamp,
                    fch1=header.frequency(first),
                    foff=header.foff,
                    noise=np.full(rows, NOISE),
                )
        power *= shape
        middle = width // 2
        if sky.spike and middle < chans:
            power[:, middle] += np.float32(sky.spike * level)
            power[:, middle - 1] += np.float32(sky.spike * level / 4)
        yield power


def write_cadence(
    directory: Path, sky: Sky, seed: int, *, suffix: str = ".h5", writer: Literal["rawspec", "blimpy"] = "rawspec"
) -> tuple[Path, ...]:
    """Write the six files of `sky` into `directory`, named as the recorder does; return their paths in time order."""

    def write_one(position: int, header: Header) -> Path:
        day, second = divmod(header.tstart * SECONDS_PER_DAY, SECONDS_PER_DAY)
        name = f"blc00_guppi_{day:.0f}_{second:05.0f}_{header.source_name}_{position + 1:04d}.rawspec.0000{suffix}"
        blocks = coarse_blocks(sky, position, np.random.SeedSequence(seed))
        if suffix == ".fil":
            write_fil(directory / name, header, blocks)
        else:
            write_h5(directory / name, header, blocks, writer=writer)
        return directory / name

    with ThreadPoolExecutor(THREADS) as pool:  # each file from its own child of the seed, so in any order
        return tuple(pool.map(write_one, range(6), sky.headers()))


def random_signal(rng: np.random.Generator, frequency_mhz: float, snr: float, max_drift_hz_s: float = 4.0) -> Emitter:
    """Draw an ON-only signal: width log-uniform in 1-100 Hz, drift uniform with a share of near-zero ones."""
    drift = rng.uniform(-max_drift_hz_s, max_drift_hz_s) if rng.random() > 0.15 else rng.normal(0, 0.02)
    return Emitter(
        frequency_mhz=frequency_mhz,
        drift_hz_s=drift,
        width_hz=log_uniform(rng, 1, 100),
        snr=tuple(snr * rng.uniform(0.8, 1.25) if i in ON_POSITIONS else 0.0 for i in range(6)),
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw between two positive bounds, each factor as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _steady(_: np.random.Generator, snr: float) -> tuple[float, ...]:
    return (snr,) * 6


def _side_lobe(rng: np.random.Generator, snr: float) -> tuple[float, ...]:
    return tuple(snr if i in ON_POSITIONS else snr * rng.uniform(0.12, 0.35) for i in range(6))


def _off_only(_: np.random.Generator, snr: float) -> tuple[float, ...]:
    return tuple(snr if i in OFF_POSITIONS else 0.0 for i in range(6))


def _intermittent(rng: np.random.Generator, snr: float) -> tuple[float, ...]:
    """Present in some observations, at least one, but never in the three ONs alone: that would be a signal."""
    while True:
        present = rng.random(6) < rng.uniform(0.3, 0.9)
        if present.any() and not (present[[0, 2, 4]].all() and not present[[1, 3, 5]].any()):
            return tuple(float(snr * p) for p in present)


INTERFERENCE = {
    # kind: (strength over the six observations, drift Hz/s, width Hz, curvature Hz/s^2, wander Hz, pulse period s)
    "persistent": (_steady, (0, 0), (1, 30), 0, 0, 0),
    "drifting": (_steady, (-4, 4), (1, 30), 0, 0, 0),
    "curved": (_steady, (-2, 2), (1, 30), 2e-3, 0, 0),
    "wandering": (_steady, (-0.5, 0.5), (1, 30), 0, 60, 0),
    "wide": (_steady, (-0.2, 0.2), (100, 2000), 0, 0, 0),
    "pulsed": (_steady, (-0.5, 0.5), (1, 100), 0, 0, 90),
    "intermittent": (_intermittent, (-2, 2), (1, 100), 0, 0, 0),
    "side_lobe": (_side_lobe, (-2, 2), (1, 50), 0, 0, 0),
    "off_only": (_off_only, (-4, 4), (1, 50), 0, 0, 0),
}


def random_interference(rng: np.random.Generator, frequency_mhz: float, snr: float, kind: str | None = None) -> Emitter:
    """Draw one emitter of the zoo at `frequency_mhz`; of any kind where none is named."""
    kind = kind or str(rng.choice(list(INTERFERENCE)))
    strength, drift, width, curvature, wander, period = INTERFERENCE[kind]
    return Emitter(
        frequency_mhz=frequency_mhz,
        drift_hz_s=rng.uniform(*drift),
        width_hz=log_uniform(rng, *width),
        snr=strength(rng, snr),
        kind=kind,
        curvature_hz_s2=rng.uniform(-curvature, curvature),
        wander_hz=rng.uniform(0, wander),
        wander_s=rng.uniform(300, 3000),
        period_s=period * rng.uniform(0.5, 2),
        phase_s=rng.uniform(0, 200),
    )


def zoo(rng: np.random.Generator, header: Header, per_mhz: float = 15.0) -> tuple[Emitter, ...]:
    """Draw the interference of a band: `per_mhz` emitters in each MHz, SNR log-uniform from 8 to 3,000."""
    low, high = header.band_mhz
    count = rng.poisson(per_mhz * (high - low))
    return tuple(random_interference(rng, rng.uniform(low, high), log_uniform(rng, 8, 3000)) for _ in range(count))


def random_levels(rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[tuple[int, int, float], ...]]:
    """Draw six gains a few per cent apart, and a broadband burst of three rows in one observation of two."""
    gains = tuple(float(g) for g in rng.normal(1, 0.04, 6).clip(0.5, 2))
    if rng.random() < 0.5:
        return gains, ()
    observation, row, times = int(rng.integers(6)), int(rng.integers(13)), rng.uniform(2, 8)
    return gains, tuple((observation, row + k, float(times)) for k in range(3))
