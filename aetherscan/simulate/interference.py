"""Draw signals from a target, and interference of the kinds that radio telescopes record."""

import numpy as np

from aetherscan.cadence.geometry import OFF_POSITIONS, ON_POSITIONS
from aetherscan.header import Header
from aetherscan.simulate.injection import Emitter


def random_signal(rng: np.random.Generator, frequency_mhz: float, snr: float, max_drift_hz_s: float = 4.0) -> Emitter:
    """Draw a signal that is in the ONs alone.

    Args:
        rng: of the draw.
        frequency_mhz: at the start of the cadence.
        snr: in an ON; each ON has 0.8 to 1.25 times this value.
        max_drift_hz_s: drift rates are uniform up to this value; 15% are near zero. Widths are log-uniform, 1-100 Hz.
    """
    drift = rng.uniform(-max_drift_hz_s, max_drift_hz_s) if rng.random() > 0.15 else rng.normal(0, 0.02)
    return Emitter(
        frequency_mhz=frequency_mhz,
        drift_hz_s=drift,
        width_hz=log_uniform(rng, 1, 100),
        snr=tuple(snr * rng.uniform(0.8, 1.25) if i in ON_POSITIONS else 0.0 for i in range(6)),
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from a log-uniform distribution between two positive bounds."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _steady(_: np.random.Generator, snr: float) -> tuple[float, ...]:
    return (snr,) * 6


def _side_lobe(rng: np.random.Generator, snr: float) -> tuple[float, ...]:
    return tuple(snr if i in ON_POSITIONS else snr * rng.uniform(0.12, 0.35) for i in range(6))


def _off_only(_: np.random.Generator, snr: float) -> tuple[float, ...]:
    return tuple(snr if i in OFF_POSITIONS else 0.0 for i in range(6))


def _intermittent(rng: np.random.Generator, snr: float) -> tuple[float, ...]:
    """Return an SNR for random observations, but never for exactly the three ONs, as a signal has."""
    while True:
        present = rng.random(6) < rng.uniform(0.3, 0.9)
        if present.any() and not (present[list(ON_POSITIONS)].all() and not present[list(OFF_POSITIONS)].any()):
            return tuple(float(snr * p) for p in present)


INTERFERENCE = {
    # kind: (SNR in the six observations, drift Hz/s, width Hz, curvature Hz/s^2, wander Hz, pulse period s)
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
    """Draw interference.

    Args:
        rng: of the draw.
        frequency_mhz: at the start of the cadence.
        snr: in an observation where the interference is strongest.
        kind: of `INTERFERENCE`; any kind by default.
    """
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
    """Draw the interference of a band: on average `per_mhz` emitters per MHz, SNR log-uniform from 8 to 3,000."""
    low, high = header.band_mhz
    count = rng.poisson(per_mhz * (high - low))
    return tuple(random_interference(rng, rng.uniform(low, high), log_uniform(rng, 8, 3000)) for _ in range(count))
