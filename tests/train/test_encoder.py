"""A training resumes from its last checkpoint to the same weights, and its errors say what stopped it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_training import NARROW, LinesAndNoise, settings, trained

from aetherscan.errors import OptionsError, TrainingError
from aetherscan.train import checkpoint, encoder, vae
from aetherscan.train.callbacks import COLLAPSED, Plateau
from aetherscan.train.encoder import Plan, train_encoder
from aetherscan.train.resources import stage

ROOT = Path(__file__).parents[2]
PATH = [str(ROOT), str(ROOT / "tests")]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(vae, "STAGES", NARROW)
    monkeypatch.setattr(LinesAndNoise, "requests", [])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Weights and history of a training without interruption, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "STAGES", NARROW)
        return *trained(folder, settings.__wrapped__(folder)), folder


class BreaksAt:
    """Opens a source of batches that fails in one epoch, once."""

    def __init__(self, error, number):
        self.error, self.number = error, number

    def __call__(self):
        opener = self

        class Breaking(LinesAndNoise):
            def epoch(self, number, count, snr, *, batch, validation=False):
                if opener.error and number >= opener.number and not validation:
                    error, opener.error = opener.error, None
                    raise error
                return super().epoch(number, count, snr, batch=batch, validation=validation)

        return nullcontext(Breaking())


def test_a_training_that_is_killed_resumes_to_the_same_weights(settings, tmp_path, uninterrupted):
    code = f"""import os, sys, pathlib; sys.path[:0] = {PATH!r}
import tiny_training as t
from aetherscan.train import vae
vae.STAGES = t.NARROW
class Dies(t.LinesAndNoise):
    def epoch(self, number, count, snr, *, batch, validation=False):
        if number == 3:
            os.kill(os.getpid(), 9)
        return super().epoch(number, count, snr, batch=batch, validation=validation)
t.LinesAndNoise = Dies
t.trained(pathlib.Path({str(tmp_path)!r}), t.settings.__wrapped__(pathlib.Path({str(tmp_path)!r})))"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert [path.name for path in (tmp_path / "models" / "checkpoints" / tmp_path.name).iterdir()] == ["round_01"]
    again, rest = trained(tmp_path, replace(settings, load_tag="round_01"))
    np.testing.assert_allclose(again, uninterrupted[0], atol=1e-5)
    for name in ("val_loss", "learning_rate"):
        assert [row[name] for row in rest] == pytest.approx([row[name] for row in uninterrupted[1]], rel=1e-5)
    assert len((tmp_path / "logs" / tmp_path.name / "history.csv").read_text().splitlines()) == 1 + len(rest) == 5


def test_sigterm_ends_a_training_and_names_the_checkpoint_to_resume_from(settings, tmp_path):
    from aetherscan.train.pipeline import interruptible

    class Stops(LinesAndNoise):
        def epoch(self, number, count, snr, *, batch, validation=False):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().epoch(number, count, snr, batch=batch, validation=validation)

    lines = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        train_encoder(tmp_path, settings, lambda: nullcontext(Stops()), tell=lines.append)
    assert lines == [f"interrupted in round 2: resume with --output {tmp_path} --load-tag round_01"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_failed_round_is_repeated_from_the_last_checkpoint(settings, tmp_path, uninterrupted):
    waits = []
    again, _ = trained(tmp_path, settings, BreaksAt(RuntimeError("no more shared memory"), 3), wait=waits.append)
    assert waits == [0.5]
    np.testing.assert_allclose(again, uninterrupted[0], atol=1e-5)


def test_the_pause_is_the_same_after_each_failure_and_the_last_error_is_raised(settings, tmp_path):
    def broken():
        raise RuntimeError("no batches")

    waits = []
    with pytest.raises(RuntimeError, match="no batches"):
        trained(tmp_path, settings, broken, wait=waits.append)
    assert waits == [0.5, 0.5]


def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint_complete(settings, tmp_path, monkeypatch):
    save, checkpoints = np.savez, tmp_path / "models" / "checkpoints" / tmp_path.name

    def full(path, **values):
        if "round_02" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, **values)

    def nothing_learned(*given):
        row = dict.fromkeys(("loss", *vae.TERMS, "val_loss", "seconds"), 0.0)
        return [*given[5], {"round": given[4], **row}]

    monkeypatch.setattr(checkpoint.np, "savez", full)
    monkeypatch.setattr(encoder, "one_round", nothing_learned)
    with pytest.raises(TrainingError, match=r"found a full disk: free some and resume from .+round_01"):
        trained(tmp_path, settings)
    assert [path.name for path in checkpoints.iterdir()] == ["round_01"]
    state = checkpoint.load(checkpoints / "round_01", encoder.build(settings, Plan.of(settings)))
    assert (state.round, len(state.history), [phase["rounds"] for phase in state.phases]) == (1, 1, [[1, 1]])


