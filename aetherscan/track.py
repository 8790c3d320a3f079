"""Follow one signal through the six observations of a cadence, and measure it in each.

The ONs are searched where the brightest hit says the signal should be; a straight line through what they found says,
far better than any one of them, how fast the signal drifts. The OFFs are then measured along that line and nowhere
else: a signal from the target must be absent there, not merely below a threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.dedoppler import Hit, best_line

WIDTHS = np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], dtype=np.float64)
LONGEST_SLACK = 24.0
"""Channels a signal may stray from the straight line between two ONs before it is another signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One signal through a cadence, in channels of the searched array and seconds after the first row."""

    start_channel: float  # centre, at the start of the first observation
    drift: float  # channels per row
    width: float  # channels
    snr: tuple[float, ...]  # one per observation

    def channel(self, at_s: float, tsamp: float) -> float:
        """Return the channel at `at_s` seconds after the start of the first observation."""
        return self.start_channel + self.drift * at_s / tsamp


def follow(
    hit: Hit,
    position: int,
    sigmas: Sequence[Float32[np.ndarray, "time freq"]],
    scatters: Sequence[Float32[np.ndarray, "level time"]],
    middles_s: Float64[np.ndarray, " obs"],
    tsamp: float,
    on: tuple[int, ...] = (0, 2, 4),
) -> Track:
    """Return the track through `hit`, which was found in observation `position`.

    Args:
        hit: where to begin.
        position: of the observation that holds it.
        sigmas: six standardized observations of the same channels.
        scatters: their `spread`.
        middles_s: middle of each observation, seconds after the first row of the first.
        tsamp: seconds per row.
        on: positions of the ONs.
    """
    rows = len(sigmas[position])
    power = list(zip(sigmas, scatters, strict=True))
    box = max(hit.width, abs(hit.drift))
    nearby = hit.drift + np.arange(-4, 5) * hit.width / (2 * rows)
    snr, channel, drift, width = _locate(
        power[position], hit.channel, 1.5 * box, nearby, WIDTHS[2 * hit.width >= WIDTHS], box
    )
    found = {position: (snr, channel)}
    for other in sorted(set(on) - {position}, key=lambda i: abs(i - position)):
        rows_away = (middles_s[other] - middles_s[position]) / tsamp
        # The drift of one observation is known to about a width over its length; that grows with the distance.
        slack = min(box * abs(rows_away) / rows, LONGEST_SLACK) + 2 * box
        nearby = drift + np.arange(-1, 2) * box / rows
        expected = channel + drift * rows_away
        found[other] = _locate(power[other], expected, slack, nearby, np.array([width]), box)[:2]
    start, drift = _line(found, middles_s, tsamp)
    # Once more with the drift that all the ONs agree on, which places each of them better.
    for i, (_, channel) in found.items():
        found[i] = _locate(power[i], channel, box / 4, np.array([drift]), np.array([width]), box)[:2]
    start, drift = _line(found, middles_s, tsamp)
    drifts = np.array([drift])
    places = {i: channel + np.arange(-1, 1.25, 0.5) for i, (_, channel) in found.items()}
    # The median of the three: another line that crosses one of them must not decide.
    by_width = [np.median([best_line(*power[i], places[i], drifts, np.array([w]))[0] for i in found]) for w in WIDTHS]
    width = float(WIDTHS[int(np.argmax(by_width))])
    widths = np.array([width])
    for i in set(range(len(sigmas))) - set(found):
        expected = start + drift * middles_s[i] / tsamp
        places[i] = expected + np.arange(-1, 1.25, 0.5) * max(2.0, width / 2)
    snrs = [best_line(*power[i], places[i], drifts, widths)[0] for i in range(len(power))]
    return Track(start_channel=start, drift=drift, width=width, snr=tuple(snrs))


def _locate(
    power: tuple[Float32[np.ndarray, "time freq"], Float32[np.ndarray, "level time"]],
    around: float,
    reach: float,
    drifts: Float64[np.ndarray, " drifts"],
    widths: Float64[np.ndarray, " widths"],
    box: float,
) -> tuple[float, float, float, float]:
    """Return (snr, channel, drift, width) of the brightest line within `reach` channels: coarsely, then finely."""
    coarse = around + np.arange(-reach, reach + 0.25, max(0.5, box / 4))
    _, channel, drift, width = best_line(*power, coarse, drifts, widths)
    fine = channel + np.arange(-box / 4, box / 4 + 0.25, 0.5)
    return best_line(*power, fine, np.array([drift]), np.array([width]))


def _line(
    found: dict[int, tuple[float, float]], middles_s: Float64[np.ndarray, " obs"], tsamp: float
) -> tuple[float, float]:
    """Return channel at time zero, and drift, of the straight line through the ONs, weighed by their SNR."""
    positions = sorted(found)
    rows = np.array([middles_s[i] / tsamp for i in positions])
    channels = np.array([found[i][1] for i in positions])
    weights = np.array([max(found[i][0], 0.1) for i in positions])
    drift, start = np.polyfit(rows, channels, 1, w=weights)
    return float(start), float(drift)
