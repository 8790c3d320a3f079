"""Whatever trained an encoder, TensorFlow and ONNX Runtime make the same numbers of it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from aetherscan.detector import load_encoder

ROOT = Path(__file__).parents[1]
STEP = """
import pathlib, sys
sys.path[:0] = [{root!r}]
import numpy as np
from aetherscan import rounds, vae
from aetherscan.checkpoint import save_encoder
from aetherscan.onnx_export import export_onnx
from aetherscan.recipe import TrainSettings
folder, settings = pathlib.Path({folder!r}), TrainSettings(per_replica_batch_size=2, effective_batch_size=2)
model = rounds.build(settings, rounds.Plan.of(settings))
shown = np.random.default_rng(1).integers(0, 256, (2, 6, 16, 512), dtype=np.uint8)
model.fit(shown, np.array([0, 1], np.float32), batch_size=2, verbose=0)
plain = save_encoder(folder / "encoder.keras", model.encoder, rounds.shape_of(settings))
export_onnx(plain, folder / "encoder.onnx")
images = shown.reshape(-1, 16, 512, 1).astype(np.float32) / 255
np.savez(folder / "made.npz", images=images, *map(np.asarray, plain.predict_on_batch(images)))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_an_encoder_trained_on_any_backend_gives_the_same_numbers_on_tensorflow_and_as_onnx(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed here")
    code, there = STEP.format(root=str(ROOT), folder=str(tmp_path)), {**os.environ, "KERAS_BACKEND": backend}
    ran = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    with np.load(tmp_path / "made.npz") as made:
        images, expected = made["images"], [made["arr_0"], made["arr_1"]]
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", compile=False).predict_on_batch(images)
    served = load_encoder(tmp_path / "encoder.onnx", (16, 512))(images[:6, ..., 0])
    for one, two, wanted in zip(loaded, served, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), wanted, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(two, wanted[:6], atol=1e-5, rtol=1e-5)