def test_a_loss_of_nan_stops_the_training_at_once(settings, tmp_path):
    class Bad(LinesAndNoise):
        def epoch(self, number, count, snr, *, batch, validation=False):
            for snippets, labels in super().epoch(number, count, snr, batch=batch, validation=validation):
                yield snippets, labels * (np.float32("nan") if number == 2 else 1)

    with pytest.raises(TrainingError, match=r"round 2, batch 1: .+ NaN .+ in .*clustering.*: lower base_learning_rate"):
        trained(tmp_path, settings, lambda: nullcontext(Bad()))
    assert (tmp_path / "models" / "checkpoints" / tmp_path.name / "round_01").is_dir()


def test_a_collapsed_posterior_stops_the_training_with_advice(settings, tmp_path, monkeypatch):
    build = encoder.build

    def silent(*arguments):
        model = build(*arguments)
        model.encoder.set_weights([np.zeros_like(weight) for weight in model.encoder.get_weights()])
        return model

    monkeypatch.setattr(encoder, "build", silent)
    with pytest.raises(TrainingError, match=rf"round 1, epoch 1: posterior collapse: .+{COLLAPSED}.+ lower vae_beta"):
        trained(tmp_path, replace(settings, base_learning_rate=1e-9, min_learning_rate=1e-9))


def test_every_epoch_has_new_examples_and_a_round_validates_on_the_same(settings, tmp_path):
    trained(tmp_path, replace(settings, final_snr_range=14.0))
    requests = [(number, validation) for number, _, _, validation in LinesAndNoise.requests]
    assert requests == [
        (0, False), (0, True), (1, False), (0, True), (2, False), (2, True), (3, False), (2, True),
    ]  # fmt: skip
    assert {(count, validation) for _, count, _, validation in LinesAndNoise.requests} == {(32, False), (8, True)}
    assert [snr for _, _, snr, _ in LinesAndNoise.requests][::4] == [(6.0, 60.0), (6.0, 20.0)]
    LinesAndNoise.requests.clear()
    trained(tmp_path, replace(settings, num_training_rounds=1, fresh=False))
    assert [number for number, _, _, validation in LinesAndNoise.requests if not validation] == [0, 0]
    kept = sorted(path.relative_to(tmp_path / "models").parts for path in tmp_path.glob("models/checkpoints/*/*"))
    name = tmp_path.name
    assert kept == [("checkpoints", name, "round_01"), *[("checkpoints", f"{name}-1", f"round_0{n}") for n in (1, 2)]]


def test_the_learning_rate_falls_on_a_plateau_down_to_its_minimum():
    plateau = Plateau(patience=2, improvement=0.1, reduction=0.5, least=0.3)
    plateau.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    plateau.model.compile(keras.optimizers.Adam(1.0), "mse")
    rates = []
    for loss in (10, 8, 7.9, 7.8, 5, 4.9, 4.9, 4.9, 4.9):
        plateau.on_epoch_end(0, {"val_loss": loss})
        rates.append(round(float(plateau.model.optimizer.learning_rate), 3))
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]


