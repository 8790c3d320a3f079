"""Bin long observations in time, so that any number of rows is searched in bounded memory: decision 0010."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from aetherscan.io.observation import Observation

MOST_ROWS = 256
"""Rows of an observation that are searched one by one."""
PIECE_BYTES = 2**26
"""Power read at once."""


class BinnedObservation(Observation):
    """An observation whose rows are means over `factor` rows of another; the last incomplete ones are left out.

    A pixel that is not finite does not count, and a bin without any other is NaN.
    """

    def __init__(self, observation: Observation, factor: int) -> None:
        own = observation.header
        self.header = replace(own, ntime=own.ntime // factor, tsamp=own.tsamp * factor)
        self._observation, self._factor = observation, factor

    @property
    def chunk_channels(self) -> int:
        """Channels of one chunk of the file."""
        return self._observation.chunk_channels

    def _fill(self, power: Float32[np.ndarray, "time freq"], rows: slice, chans: slice) -> None:
        step = max(1, PIECE_BYTES // (4 * self._factor * power.shape[1]))
        for row in range(rows.start, rows.stop, step):
            end = min(row + step, rows.stop)
            bins = power[row - rows.start : end - rows.start]
            piece = self._observation.read(chans.start, chans.stop, rows=(row * self._factor, end * self._factor))
            pieces = piece.reshape(end - row, self._factor, -1)
            pieces.mean(axis=1, out=bins)
            if not np.isfinite(bins).all():
                count = np.isfinite(pieces).sum(axis=1)
                total = np.where(np.isfinite(pieces), pieces, 0).sum(axis=1)
                bins[:] = np.where(count, total / np.maximum(count, 1), np.nan)


def bin_rows(observations: Sequence[Observation]) -> Sequence[Observation]:
    """Return observations of at most `MOST_ROWS` rows: the same, or all binned by the same factor."""
    factor = -(-max(observation.header.ntime for observation in observations) // MOST_ROWS)
    if factor == 1:
        return observations
    return [BinnedObservation(observation, factor) for observation in observations]
