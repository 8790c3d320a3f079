"""How unlike the signals of the training a line looks: minus the logarithm of the share of them that are as unlike.

Two values of a line are compared with those of the signals: Mahalanobis' distance of its shape from theirs, and the
probability that the forest of kinds gives to any kind but a signal. For each, the share of the signals is taken whose
value is at least as large. Fisher's method (Fisher 1932, Statistical Methods for Research Workers, section 21.1)
combines both shares p and q as if they were independent: p q (1 - ln(p q)). Shares below that of the most unlike signal
are not known, so the strangeness has an upper limit, about 5.

`benchmarks/strangeness.py` measures whether this ranks signals of shapes that no training had.
"""

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.detector.release import MEASUREMENTS, SHAPE, Signals

COLUMNS = [MEASUREMENTS.index(name) for name in SHAPE]
SHARES = 32
"""Shares at which the values of the signals are kept."""
DIGITS = 6


def learn_signals(
    measurements: Float32[np.ndarray, "signals measurements"], unlikely: Float64[np.ndarray, " signals"]
) -> Signals:
    """Return what signals look like.

    Args:
        measurements: of at least ten signals.
        unlikely: probability of each, by the forest of kinds, of not being a signal.
    """
    scaled = _scaled(measurements)
    covariance = np.cov(scaled, rowvar=False) + 1e-3 * np.diag(scaled.var(axis=0) + 1e-6)
    centre, whiten = scaled.mean(axis=0), np.linalg.cholesky(np.linalg.inv(covariance)).T
    shares = np.geomspace(1, 1 / (len(scaled) + 1), SHARES)
    reached = [np.quantile(values, 1 - shares) for values in (_distance(scaled, centre, whiten), unlikely)]
    return Signals(
        shape=SHAPE,
        centre=_rounded(centre),
        whiten=[_rounded(row) for row in whiten],
        shares=_rounded(shares),
        distances=_rounded(reached[0]),
        unlikely=_rounded(reached[1]),
    )


def strangeness(
    measurements: Float32[np.ndarray, "lines measurements"],
    unlikely: Float64[np.ndarray, " lines"],
    signals: Signals,
) -> Float64[np.ndarray, " lines"]:
    """Return how strange lines are as signals: 1 if one signal in ten is as unlike, 3 if one in a thousand.

    Args:
        measurements: of the lines.
        unlikely: probability of each, by the forest of kinds, of not being a signal.
        signals: of the training.
    """
    distances = _distance(_scaled(measurements), np.array(signals.centre), np.array(signals.whiten))
    logs = np.log(signals.shares)
    both = np.interp(distances, signals.distances, logs) + np.interp(unlikely, signals.unlikely, logs)
    return np.asarray(-(both + np.log1p(-both)) / np.log(10))


def _scaled(measurements: Float32[np.ndarray, "lines measurements"]) -> Float64[np.ndarray, "lines shape"]:
    """Return the measurements of the shape on a scale that is linear near zero and logarithmic far from it."""
    return np.arcsinh(measurements[:, COLUMNS].astype(np.float64) * 10)


def _distance(
    scaled: Float64[np.ndarray, "lines shape"], centre: Float64[np.ndarray, " shape"], whiten: np.ndarray
) -> Float64[np.ndarray, " lines"]:
    return np.asarray(np.linalg.norm((scaled - centre) @ whiten.T, axis=1))


def _rounded(values: Float64[np.ndarray, " values"]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