def test_two_accumulated_batches_give_the_step_of_one_batch_of_twice_the_size(settings, tmp_path, uninterrupted):
    _, history = trained(tmp_path, replace(settings, per_replica_batch_size=8))
    for name in ("clustering", "kl", "val_clustering"):
        found, expected = ([row[name] for row in rows] for rows in (history, uninterrupted[1]))
        assert found == pytest.approx(expected, rel=2e-3)


def test_two_devices_resume_the_training_of_one_device_to_the_same_losses(settings, tmp_path, uninterrupted):
    models = tmp_path / "models"
    shutil.copytree(uninterrupted[2] / "models" / "checkpoints" / uninterrupted[2].name, models / "checkpoints" / "two")
    code = f"""import sys, pathlib; sys.path[:0] = {PATH!r}
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tiny_training as t
from aetherscan.train import vae
from aetherscan.train.encoder import Plan
from dataclasses import replace
vae.STAGES, folder = t.NARROW, pathlib.Path({str(tmp_path)!r})
settings = replace(
    t.settings.__wrapped__(folder), per_replica_batch_size=4, per_replica_val_batch_size=2,
    model_path=pathlib.Path({str(models)!r}), load_tag="round_01",
)
plan = Plan.of(settings)
assert (len(plan.devices), plan.mirrored, plan.batch, plan.pieces, plan.steps) == (2, True, 16, 2, 2), plan
t.trained(folder / "two", settings)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    state = json.loads((models / "checkpoints" / "two" / "round_02" / "state.json").read_text())
    assert state["settings"]["per_replica_batch_size"] == 4
    for name in ("clustering", "kl", "loss", "val_clustering"):
        found, expected = ([row[name] for row in rows] for rows in (state["history"], uninterrupted[1]))
        assert found == pytest.approx(expected, rel=5e-3)


def test_an_effective_batch_that_the_devices_cannot_share_is_refused(settings, monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1", "gpu:2"])
    with pytest.raises(
        TrainingError, match=r"expected a multiple of per_replica_batch_size x 3 devices = 48, found 16"
    ):
        Plan.of(settings)


def test_an_encoder_trained_in_mixed_precision_is_saved_in_float32(settings, tmp_path):
    trained(tmp_path, replace(settings, mixed_precision=True, num_training_rounds=1))
    for path in (tmp_path / "encoder.keras", next(tmp_path.glob("models/checkpoints/*/round_01/encoder.keras"))):
        encoder = keras.saving.load_model(path, compile=False)
        assert {layer.dtype_policy.name for layer in encoder.layers} == {"float32"}
        assert {weight.dtype for weight in encoder.get_weights()} == {np.dtype("float32")}


def test_a_missing_checkpoint_is_named_with_those_available(settings, tmp_path, uninterrupted):
    with pytest.raises(TrainingError, match=r"round_02.+found no encoder; available: none"):
        trained(tmp_path, replace(settings, load_tag="round_02"))
    lost = replace(settings, model_path=uninterrupted[2] / "models", load_tag="round_00")
    with pytest.raises(TrainingError, match=rf"available: {uninterrupted[2].name}/round_02"):
        trained(tmp_path, lost)
    with pytest.raises(OptionsError, match="start_round"):
        replace(settings, load_tag="round_04")


def test_a_stage_counts_the_cpu_time_of_processes_that_still_run():
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    noted, pipes = [], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-S", "-c", code], **pipes) as process:
        with stage("round 1", noted.append):
            process.stdout.readline()
        process.kill()
    assert noted[0]["stage"] == "round 1"
    assert noted[0]["cpu_s"] > 0.25
    assert noted[0]["ram_bytes"] > 1e6


def test_a_stage_reports_gpu_load_and_memory_from_nvidia_smi(tmp_path, monkeypatch):
    (tool := tmp_path / "nvidia-smi").write_text(
        f"#!/bin/sh\nprintf '50, 1000\\n[N/A], 7\\n70, 3000\\n'\ntouch {tmp_path}/printed\nexec sleep 600\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    noted = []
    with stage("round 1", noted.append):
        while not (tmp_path / "printed").exists():
            time.sleep(0.01)
    assert (noted[0]["gpu_load"], noted[0]["gpu_bytes"]) == (0.6, 3000 * 2**20)
