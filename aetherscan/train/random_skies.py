"""Draw sky patches: short pieces of band with noise, interference and signals, at native resolution.

A patch is six observations of part of a coarse channel, with gains, bursts and the filter's response. Interference that
resembles a signal is drawn more often and fainter than in a real band. Some signals pulse or curve. Otherwise a forest
would learn that every pulsed or curved line is interference.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import ON_POSITIONS as ON
from aetherscan.header import SCAN_STEP_S, Header, gbt_header
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.interference import log_uniform, random_interference, random_signal
from aetherscan.simulate.noise import NOISE, burst, noise
from aetherscan.simulate.sky import filter_shape, random_levels

KINDS = {
    # kind: (relative frequency, range of SNR)
    "persistent": (1, (4, 3000)),
    "drifting": (2, (4, 3000)),
    "curved": (1, (4, 1000)),
    "wandering": (2, (4, 1000)),
    "wide": (1, (8, 3000)),
    "pulsed": (2, (4, 100)),
    "intermittent": (3, (4, 100)),
    "side_lobe": (6, (4, 40)),
    "off_only": (1, (4, 100)),
    "partial": (3, (4, 60)),
}
"""Interference: the kinds of `simulate.interference`, and `partial`, a signal that is in one or two of the ONs."""
SHARES = np.array([share for share, _ in KINDS.values()]) / sum(share for share, _ in KINDS.values())
COARSE = 2**20
"""Channels of a coarse channel."""
PERIOD_S, CURVATURE_HZ_S2 = (30.0, 300.0), (1e-5, 1.2e-3)
"""Ranges for pulsed and for curved signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSettings:
    """What sky patches contain, and the shape of the snippets cut from them."""

    chans: int = 2**16
    tones: int = 4
    unsteady: float = 0.3  # fraction of the signals that pulse or curve
    interference: int = 18
    windows: int = 2  # drawn for `--mode windows`; half of them hold a signal
    signal_snr: tuple[float, float] = (4.0, 60.0)
    max_drift_hz_s: float = 4.0
    rows: int = 16
    bins: int = 512
    hz: float = 2.7939677238464355  # width of a channel
    tsamp: float = 18.253611008  # s, length of a row


def patch_header(settings: ExampleSettings) -> Header:
    """Return the header of a patch, which is part of a coarse channel."""
    header = gbt_header(settings.chans, rows=settings.rows)
    return replace(header, nfpc=COARSE, foff=-settings.hz * 1e-6, tsamp=settings.tsamp)


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a kind of interference is drawn, and the range of its SNR."""

    per_mhz: float
    snr: tuple[float, float]


def kinds_drawn(settings: ExampleSettings) -> dict[str, Kind]:
    """Return how often, and with which SNR, each kind of interference is in patches."""
    total = settings.interference / (settings.chans * settings.hz * 1e-6)
    return {
        name: Kind(total * share, snr) for share, (name, (_, snr)) in zip(SHARES.tolist(), KINDS.items(), strict=True)
    }


def draw_interference(rng: np.random.Generator, frequency_mhz: float, max_drift_hz_s: float) -> Emitter:
    """Draw interference of one of `KINDS` at a frequency in MHz; `max_drift_hz_s` limits partial signals."""
    kind = str(rng.choice(list(KINDS), p=SHARES))
    snr = log_uniform(rng, *KINDS[kind][1])
    if kind != "partial":
        return random_interference(rng, frequency_mhz, snr, kind)
    signal, present = random_signal(rng, frequency_mhz, snr, max_drift_hz_s), rng.permutation(ON)[: rng.integers(1, 3)]
    return replace(signal, kind=kind, snr=tuple(snr if i in present else 0.0 for i, snr in enumerate(signal.snr)))


def draw_emitters(
    rng: np.random.Generator, settings: ExampleSettings, header: Header | None = None
) -> tuple[list[Emitter], list[Emitter]]:
    """Draw the signals and the interference of a patch; every track stays inside the patch."""
    header = header or patch_header(settings)
    span = 5 * SCAN_STEP_S + header.duration_s

    def placed(emitter: Emitter) -> Emitter:
        reach = emitter.drift_hz_s * span / (header.foff * 1e6)
        start = rng.uniform(max(0, -reach) + 50, settings.chans - max(0, reach) - 50)
        return replace(emitter, frequency_mhz=header.frequency(start))

    def signal() -> Emitter:
        snr = log_uniform(rng, *settings.signal_snr)
        emitter = random_signal(rng, header.fch1, snr, settings.max_drift_hz_s)
        if not settings.unsteady or rng.random() > settings.unsteady:
            return placed(emitter)
        pulse = {"period_s": log_uniform(rng, *PERIOD_S), "phase_s": rng.uniform(0, PERIOD_S[1])}
        curve = {"curvature_hz_s2": log_uniform(rng, *CURVATURE_HZ_S2) * rng.choice([-1, 1])}
        return placed(replace(emitter, **(pulse if rng.random() < 0.5 else curve)))

    others = [
        placed(draw_interference(rng, header.fch1, settings.max_drift_hz_s)) for _ in range(settings.interference)
    ]
    return [signal() for _ in range(settings.tones)], others


def draw_power(
    rng: np.random.Generator, emitters: list[Emitter], settings: ExampleSettings
) -> Float32[np.ndarray, "obs time freq"]:
    """Return the power of a patch at a random place in a coarse channel, in units of the channel's middle level."""
    header, (gains, bursts) = patch_header(settings), random_levels(rng)
    shape = filter_shape(COARSE)
    last = shape.size - settings.chans
    first = int(rng.choice(np.array([0, last, rng.integers(last)])))
    power = np.empty((6, header.ntime, settings.chans), dtype=np.float32)
    for position in range(6):
        power[position] = noise(rng, header.ntime, settings.chans)
        for _, row, times in (event for event in bursts if event[0] == position):
            power[position, row] = burst(power[position, row], times)
        for emitter in emitters:
            add_emitter(
                power[position], emitter, position=position, start_s=position * SCAN_STEP_S, tsamp=header.tsamp,
                fch1=header.fch1, foff=header.foff, noise=np.full(header.ntime, NOISE),
            )  # fmt: skip
        power[position] *= shape[first : first + settings.chans] * np.float32(gains[position])
    return power
