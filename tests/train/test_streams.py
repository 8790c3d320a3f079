"""Skies for training, validation and the three sets of a forest are drawn from independent streams."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from aetherscan.train.background_cache import empty_arrays, load_background
from aetherscan.train.batches import BatchSettings, make_group, sources_of
from aetherscan.train.examples import draw_patches
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.streams import Split, Stream, generator, keras_seeds
from aetherscan.train.vae import build_encoder

SMALL = ExampleSettings(chans=2**14, windows=0)
FOREST_STREAMS = (Stream.FOREST_FIT, Stream.FOREST_CALIBRATE, Stream.FOREST_MEASURE)


@pytest.fixture
def drawn(monkeypatch):
    """Record the first numbers of every generator that the test makes."""
    numbers, make = list[tuple[int, ...]](), np.random.default_rng

    def recorded(seed):
        numbers.append(tuple(make(seed).integers(2**63, size=2).tolist()))
        return make(seed)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    return numbers


def test_no_two_generators_of_a_training_give_the_same_numbers(drawn):
    for seed in (0, 1, 2):
        settings = BatchSettings(seed=seed, num_target_backgrounds=64, examples=SMALL)
        arrays = empty_arrays(SMALL, 2)
        for split in Split:
            for number in range(2):
                load_background(arrays, sources_of(settings)[split], number, number)
            for epoch, group in ((0, 0), (0, 1), (1, 0)):
                make_group(arrays, settings, np.arange(2), (6.0, 20.0), (split, epoch, group))
        for stream in FOREST_STREAMS:
            draw_patches(range(2), seed, stream, SMALL, None)
    assert len(drawn) == 3 * (2 * (2 * 2 + 3) + len(FOREST_STREAMS) * 2)
    assert [numbers for numbers, count in Counter(drawn).items() if count > 1] == []


def test_an_index_of_zero_gives_another_generator_than_no_index():
    states = [generator(*key).integers(2**63) for key in ((1, Stream.BACKGROUND_ORDER), (1, Stream.BACKGROUND_ORDER, 0),
              (1, Stream.BACKGROUND_ORDER, 0, 0), (1, Stream.BACKGROUND), (0, Stream.BACKGROUND))]  # fmt: skip
    assert len(set(states)) == len(states)


def test_a_patch_depends_on_seed_stream_and_its_number_alone():
    settings = replace(SMALL, windows=2)
    together = draw_patches(range(3), 1, Stream.FOREST_FIT, settings, None)
    alone = [draw_patches([patch], 1, Stream.FOREST_FIT, settings, None) for patch in range(3)]
    for mode, examples in together.items():
        np.testing.assert_array_equal(examples.snippets, np.concatenate([patch[mode].snippets for patch in alone]))


def test_encoders_of_consecutive_seeds_and_rounds_share_no_random_numbers():
    kernels = [
        weight.tobytes() for seed in (1, 2) for weight in build_encoder(seed=seed).get_weights() if weight.ndim > 1
    ]
    assert len(set(kernels)) == len(kernels)
    keys = [keras_seeds(1, Stream.ENCODER_DRAWS, number, count=2)[0] for number in range(1, 99)]
    assert len(set(keys)) == len(keys)  # Keras increments the second number with each draw
