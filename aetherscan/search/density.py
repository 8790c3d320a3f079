"""Count the interference around a line, and correct the odds that the line is a signal for it.

Interference that resembles a signal, such as a faint side lobe, is as frequent as interference is. A forest learns one
frequency of it, but bands differ: two thirds of the MHz of L band have less than one interferer, others have hundreds.
By Bayes' rule the odds of a signal are the forest's, divided by the local density over that for which the forest's
threshold holds. The density is estimated from the lines that the search rejects within `WITHIN_MHZ`, with a gamma
prior whose mean is the reference: a band of a few kHz says little about its density. See decision 0017.
"""

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import Geometry
from aetherscan.search.on_off import home_channels

WITHIN_MHZ = 1.0
"""Lines are counted up to so far on both sides. In L band, adjacent MHz are alike: the logarithms of their mean
densities correlate by 0.83."""
REFERENCE_PER_MHZ = 12.3
"""Lines that the search rejects in a MHz of the simulated zoo, with 15 interferers; alarm budgets hold for it."""
PRIOR_LINES = 1.0
"""Lines that the prior counts as much as."""
DISTINCT_MHZ = 1e-3
"""A line as close as this to the next lower one does not count: most are further tracks of one emitter."""


def density_at(
    tracks: Float64[np.ndarray, "tracks fields"], rejected: Float64[np.ndarray, " lines"], cadence: Geometry
) -> Float64[np.ndarray, " tracks"]:
    """Return the density of interference around each track, in rejected lines per MHz.

    Args:
        tracks: rows of `follow.Track`, in file channels.
        rejected: file channels of the rejected lines (`on_off.rejected_channels`), in any order.
        cadence: its geometry.
    """
    at = np.asarray(cadence.mhz(home_channels(tracks, cadence)))
    lines = np.sort(cadence.mhz(rejected))
    lines = lines[np.diff(lines, prepend=-np.inf) > DISTINCT_MHZ]
    low, high = (np.clip(at + side * WITHIN_MHZ, *cadence.headers[0].band_mhz) for side in (-1, 1))
    counts = np.searchsorted(lines, high, side="right") - np.searchsorted(lines, low)
    return np.asarray((counts + PRIOR_LINES) / (high - low + PRIOR_LINES / REFERENCE_PER_MHZ))


def odds_factor(density: Float64[np.ndarray, " tracks"]) -> Float64[np.ndarray, " tracks"]:
    """Return by how much the odds of a signal are greater than at the reference density."""
    return REFERENCE_PER_MHZ / density
