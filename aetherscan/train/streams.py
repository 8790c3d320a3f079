"""Name the random streams of a training, so that no two of them share a random number.

Every generator of a training comes from `generator(seed, stream, *indices)`: a child of the seed whose spawn key is the
stream and its indices. A draw depends on these alone, not on the process that makes it or on what was drawn before.
Lists such as `default_rng([seed, k])` are not used, because [1] and [1, 0] give the same numbers.
"""

from enum import IntEnum

import numpy as np


class Split(IntEnum):
    """Backgrounds that the encoder trains on, and backgrounds kept to validate it."""

    TRAINING = 0
    VALIDATION = 1


class Stream(IntEnum):
    """What is drawn, and the indices of its generators. A number that was given is never given to another stream."""

    BACKGROUND_ORDER = 0  # (): which parts of real files are used, and in what order
    BACKGROUND = 1  # (split, number): power of a simulated background
    LINES = 2  # (split, number): lines that may be injected into a background
    EXAMPLES = 3  # (split, epoch, group): snippets for the encoder
    FOREST_FIT = 4  # (patch,): tracks and windows that forests are fitted to
    FOREST_CALIBRATE = 5  # (patch,): that calibrate a forest
    FOREST_MEASURE = 6  # (patch,): that measure it
    POSTERIOR = 7  # (rows,): draws from the posterior, in the comparison of the inputs of a forest
    ENCODER_WEIGHTS = 9  # (): initial weights of the encoder
    DECODER_WEIGHTS = 10  # (): initial weights of the decoder
    CHANNELS = 12  # (number,): how the power of the bins of stamps is divided among their channels
    KINDS_FIT = 13  # (patch,): lines that the forest of kinds is fitted to
    KINDS_CALIBRATE = 14  # (patch,): that calibrate it
    KINDS_MEASURE = 15  # (patch,): that measure it
    ENCODER_DRAWS = 11  # (round,): draws from the posterior while the encoder is trained


def generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """Return the generator of one draw of a stream, independent of every other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *indices)))


def keras_seeds(seed: int, stream: Stream, *indices: int, count: int) -> list[int]:
    """Return 32-bit seeds for Keras, independent of those of other streams, indices and trainings.

    Args:
        seed: of the training.
        stream: what is drawn.
        *indices: numbers within the stream, such as the round.
        count: of the seeds.
    """
    return np.random.SeedSequence(seed, spawn_key=(stream, *indices)).generate_state(count).tolist()
