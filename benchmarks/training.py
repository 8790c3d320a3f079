"""Measure the rate of training steps, beside a plain Keras fit of Aetherscan's loss and model.

Both run in processes of their own on examples of the same shape and in batches of the same size, and report their peak
memory. Ours trains on the batches of `aetherscan.train.batches`, as bytes; the plain fit holds its examples as floats.
Aetherscan's model flattens where ours takes maxima, and reconstructs all six observations where ours reconstructs two.
The loss at the end must be below the loss at the beginning in both.

    python -P benchmarks/training.py [--batch 32] [--steps 30]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np

from aetherscan.options.train import TrainSettings
from aetherscan.train import vae
from aetherscan.train.batches import open_batches
from aetherscan.train.encoder import train_encoder
from aetherscan.train.pipeline import batch_settings
from aetherscan.train.random_skies import ExampleSettings


def ours(batch: int, steps: int, folder: Path) -> dict[str, Any]:
    settings = TrainSettings(
        model_path=folder, num_training_rounds=1, epochs_per_round=3, per_replica_batch_size=batch,
        effective_batch_size=batch, per_replica_val_batch_size=4, num_samples_beta_vae=batch * steps * 5 // 4,
        num_target_backgrounds=60,
    )  # fmt: skip
    history = train_encoder(
        folder, settings, lambda: open_batches(batch_settings(settings, ExampleSettings()), settings.processes),
        tell=print,
    ).history  # fmt: skip
    # An epoch validates on a quarter as many; the first one compiles.
    return {"seconds": min(row["seconds"] for row in history[1:]), "losses": [row["loss"] for row in history]}


def plain(batch: int, steps: int, folder: Path) -> dict[str, Any]:
    vae.POOL = vae.RECONSTRUCTED = 1
    rng = np.random.default_rng(1)
    snippets = rng.random((batch * steps, 6, 16, 512), dtype=np.float32) * vae.UINT8_MAX
    labels = (np.arange(len(snippets)) % 2).astype(np.float32)
    snippets[1::2, ::2, :, 100:104] = vae.UINT8_MAX
    model = vae.BetaVAE(vae.build_encoder(), vae.build_decoder())
    model.compile(optimizer=keras.optimizers.Adam(1e-4, clipnorm=1e3), jit_compile=False)
    losses = [model.fit(snippets, labels, batch_size=batch, verbose=0).history["loss"][0]]
    began = time.perf_counter()
    losses += model.fit(snippets, labels, batch_size=batch, verbose=0).history["loss"]
    return {"seconds": time.perf_counter() - began, "losses": losses, "written": str(folder)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--only", choices=("ours", "plain"))
    given = options.parse_args()
    if given.only:
        with TemporaryDirectory() as folder:
            found = {"ours": ours, "plain": plain}[given.only](given.batch, given.steps, Path(folder))
        spent = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps(found | {"gib": sum(spent) / 2**20}))
        return
    rates = {}
    for name in ("plain", "ours"):
        command = [sys.executable, "-P", __file__, "--only", name, *sys.argv[1:]]
        printed = subprocess.run(command, capture_output=True, check=True).stdout.decode().splitlines()
        found = json.loads(printed[-1])
        assert found["losses"][-1] < found["losses"][0], found
        rates[name] = given.steps / found["seconds"]
        print(f"{name}: {rates[name]:.2f} steps/s of {given.batch} cadences, peak {found['gib']:.2f} GiB")
    print(f"ours takes {rates['ours'] / rates['plain']:.2f} steps while the plain fit takes one")


if __name__ == "__main__":
    main()
