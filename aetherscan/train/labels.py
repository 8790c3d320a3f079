"""Read candidates that people have labelled, as examples for the forests."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from aetherscan.detector.release import MEASUREMENTS
from aetherscan.errors import FormatError
from aetherscan.train.examples import Examples


def read_labelled(path: Path, label: float, shape: tuple[int, int]) -> Examples:
    """Return a labelled candidate as one example.

    Args:
        path: `.npz` file of the candidate, with its snippet and its features.
        label: 1 for a signal, 0 for interference.
        shape: rows and bins of a snippet.

    Raises:
        FormatError: the file holds no candidate, or one without the present snippet shape or features.
        OSError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            features = dict(zip(stored["names"].tolist(), stored["measurements"], strict=True))
            return Examples(
                snippets=stored["snippet"].reshape(1, 6, *shape), labels=np.array([label], np.float32),
                snrs=np.zeros(1, np.float32),
                measurements=np.array([[features[name] for name in MEASUREMENTS]], np.float32), kinds=np.array([""]),
                beside=np.zeros(1, bool),
            )  # fmt: skip
    except (KeyError, ValueError, EOFError, BadZipFile) as error:
        expected = f"a snippet of {shape} and {len(MEASUREMENTS)} measurements"
        raise FormatError(f"{path}: expected {expected}, found {error!r}") from error
