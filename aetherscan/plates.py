"""Plates: windows of band that were cut out already, as the papers' code keeps them, scored as `--mode windows` would.

An .npy file holds (n, 6, rows, channels) of linear power at native resolution, ABACAD. A plate is equalized by itself,
so that its levels come from four blocks of it where a search also sees what lies around. Where on the sky or in the
band it was is not in the file: a plate has a probability, and no frequency, drift or SNR.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aetherscan.backgrounds import open_plates
from aetherscan.detector import Detector
from aetherscan.geometry import geometry_of
from aetherscan.simulate import Sky, gbt_header
from aetherscan.tracks import WINDOW_LEVEL, equalize_arrays, window_snippet

COLUMNS = ("file", "plate", "probability", "spread", "prediction")
COARSE = 2**20
"""Channels of the coarse channel that plates are from: so wide that the middle of a plate is no DC spike."""


def score_plates(path: Path, detector: Detector, threshold: float, batch: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each plate in `path`; so many are scored at a time by a detector for windows."""
    shape = detector.release.snippet
    plates, header = open_plates(path, shape), gbt_header(shape[1] << WINDOW_LEVEL, rows=shape[0])
    cadence = geometry_of(Sky(header=replace(header, nfpc=COARSE)).headers())
    for first in range(0, len(plates), batch):
        arrays = (np.ascontiguousarray(plate, dtype=np.float32) for plate in plates[first : first + batch])
        latents = detector.encode_snippets(
            window_snippet(equalize_arrays(one, cadence), 0, cadence, shape) for one in arrays
        )
        told = np.empty((len(latents.mean), 0), dtype=np.float32)
        scores = zip(detector.score(latents, told), detector.spread(latents, told), strict=True)
        for place, (probability, spread) in enumerate(scores, first):
            row = (path.name, place, float(probability), float(spread), int(probability >= threshold))
            yield dict(zip(COLUMNS, row, strict=True))
