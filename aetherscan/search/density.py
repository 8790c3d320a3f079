"""Count the interference around a line, and correct the odds that the line is a signal for it.

A forest learns one density of interference, but bands differ: two thirds of the MHz of L band have less than one
interferer, others have hundreds. By Bayes' rule the odds of a signal are those that the forest gives, divided by the
local density of interference over that for which the forest's threshold holds. See decision 0017. The density is
estimated from the lines that an OFF vetoes, and has two parts:

- Interference that resembles a signal by itself, as a faint side lobe does, is as frequent as the lines within
  `WITHIN_MHZ`. A gamma prior has the reference as its mean, because a band of a few kHz says little.
- Parts of wide, wandering or intermittent emitters, and noise that crosses one, resemble signals too. They lie beside
  a line in some ON.
"""

import numpy as np
from jaxtyping import Bool, Float64

from aetherscan.cadence.geometry import Geometry
from aetherscan.search.follow import SNR
from aetherscan.search.on_off import channels_in_ons, home_of

WITHIN_MHZ = 1.0
"""Lines are counted up to so far on both sides. In L band, adjacent MHz are alike: the logarithms of their mean
densities correlate by 0.83."""
REFERENCE_PER_MHZ = 11.1
"""Such lines in a MHz of the simulated zoo, with 15 interferers; alarm budgets hold for it."""
LEAST_SNR = 6.0
"""Lowest mean SNR in the ONs of a line that counts. Fainter ones may be noise that resembles itself in all scans."""
PRIOR_LINES = 1.0
"""Lines that the prior counts as much as."""
DISTINCT_MHZ = 1e-3
"""A line as close as this to the next lower one is not counted: most are further tracks of one emitter."""
BESIDE_HZ, BESIDE_PER_MHZ = 500.0, 200.0
"""Distance within which a track in an ON is beside a line, and what is added to the density there. In the zoo, tracks
that pass the ON/OFF rule and are no signal are 20 to 40 times denser there than elsewhere."""


def interfering_lines(
    tracks: Float64[np.ndarray, "tracks fields"], rejections: np.ndarray, cadence: Geometry
) -> Float64[np.ndarray, "lines ons"]:
    """Return the file channels in the ONs of the lines that an OFF vetoes and that are bright enough to count.

    Args:
        tracks: rows of `follow.Track`, in file channels.
        rejections: reason why each is rejected, '' if it is not.
        cadence: its geometry.
    """
    bright = tracks[:, SNR::2][:, cadence.on].mean(axis=1) >= LEAST_SNR
    return channels_in_ons(tracks[(rejections == "in_an_off") & bright], cadence)


def density_at(
    tracks: Float64[np.ndarray, "tracks fields"], vetoed: Float64[np.ndarray, "lines ons"], cadence: Geometry
) -> Float64[np.ndarray, " tracks"]:
    """Return the density of interference around each track, in lines per MHz.

    It is the reference where no OFF was measured, for then nothing is vetoed.

    Args:
        tracks: rows of `follow.Track`, in file channels.
        vetoed: from `interfering_lines`, in any order.
        cadence: its geometry.
    """
    if cadence.absent == cadence.off:
        return np.full(len(tracks), REFERENCE_PER_MHZ)
    places = channels_in_ons(tracks, cadence)
    home = home_of(cadence)
    at, lines = np.asarray(cadence.mhz(places[:, home])), np.sort(cadence.mhz(vetoed[:, home]))
    distinct = lines[np.diff(lines, prepend=-np.inf) > DISTINCT_MHZ]
    low, high = (np.clip(at + side * WITHIN_MHZ, *cadence.headers[0].band_mhz) for side in (-1, 1))
    counts = np.searchsorted(distinct, high, side="right") - np.searchsorted(distinct, low)
    around = (counts + PRIOR_LINES) / (high - low + PRIOR_LINES / REFERENCE_PER_MHZ)
    return np.asarray(around + BESIDE_PER_MHZ * beside(places, vetoed, cadence))


def beside(
    places: Float64[np.ndarray, "tracks ons"], vetoed: Float64[np.ndarray, "lines ons"], cadence: Geometry
) -> Bool[np.ndarray, " tracks"]:
    """Return whether tracks are beside a vetoed line in any ON; both are channels in the ONs."""
    reach, near = BESIDE_HZ / cadence.hz, np.zeros(len(places), bool)
    for at, lines in zip(places.T, np.sort(vetoed, axis=0).T, strict=True):
        near |= np.searchsorted(lines, at + reach, side="right") > np.searchsorted(lines, at - reach)
    return near


def odds_factor(density: Float64[np.ndarray, " tracks"]) -> Float64[np.ndarray, " tracks"]:
    """Return by how much the odds of a signal are greater than at the reference density."""
    return REFERENCE_PER_MHZ / density
