"""Cut a candidate out of its files again, as a search shows it to the encoder, to learn from what people judged."""

from collections.abc import Sequence

import numpy as np

from aetherscan.examples import Examples
from aetherscan.geometry import geometry_of
from aetherscan.io import Observation
from aetherscan.normalize import SHADES
from aetherscan.stretches import blocks, halo
from aetherscan.track import DRIFT, START
from aetherscan.tracks import SearchSettings, equalize_arrays, find_tracks, measurements, track_snippet

NEAR_HZ = 50.0


def recut(
    observations: Sequence[Observation],
    frequency_mhz: float,
    label: float,
    on: tuple[int, ...],
    shape: tuple[int, int],
    settings: SearchSettings | None = None,
) -> Examples | None:
    """Return the example that a search makes of the track nearest a frequency, None where it finds none by now.

    Args:
        observations: open, six of them.
        frequency_mhz: at the start of the first ON, as the candidate has it.
        label: 1 for a signal, 0 for what is none.
        on: positions of the ONs.
        shape: rows and bins of a snippet.
        settings: of the search.

    Raises:
        CadenceError: the observations do not share a band.
        ReadError: a file could not be read.
    """
    settings = settings or SearchSettings()
    cadence = geometry_of([observation.header for observation in observations], on)
    channel = round(cadence.headers[0].channel(frequency_mhz))
    if not 0 <= channel < cadence.nchans:
        return None
    reach = halo(cadence.headers, cadence.max_drift(settings.max_drift_hz_s))
    ((stretch,),) = blocks(observations, reach, block=settings.block_channels, only=channel)
    sigmas = np.empty((6, cadence.rows, stretch.high - stretch.low), dtype=np.float32)
    equalized = equalize_arrays(stretch.power, cadence, stretch.low - stretch.origin, sigmas, stretch.low)
    tracks, fates, _ = find_tracks(
        equalized, (stretch.start - stretch.low, stretch.stop - stretch.low), cadence, settings
    )
    tracks = tracks[fates == ""]
    first = cadence.middles[on[0]] - cadence.rows / 2
    away_hz = np.abs(tracks[:, START] + tracks[:, DRIFT] * first + stretch.low - channel) * cadence.hz
    if not (away_hz < NEAR_HZ).any():
        return None
    nearest = tracks[[int(np.argmin(away_hz))]]
    return Examples(
        snippets=np.rint(track_snippet(equalized, nearest[0], cadence, shape)[None] * SHADES).astype(np.uint8),
        labels=np.array([label], np.float32),
        snrs=np.zeros(1, np.float32),
        measurements=measurements(nearest, cadence),
    )
