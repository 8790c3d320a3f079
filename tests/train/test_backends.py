"""An encoder trained on any backend gives the same latents on TensorFlow and ONNX Runtime."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from aetherscan.detector.detector import load_encoder

ROOT = Path(__file__).parents[2]
STEP = """
import pathlib, sys
sys.path[:0] = [{root!r}]
import numpy as np
from aetherscan.train import encoder as rounds, vae
from aetherscan.train.checkpoint import save_encoder
from aetherscan.train.events import write_events
from aetherscan.train.onnx_export import export_onnx
from aetherscan.options.train import TrainSettings
vae.STAGES = ((4, 2), (4, 1), (8, 2), (8, 2), (16, 2))  # narrow, so that it is compiled in seconds
folder = pathlib.Path({folder!r})
settings = TrainSettings(vae_dense_layer_size=32, per_replica_batch_size=4 // {devices}, effective_batch_size=4)
plan = rounds.Plan.of(settings)
assert max(1, len(plan.devices)) == {devices}
model = rounds.build(settings, plan)
snippets = np.random.default_rng(1).integers(0, 256, (4, 6, 16, 512), dtype=np.uint8)
# In another order the examples meet other draws of the posterior.
labels, how = np.array([0, 1, 0, 1], np.float32), {{'batch_size': plan.batch, 'shuffle': False, 'verbose': 0}}
losses = model.fit(snippets, labels, **how).history
write_events(folder / "tensorboard", {{"loss": losses["loss"][0]}}, 7)
plain = save_encoder(folder / "encoder.keras", model.encoder, rounds.shape_of(settings))
export_onnx(plain, folder / "encoder.onnx")
images = snippets.reshape(-1, 16, 512, 1)[:12].astype(np.float32) / 255
np.savez(folder / "made.npz", images=images, loss=losses["loss"], *map(np.asarray, plain.predict_on_batch(images)))
"""


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """Train one step in a process of its own, once per backend; return latents and folder of the encoder."""

    @functools.cache
    def trained(backend: str, devices: int = 1) -> tuple[dict[str, np.ndarray], Path]:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed here")
        folder = tmp_path_factory.mktemp(f"{backend}{devices}")
        code = STEP.format(root=str(ROOT), folder=str(folder), devices=devices)
        there = {
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # it takes longer to compile than to run
        }
        ran = subprocess.run([sys.executable, "-c", code], env=os.environ | there, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
        with np.load(folder / "made.npz") as made:
            return dict(made), folder

    return trained


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_an_encoder_trained_on_any_backend_gives_the_same_numbers_on_tensorflow_and_as_onnx(backend, one_step):
    made, folder = one_step(backend)
    images, expected = made["images"], [made["arr_0"], made["arr_1"]]
    loaded = keras.saving.load_model(folder / "encoder.keras", compile=False).predict_on_batch(images)
    served = load_encoder(folder / "encoder.onnx", (16, 512))(images[:6, ..., 0])
    for one, two, wanted in zip(loaded, served, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), wanted, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(two, wanted[:6], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_logs_its_losses_for_tensorboard(backend, one_step):
    from tensorflow.compat.v1.train import summary_iterator

    made, folder = one_step(backend)
    events = [event for path in (folder / "tensorboard").iterdir() for event in summary_iterator(str(path))]
    assert [event.step for event in events if event.summary.value] == [7]
    assert float(tensor(events[-1])) == pytest.approx(float(made["loss"][0]), rel=1e-6)


def tensor(event):
    import tensorflow as tf

    return tf.make_ndarray(event.summary.value[0].tensor)


def test_two_devices_of_jax_share_a_batch_and_learn_the_weights_of_one_device(one_step):
    alone, shared = (one_step("jax", devices)[0] for devices in (1, 2))
    np.testing.assert_allclose(shared["loss"], alone["loss"], rtol=1e-4)
    # Adam's first step has the same length for a gradient near zero, whatever its sign.
    np.testing.assert_allclose(shared["arr_0"], alone["arr_0"], atol=0.02)
