"""Simulate whole cadences from a seed, and write them in the recorder's format.

Noise is chi-squared with 204 degrees of freedom (two polarizations of 51 spectra). Each coarse channel has the response
of its polyphase filter and a DC spike in its middle channel. Each observation has its own gain, and broadband bursts
raise some rows. Emitters are added to that: interference and signals.

A sky is drawn one coarse channel at a time, each from its own child of the seed. Memory stays small, and a coarse
channel has the same noise in a wider file.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import OFF_POSITIONS
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, Header
from aetherscan.io import write_fil, write_h5
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.noise import NOISE, burst, noise

LEVEL = 1e9
"""Power of noise alone in a file, in arbitrary units."""
TAPS = 12
"""Taps of the polyphase filter bank."""
THREADS = 2
"""Files of a cadence that are written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """The sky and the instrument during the six observations of a cadence. `header` is that of the first ON."""

    header: Header
    emitters: tuple[Emitter, ...] = ()
    off_names: tuple[str, str, str] = ("HIP1_OFF", "HIP2_OFF", "HIP3_OFF")
    gains: tuple[float, ...] = (1.0,) * 6
    bursts: tuple[tuple[int, int, float], ...] = ()  # observation, row, factor of brightness
    spike: float = 100.0  # DC spike, in units of the level

    def headers(self) -> tuple[Header, ...]:
        """Return the six headers in time order."""
        off = dict(zip(OFF_POSITIONS, self.off_names, strict=True))
        return tuple(
            replace(
                self.header,
                source_name=off.get(i, self.header.source_name),
                src_dej=self.header.src_dej + (i if i in off else 0),
                tstart=self.header.tstart + i * SCAN_STEP_S / SECONDS_PER_DAY,
            )
            for i in range(6)
        )


@lru_cache(maxsize=4)
def filter_shape(chans: int) -> Float32[np.ndarray, " freq"]:
    """Return the power response of one coarse channel of a 12-tap Hamming polyphase filter bank, 1 in the middle.

    The skirts of the neighboring channels alias into the edges; the response is 0.5 there.
    """
    length = TAPS * 64
    prototype = np.hamming(length) * np.sinc(np.arange(length) / 64 - TAPS / 2)
    padded = np.abs(np.fft.rfft(prototype, 64 * 4096)) ** 2
    response = padded / padded[0]
    offset = np.abs((np.arange(chans) + 0.5) / chans - 0.5) * 4096  # 4096 steps of the padded transform to one channel
    steps = np.arange(response.size)
    return (np.interp(offset, steps, response) + np.interp(4096 - offset, steps, response)).astype(np.float32)


def coarse_blocks(sky: Sky, position: int, seed: np.random.SeedSequence) -> Iterator[Float32[np.ndarray, "time freq"]]:
    """Yield the power of observation `position`, one coarse channel at a time.

    Each coarse channel draws from a child of `seed`: its position and its number are appended to the spawn key.
    """
    header = sky.headers()[position]
    rows, width = header.ntime, header.coarse_chans
    bursts = [(row, times) for observation, row, times in sky.bursts if observation == position]
    start_s = (header.tstart - sky.header.tstart) * SECONDS_PER_DAY
    level = sky.gains[position] * LEVEL
    for first in range(0, header.nchans, width):
        rng = np.random.default_rng(
            np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, position, first // width))
        )
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
    directory: Path,
    sky: Sky,
    seed: int | np.random.SeedSequence,
    *,
    suffix: str = ".h5",
    writer: Literal["rawspec", "blimpy"] = "rawspec",
) -> tuple[Path, ...]:
    """Write the six files of a cadence, named as the recorder names them; return their paths in time order.

    Args:
        directory: existing folder for the files.
        sky: what the six observations record.
        seed: of the noise. A spawned sequence gives noise that is independent of its parent's and its siblings'.
        suffix: `.h5` or `.fil`.
        writer: the program whose HDF5 layout is written.
    """
    sequence = np.random.SeedSequence(seed) if isinstance(seed, int) else seed

    def write_one(position: int, header: Header) -> Path:
        day, second = divmod(header.tstart * SECONDS_PER_DAY, SECONDS_PER_DAY)
        name = f"blc00_guppi_{day:.0f}_{second:05.0f}_{header.source_name}_{position + 1:04d}.rawspec.0000{suffix}"
        blocks = coarse_blocks(sky, position, sequence)
        if suffix == ".fil":
            write_fil(directory / name, header, blocks)
        else:
            write_h5(directory / name, header, blocks, writer=writer)
        return directory / name

    # Each file draws from its own children of the seed, so the files do not depend on the order of the threads.
    with ThreadPoolExecutor(THREADS) as pool:
        return tuple(pool.map(write_one, range(6), sky.headers()))


def random_levels(rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[tuple[int, int, float], ...]]:
    """Draw six gains a few per cent apart, and a broadband burst of three rows in one observation of two."""
    gains = tuple(float(g) for g in rng.normal(1, 0.04, 6).clip(0.5, 2))
    if rng.random() < 0.5:
        return gains, ()
    observation, row, times = int(rng.integers(6)), int(rng.integers(13)), rng.uniform(2, 8)
    return gains, tuple((observation, row + k, float(times)) for k in range(3))
