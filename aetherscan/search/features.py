"""Measurements of a track that the forest reads besides the latents, and the file that keeps an example of them."""

import io

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.release import MEASUREMENTS, OBSERVATIONS
from aetherscan.search.follow import DRIFT, HIT_SNR, OFF_CLOSE, OFF_WIDE, RESIDUAL, SNR, STEADY, WIDTH

APPLIES = "three ONs and three OFFs of {0} rows, half as many to twice as many"
"""Cadences that a forest can score, given the rows of the encoder's input."""


def forest_applies(cadence: Geometry, rows: int) -> bool:
    """Return whether a forest can score a cadence: it reads ON and OFF in turn, of about so many rows."""
    pairs = len(cadence.on) == len(cadence.off) == OBSERVATIONS // 2
    return pairs and all(rows / 2 <= length <= 2 * rows for length in cadence.lengths)


def measurements(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry
) -> Float32[np.ndarray, "tracks measurements"]:
    """Return the measurements of each track, one column for each name in `MEASUREMENTS`."""
    on, off = tracks[:, SNR::2][:, cadence.on], tracks[:, SNR::2][:, cadence.off]
    box = np.hypot(tracks[:, WIDTH], tracks[:, DRIFT])
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
        "drift_hz_s": np.abs(tracks[:, DRIFT]) * cadence.hz / cadence.headers[0].tsamp,
        "width_hz": tracks[:, WIDTH] * cadence.hz,
        "box_channels": box,
        "residual": tracks[:, RESIDUAL],
        "steady": tracks[:, STEADY],
        "hit_to_on": tracks[:, HIT_SNR] / on.mean(axis=1),
    }
    assert tuple(columns) == MEASUREMENTS
    return np.stack(list(columns.values()), axis=1).astype(np.float32)


def pack_example(snippet: UInt8[np.ndarray, "obs rows bins"], features: Float32[np.ndarray, " measurements"]) -> bytes:
    """Return a candidate's snippet and measurements as the bytes of an .npz file, for training on people's labels.

    Latents are left out, because another encoder has others. Equal input gives equal bytes.
    """
    stream = io.BytesIO()
    np.savez_compressed(stream, snippet=snippet, told=features, names=np.array(MEASUREMENTS))
    return stream.getvalue()
