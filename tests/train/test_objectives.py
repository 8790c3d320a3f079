"""The objective `seed` is Aetherscan's loss, written here once more in NumPy from its definition, pair by pair."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tiny_training import NARROW

from aetherscan.options.train import TrainSettings
from aetherscan.train import encoder, vae
from aetherscan.train.encoder import Plan

ROWS, BINS = 16, 128
SETTINGS = TrainSettings(
    width_bin=8 * BINS, vae_dense_layer_size=8, per_replica_batch_size=16, effective_batch_size=16
)  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(vae, "STAGES", NARROW)


def squared(a, b):
    """Return the squared distance between the latents of two observations, in each cadence."""
    return np.sum((a - b) ** 2, axis=1)


def of_aetherscan(image, made, z_mean, z_log_var, z, labels, *, alpha, beta):
    """Return Aetherscan's total loss of a batch in double precision.

    Cadences (n, 6, rows, bins), their reconstruction, posterior and draws (n, 6, latent), and which hold a signal.
    """
    made = np.clip(made, 1e-7, 1 - 1e-7)
    entropy = -(image * np.log(made) + (1 - image) * np.log(1 - made)).mean(axis=-1)  # over bins
    reconstruction = entropy.sum(axis=(1, 2)).mean()  # over observations and rows; over cadences
    kl = (-0.5 * (1 + z_log_var - z_mean**2 - np.exp(z_log_var))).sum(axis=-1).mean()
    a1, b, a2, c, a3, d = range(6)
    same = [*itertools.permutations((a1, a2, a3), 2), *itertools.permutations((b, c, d), 2)]
    across = list(itertools.product((a1, a2, a3), (b, c, d)))
    assert (len(same), len(across)) == (12, 9)  # in each of the two classes: 42 pairs
    total = 0.0
    for is_signal in (True, False):
        draws = np.moveaxis(z[labels == is_signal], 1, 0)
        total += sum(squared(draws[i], draws[j]).mean() for i, j in same)
        apart = (squared(draws[i], draws[j]) for i, j in across)
        total += sum((1 / (far + 1e-8)).mean() if is_signal else far.mean() for far in apart)
    return reconstruction + beta * kl + alpha * total


def built(**options):
    settings = replace(SETTINGS, **options)
    return encoder.build(settings, Plan.of(settings))


@pytest.mark.parametrize(("alpha", "beta"), [(10.0, 1.5), (0.0, 0.0), (3.0, 0.0), (0.0, 4.0)])
def test_the_objective_of_the_seed_is_its_loss(alpha, beta):
    model = built(objective="seed", vae_alpha=alpha, vae_beta=beta)
    rng = np.random.default_rng(1)
    snippets = rng.integers(0, 256, (12, 6, ROWS, BINS), dtype=np.uint8)
    labels = np.array([0, 1, 1] * 4, np.float32)
    made = model(snippets)
    loss = float(model.compute_loss(x=snippets, y=labels, y_pred=made))
    cadences = {name: np.asarray(value, np.float64).reshape(12, 6, -1) for name, value in made.items()}
    image = (12, 6, ROWS, BINS)
    expected = of_aetherscan(
        snippets / 255, cadences["image"].reshape(image), cadences["z_mean"], cadences["z_log_var"], cadences["z"],
        labels, alpha=alpha, beta=beta,
    )  # fmt: skip
    assert loss == pytest.approx(expected, rel=1e-4)
    assert np.std(cadences["z"] - cadences["z_mean"]) > 0.05  # draws, not the means


def test_gamma_weighs_reconstruction_and_divergence_and_is_on_the_card():
    assert TrainSettings().recorded()["vae_gamma"] == 0.02
    assert TrainSettings(objective="seed").recorded()["vae_gamma"] == 1
    assert TrainSettings(vae_gamma=0.5).of_encoder()["vae_gamma"] == 0.5


@pytest.mark.parametrize(("objective", "clip"), [("sentinel", "clipnorm"), ("seed", "global_clipnorm")])
def test_each_objective_has_its_limit_of_the_gradient_and_the_weight_that_is_given(objective, clip):
    model = built(objective=objective, vae_gamma=0.25)
    assert model.gamma == 0.25
    assert getattr(model.optimizer, clip)


def test_a_batch_without_a_signal_has_a_finite_loss_of_the_seed():
    model = built(objective="seed")
    snippets = np.zeros((2, 6, ROWS, BINS), np.uint8)
    assert np.isfinite(float(model.compute_loss(x=snippets, y=np.zeros(2, np.float32), y_pred=model(snippets))))
