"""Measurements of a track that the forest reads, and the file that keeps an example of them."""

import io
import math

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy.special import logsumexp

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.release import MEASUREMENTS, OBSERVATIONS
from aetherscan.search.follow import (
    CURVATURE,
    DRIFT,
    HIT_SNR,
    OFF_CLOSE,
    OFF_WIDE,
    RESIDUAL,
    SNR,
    STEADY,
    WIDTH,
    boxes,
)

APPLIES = "three ONs and three OFFs of {0} rows, half as many to twice as many"
"""Cadences that a forest can score, given the rows of the encoder's input."""

SIDE_LOBE = (0.12, 0.35)
"""Power in an OFF over that in an ON, of an emitter in a side lobe of the beam."""


def forest_applies(cadence: Geometry, rows: int) -> bool:
    """Return whether a forest can score a cadence: it reads ON and OFF in turn, of about so many rows."""
    pairs = len(cadence.on) == len(cadence.off) == OBSERVATIONS // 2
    return pairs and all(rows / 2 <= length <= 2 * rows for length in cadence.lengths)


def measurements(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry
) -> Float32[np.ndarray, "tracks measurements"]:
    """Return the measurements of each track, one column for each name in `MEASUREMENTS`."""
    on, off = tracks[:, SNR::2][:, cadence.on], tracks[:, SNR::2][:, cadence.off]
    unlike, tsamp = on.var(axis=1) * len(cadence.on), cadence.headers[0].tsamp
    together = on.sum(axis=1) / len(cadence.on) ** 0.5
    columns = {
        "on_together": together,
        "on_weakest": on.min(axis=1) / on.mean(axis=1),
        "on_brightest": on.max(axis=1) / on.mean(axis=1),
        "off_together": off.sum(axis=1) / len(cadence.off) ** 0.5,
        "off_brightest": off.max(axis=1),
        "off_to_on": off.sum(axis=1) / on.sum(axis=1),
        "off_near": tracks[:, OFF_CLOSE],
        "off_around": tracks[:, OFF_WIDE],
        "around_to_on": tracks[:, OFF_WIDE] / on.mean(axis=1),
        "drift_hz_s": np.abs(tracks[:, DRIFT] + tracks[:, CURVATURE] * cadence.end / 2) * cadence.hz / tsamp,
        "curvature_hz_s2": np.abs(tracks[:, CURVATURE]) * cadence.hz / tsamp**2,
        "width_hz": tracks[:, WIDTH] * cadence.hz,
        "box_channels": boxes(tracks),
        "residual": tracks[:, RESIDUAL],
        "steady": tracks[:, STEADY],
        "hit_to_on": tracks[:, HIT_SNR] / on.mean(axis=1),
        "on_unlike": unlike,
        "on_unlike_to_on": unlike / on.mean(axis=1) ** 2,
        "side_lobe_odds": side_lobe_odds(on.mean(axis=1), off),
    }
    assert tuple(columns) == MEASUREMENTS
    return np.stack(list(columns.values()), axis=1).astype(np.float32)


def side_lobe_odds(
    on: Float64[np.ndarray, " tracks"], off: Float64[np.ndarray, "tracks offs"]
) -> Float64[np.ndarray, " tracks"]:
    """Return the log odds of the OFFs' SNR if a side lobe sees the emitter in them, against noise alone.

    The side lobe receives a share of the power in each OFF: any of `SIDE_LOBE`, independent and equally likely. Both
    hypotheses have unit noise.

    Args:
        on: mean SNR of the ONs.
        off: SNR of each OFF.
    """
    shares = np.linspace(*SIDE_LOBE, 24)
    expected = on[:, None, None] * shares
    return np.asarray(logsumexp(off[:, :, None] * expected - expected**2 / 2, axis=2).sum(axis=1)) - len(
        off.T
    ) * math.log(len(shares))


def pack_example(snippet: UInt8[np.ndarray, "obs rows bins"], features: Float32[np.ndarray, " measurements"]) -> bytes:
    """Return a candidate's snippet and measurements as the bytes of an .npz file, for training on people's labels.

    Latents are left out, because another encoder has others. Equal input gives equal bytes.
    """
    stream = io.BytesIO()
    np.savez_compressed(stream, snippet=snippet, measurements=features, names=np.array(MEASUREMENTS))
    return stream.getvalue()
