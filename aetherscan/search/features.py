"""TODO."""

import io

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.release import MEASUREMENTS
from aetherscan.search.follow import DRIFT, HIT_SNR, OFF_AROUND, OFF_NEAR, RESIDUAL, SNR, STEADY, WIDTH


def measurements(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry
) -> Float32[np.ndarray, "tracks measurements"]:
    """Return what the forest is told of each track beside its latents: the columns of `MEASUREMENTS`."""
    on, off = tracks[:, SNR:][:, cadence.on], tracks[:, SNR:][:, cadence.off]
    box = np.hypot(tracks[:, WIDTH], tracks[:, DRIFT])
    together = on.sum(axis=1) / 3**0.5
    columns = {
        "on_together": together,
        "on_weakest": on.min(axis=1) / on.mean(axis=1),
        "on_brightest": on.max(axis=1) / on.mean(axis=1),
        "off_together": off.sum(axis=1) / 3**0.5,
        "off_brightest": off.max(axis=1),
        "off_to_on": off.sum(axis=1) / on.sum(axis=1),
        "off_near": tracks[:, OFF_NEAR],
        "off_around": tracks[:, OFF_AROUND],
        "around_to_on": tracks[:, OFF_AROUND] / on.mean(axis=1),
        "drift_hz_s": np.abs(tracks[:, DRIFT]) * cadence.hz / cadence.headers[0].tsamp,
        "width_hz": tracks[:, WIDTH] * cadence.hz,
        "box_channels": box,
        "residual": tracks[:, RESIDUAL],
        "steady": tracks[:, STEADY],
        "hit_to_on": tracks[:, HIT_SNR] / on.mean(axis=1),
    }
    assert tuple(columns) == MEASUREMENTS
    return np.stack(list(columns.values()), axis=1).astype(np.float32)


def packed(snippet: UInt8[np.ndarray, "obs rows bins"], told: Float32[np.ndarray, " measurements"]) -> bytes:
    """Return what a search showed of a candidate as a file, the same bytes each time: latents are another encoder's."""
    stream = io.BytesIO()
    np.savez_compressed(stream, snippet=snippet, told=told, names=np.array(MEASUREMENTS))
    return stream.getvalue()
