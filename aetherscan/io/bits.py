"""Convert stored samples of 1, 2, 4, 8, 16 and 32 bits to power.

Samples of less than a byte are packed from the lowest bits up, as SIGPROC and PRESTO pack them. Signed samples of a
byte are power less 128: 128 is added, so that power is not negative.
"""

from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

STORED: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<f4")}
"""Number type of stored power by nbits; 8 and 16 bit are unsigned, as in blimpy."""
SIGNED_OFFSET = 128


def unpacked(packed: UInt8[np.ndarray, " bytes"], nbits: int) -> UInt8[np.ndarray, " samples"]:
    """Return samples of 1, 2 or 4 bits, one in each byte."""
    shifts = np.arange(0, 8, nbits, dtype=np.uint8)
    return (packed[:, None] >> shifts & (2**nbits - 1)).ravel().astype(np.uint8)


def unsigned(samples: Num[np.ndarray, " samples"]) -> Num[np.ndarray, " samples"]:
    """Return power of signed samples of a byte."""
    return samples.view(np.int8).astype(np.int16) + SIGNED_OFFSET
