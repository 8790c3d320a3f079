"""Labelled snippets to learn from, drawn from a seed: half hold a signal from the target, half do not.

A snippet is drawn at the binning it is served at, with the same emitters, noise, bursts and filter slopes as the
simulated files, and goes through the same normalization. Whatever is drawn for batch k of epoch e depends on the seed,
e and k alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.inject import Emitter, add_emitter
from aetherscan.normalize import normalize
from aetherscan.simulate import (
    NOISE,
    SCAN_S,
    burst,
    log_uniform,
    noise,
    random_interference,
    random_levels,
    random_signal,
)

FOFF, TSAMP = -2.7939677238464355e-06, 18.253611008
FCH1 = 1500.0
CADENCE_S = 5 * SCAN_S + 16 * TSAMP


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSettings:
    """What the snippets look like."""

    binning: int = 8
    rows: int = 16
    bins: int = 512
    signal_snr: tuple[float, float] = (8.0, 150.0)
    interference_snr: tuple[float, float] = (8.0, 2000.0)
    max_drift_hz_s: float = 4.0

    @property
    def chans(self) -> int:
        """Channels at native resolution."""
        return self.bins * self.binning


def background(rng: np.random.Generator, settings: ExampleSettings) -> Float32[np.ndarray, "obs time freq"]:
    """Return six observations without emitters: noise, gains, bursts, now and then a slope or a spike; level 1."""
    gains, bursts = random_levels(rng)
    power = np.stack([noise(rng, settings.rows, settings.bins, settings.binning) for _ in range(6)])
    for observation, row, times in bursts:
        power[observation, row] = burst(power[observation, row], times)
    if rng.random() < 0.2:
        power *= np.linspace(1, rng.uniform(0.97, 1.03), settings.bins, dtype=np.float32)
    if rng.random() < 0.1:
        power[..., rng.integers(settings.bins)] += np.float32(10 ** rng.uniform(-1, 3))
    return power * np.asarray(gains, dtype=np.float32)[:, None, None]


def _inside(emitter: Emitter, rng: np.random.Generator, settings: ExampleSettings) -> Emitter:
    """Return the emitter moved so that its track starts and ends inside the snippet where it can."""
    span = emitter.drift_hz_s * CADENCE_S / (FOFF * 1e6)
    low, high = max(0.0, -span), settings.chans - max(0.0, span)
    start = rng.uniform(low, high) if low < high else settings.chans / 2 - span / 2
    return replace(emitter, frequency_mhz=FCH1 + start * FOFF)


def draw_emitters(rng: np.random.Generator, settings: ExampleSettings, *, signal: bool) -> tuple[Emitter, ...]:
    """Draw what is in one snippet: with `signal` one ON-only tone, and in half of all snippets interference."""
    found = []
    if signal:
        found.append(random_signal(rng, FCH1, log_uniform(rng, *settings.signal_snr), settings.max_drift_hz_s))
    if rng.random() < 0.5:
        count = 1 + rng.poisson(0.5)
        found += [random_interference(rng, FCH1, log_uniform(rng, *settings.interference_snr)) for _ in range(count)]
    return tuple(_inside(emitter, rng, settings) for emitter in found)


def draw_batch(
    rng: np.random.Generator, count: int, settings: ExampleSettings
) -> tuple[Float32[np.ndarray, "batch obs time bins"], Float32[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
    """Return `count` normalized snippets, 1.0 or 0.0 for each, and the SNR of its signal in the weakest ON (or 0)."""
    snippets = np.empty((count, 6, settings.rows, settings.bins), dtype=np.float32)
    labels = np.zeros(count, dtype=np.float32)
    snrs = np.zeros(count)
    for i in range(count):
        labels[i] = i % 2
        emitters = draw_emitters(rng, settings, signal=bool(labels[i]))
        snrs[i] = min(emitters[0].snr[::2]) if labels[i] else 0.0
        power = background(rng, settings)
        for emitter in emitters:
            for position in range(6):
                add_emitter(
                    power[position],
                    emitter,
                    position=position,
                    start_s=position * SCAN_S,
                    tsamp=TSAMP,
                    fch1=FCH1,
                    foff=FOFF,
                    noise=np.full(settings.rows, NOISE),
                    binning=settings.binning,
                )
        snippets[i] = normalize(power)
    return snippets, labels, snrs
