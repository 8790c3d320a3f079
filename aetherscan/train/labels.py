"""TODO."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from aetherscan.detector.release import MEASUREMENTS
from aetherscan.errors import FormatError
from aetherscan.train.examples import Examples


def unpacked(path: Path, label: float, shape: tuple[int, int]) -> Examples:
    """Return the example of a candidate that people have judged.

    Raises:
        FormatError: the file holds none, or one that is not what is learned from now.
        OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            told = dict(zip(kept["names"].tolist(), kept["told"], strict=True))
            found = Examples(
                snippets=kept["snippet"].reshape(1, 6, *shape), labels=np.array([label], np.float32),
                snrs=np.zeros(1, np.float32), measurements=np.array([[told[one] for one in MEASUREMENTS]], np.float32),
            )  # fmt: skip
    except (KeyError, ValueError, EOFError, BadZipFile) as error:
        expected = f"a snippet of {shape} and {len(MEASUREMENTS)} measurements"
        raise FormatError(f"{path}: expected {expected}, found {error!r}") from error
    return found
