"""Train the encoder in rounds; the curriculum may make the signals fainter from round to round.

A round starts at the base learning rate, its random draws depend on the seed and its number alone, and it ends with a
checkpoint. A training that is killed resumes from the last checkpoint and ends with the same weights.

Several devices share a batch: TensorFlow with MirroredStrategy (NCCL between GPUs), JAX with `keras.distribution`.
PyTorch trains on one device.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aetherscan.errors import AetherscanError, TrainingError
from aetherscan.options.train import TrainSettings
from aetherscan.train import checkpoint
from aetherscan.train.batches import Batch, BatchSource
from aetherscan.train.callbacks import TENSORFLOW, Log, NanGuard, Plateau, ShowProgress
from aetherscan.train.events import drop_events
from aetherscan.train.folders import checkpoints_of, set_aside
from aetherscan.train.progress import Progress
from aetherscan.train.resources import Note, stage
from aetherscan.train.resume import Phases, begin, plain, with_round
from aetherscan.train.streams import Stream, keras_seeds
from aetherscan.train.vae import SEED_CLIP, TERMS, BetaVAE, Shape, build_decoder, build_encoder

if TENSORFLOW:
    from aetherscan.train import multi_gpu

FULL = (errno.ENOSPC, errno.EDQUOT)
LOG = logging.getLogger(__name__)
CLIP = 1e3
"""Largest norm of the gradient of a weight; only the first steps of an untrained encoder reach it."""


def shape_of(settings: TrainSettings) -> Shape:
    """Return the sizes of the encoder."""
    return Shape(
        latent=settings.vae_latent_dim, dense=settings.vae_dense_layer_size, kernel=settings.vae_kernel_size,
        rows=settings.time_bins, bins=settings.bins,
        precision="mixed_bfloat16" if settings.mixed_precision else "float32",
    )  # fmt: skip


def list_devices() -> tuple[str, ...]:
    """Return the devices that share a batch; the first call makes the backend look for GPUs."""
    return () if keras.backend.backend() == "torch" else tuple(keras.distribution.list_devices())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The devices, and how an epoch is divided into steps.

    Attributes:
        devices: share a batch: every GPU, or the CPU.
        mirrored: whether TensorFlow copies the weights to several devices and accumulates gradients inside a step.
        batch: cadences of a step.
        pieces: parts of an effective batch: inside a step if mirrored, else steps per optimizer update.
        steps: of an epoch.
        check: cadences of a validation step.
        checks: validation steps of an epoch.
    """

    devices: tuple[str, ...]
    mirrored: bool
    batch: int
    pieces: int
    steps: int
    check: int
    checks: int

    @property
    def described(self) -> str:
        """The devices as text."""
        return ", ".join(self.devices) or "one device"

    @staticmethod
    def of(settings: TrainSettings) -> "Plan":
        """Return the plan for this machine.

        Raises:
            TrainingError: the effective batch cannot be divided among the devices.
        """
        backend, devices = keras.backend.backend(), list_devices()
        count, effective = max(1, len(devices)), settings.effective_batch_size
        at_once = settings.per_replica_batch_size * count
        if effective % at_once:
            raise TrainingError(
                f"effective_batch_size: expected a multiple of per_replica_batch_size x {count} devices = {at_once}, "
                f"found {effective}"
            )
        mirrored = backend == "tensorflow" and count > 1
        trained = int(settings.num_samples_beta_vae * settings.train_val_split)
        check = settings.per_replica_val_batch_size * count
        optimized = max(1, trained // effective)
        return Plan(
            devices=devices, mirrored=mirrored, batch=effective if mirrored else at_once, pieces=effective // at_once,
            steps=optimized if mirrored else optimized * (effective // at_once),
            check=check, checks=max(1, (settings.num_samples_beta_vae - trained) // check),
        )  # fmt: skip


def build(settings: TrainSettings, plan: Plan) -> BetaVAE:
    """Return an untrained, compiled model on all devices."""
    scope: AbstractContextManager[Any] = nullcontext()
    kind: type[BetaVAE] = BetaVAE
    if plan.mirrored:
        kind, scope = multi_gpu.MirroredVAE, multi_gpu.mirrored(plan.devices).scope()
    elif len(plan.devices) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=list(plan.devices)))
    shape, seed = shape_of(settings), settings.seed
    accumulated = plan.pieces if plan.pieces > 1 and not plan.mirrored else None
    with scope:
        model = kind(
            build_encoder(shape, seed), build_decoder(shape, seed), beta=settings.vae_beta, alpha=settings.vae_alpha,
            gamma=settings.gamma, objective=settings.objective, seed=seed,
            replicas=len(plan.devices) if plan.mirrored else 1,
        )  # fmt: skip
        model.pieces = plan.pieces
        rate = settings.base_learning_rate
        clip = {"global_clipnorm": SEED_CLIP} if settings.objective == "seed" else {"clipnorm": CLIP}
        adam = keras.optimizers.Adam(rate, gradient_accumulation_steps=accumulated, **clip)
        # XLA takes 2.4 times as long on a CPU and cannot compile the exchange between replicas; JAX needs it.
        model.compile(optimizer=adam, jit_compile="auto" if keras.backend.backend() == "jax" else False)
        adam.build(model.trainable_variables)  # or the first step builds it and is traced twice
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained encoder, and how it came about."""

    encoder: keras.Model
    history: checkpoint.History
    run: str
    phases: Phases
    start: dict[str, Any] | None


def train_encoder(
    folder: Path,
    settings: TrainSettings,
    open_batches: Callable[[], AbstractContextManager[BatchSource]],
    *,
    commit: str = "",
    tell: Callable[[str], object] = print,
    note: Note = lambda _: None,
    wait: Callable[[float], object] = time.sleep,
) -> Trained:
    """Train the remaining rounds, and write a checkpoint after each.

    A round that fails is repeated from the last checkpoint after a pause, unless it would fail again.

    Args:
        folder: of the release.
        settings: of the training; `load_tag` names the checkpoint to resume from.
        open_batches: opens a source of batches.
        commit: of the code.
        tell: receives lines for the user.
        note: receives each finished stage.
        wait: sleeps for a number of seconds.

    Raises:
        TrainingError: there is no such checkpoint; or the loss is not finite, the posterior collapsed, or the disk is
            full: the message says what to change.
        OptionsError: settings differ from those of the checkpoint.
        AetherscanError: the backgrounds cannot be read.
    """
    plan, start = Plan.of(settings), begin(settings, folder.name)
    about = plain({
        "cadences_per_epoch": plan.steps * plan.batch, "devices": plan.described, "commit": commit,
        "settings": settings.of_encoder(),
    })  # fmt: skip
    begun, done, rounds, failures = start.folder, start.done, settings.num_training_rounds, 0
    checkpoints, logs, files = checkpoints_of(settings, folder.name), settings.output_path / folder.name, {}
    model, history, phases, events = None, checkpoint.History(), Phases(), logs / "tensorboard" / start.run
    batches = settings.epochs_per_round * plan.steps
    with closing(Progress("rounds", (rounds - done) * batches)) as progress:
        while model is None or done < rounds:
            try:
                keras.backend.clear_session()
                model = build(settings, plan)
                state = checkpoint.load(begun, model) if begun else None
                history, phases = (state.history, state.phases) if state else ([], [])
                if done == rounds:
                    break
                files = settings.file_sizes()
                with open_batches() as source:
                    if not failures and (aside := set_aside(checkpoints, done)):
                        tell(f"checkpoints of an earlier training, moved to: {aside}")
                    logs.mkdir(parents=True, exist_ok=True)
                    drop_events(events, len(history))
                    while done < rounds:
                        before = len(history)
                        with stage(f"round {done + 1}", note) as results:
                            history = one_round(
                                model, source, settings, plan, done + 1, history, (logs, events), progress
                            )
                            results |= {name: history[-1][name] for name in ("loss", *TERMS, "val_loss")}
                        phases = with_round(phases, done + 1, history[before:], about)
                        state = checkpoint.State(
                            run=start.run, round=done + 1, history=history, phases=phases, start=start.start,
                            settings=plain(settings.recorded()), files=files,
                        )  # fmt: skip
                        begun = checkpoint.save(checkpoints, model, shape_of(settings), state)
                        done, failures = done + 1, 0
            except KeyboardInterrupt:
                own = begun if begun and begun.parent == checkpoints else None
                tell(f"interrupted in round {done + 1}: {_advice(folder, own)}")
                raise
            except AetherscanError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise TrainingError(
                        f"{error.filename or checkpoints}: expected space for a checkpoint, found a full disk: free "
                        f"some and resume from {begun or 'the start'}"
                    ) from error
                if failures == settings.max_retries:
                    raise
                pause, failures, model = settings.retry_delay, failures + 1, None
                LOG.exception("round %d failed", done + 1)
                tell(f"round {done + 1}: {error!r}: retry in {pause:g} s from {begun or 'the start'}")
                progress.restart_at((done - start.done) * batches)
                wait(pause)
    encoder = checkpoint.save_encoder(folder / "encoder.keras", model.encoder, shape_of(settings))
    return Trained(encoder=encoder, history=history, run=start.run, phases=phases, start=start.start)


def _advice(folder: Path, written: Path | None) -> str:
    """Say how an interrupted training is resumed from the last checkpoint that it wrote, if there is one."""
    return f"resume with --output {folder} --load-tag {written.name}" if written else "no round is complete"


def one_round(
    model: BetaVAE,
    source: BatchSource,
    settings: TrainSettings,
    plan: Plan,
    number: int,
    history: checkpoint.History,
    logs: tuple[Path, Path],
    progress: Progress,
) -> checkpoint.History:
    """Train one round.

    Args:
        model: compiled; trained in place.
        source: makes the batches.
        settings: of the training.
        plan: how an epoch is divided into steps.
        number: of the round, from 1.
        history: epochs of the rounds before.
        logs: folders of `history.csv` and of the TensorBoard log.
        progress: over the batches of all rounds.

    Returns:
        `history` with the epochs of this round.
    """
    model.draws.state.assign(np.array(keras_seeds(settings.seed, Stream.ENCODER_DRAWS, number, count=2), np.uint32))
    model.optimizer.learning_rate = settings.base_learning_rate
    snr, epochs = settings.snr(number), settings.epochs_per_round
    first, rows = (number - 1) * epochs, list(history)

    def batches(epoch: int, steps: int, size: int, *, unseen: bool) -> Iterator[Batch]:
        yield from islice(source.epoch(epoch, -(-steps * size // 4) * 4, snr, batch=size, validation=unseen), steps)

    callbacks = [
        NanGuard(number),
        Plateau(
            settings.patience_threshold, settings.min_pct_improvement, settings.lr_reduction_factor,
            settings.min_learning_rate,
        ),
        Log(number, rows, *logs),
        ShowProgress(progress, number, settings.num_training_rounds),
    ]  # fmt: skip
    for epoch in range(epochs):  # one fit per epoch: Keras would request the next epoch's batches before it validates
        model.fit(
            batches(first + epoch * settings.fresh, plan.steps, plan.batch, unseen=False), steps_per_epoch=plan.steps,
            validation_data=batches(first, plan.checks, plan.check, unseen=True), validation_steps=plan.checks,
            initial_epoch=epoch, epochs=epoch + 1, shuffle=False, callbacks=callbacks, verbose=0,
        )  # fmt: skip
    return rows
