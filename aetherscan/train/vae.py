"""The beta-VAE of Ma et al. (2023) and Aetherscan, in Keras 3 alone, so that it trains on TensorFlow, JAX and PyTorch.

Nine convolutions squeeze one observation (16 rows x 512 bins) into a Gaussian over `latent` numbers; a mirrored decoder
paints the observation back. What makes it a detector is the third term of the loss: it pulls the latents of the ONs
together, those of the OFFs together, and the two apart when a cadence holds a signal from the target; when it does not,
it pulls all six together. The forest then looks at six latents and nothing else.

Three departures from the seeds, each because with it more was learned from lines as thin as real ones in the same time
(decision 0005): the last convolution is followed by its maximum over each quarter of the window, so that a line is
a line wherever it lies; clustering is of the posterior's mean, not of a draw; and the reconstruction, nearly all of it
noise that no latent can hold, weighs less.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, no_type_check

import keras
from keras import layers, ops

from aetherscan.search.cutouts import UINT8_MAX

STAGES = ((16, 2), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (128, 1), (256, 2))
"""Filters and stride of each convolution."""
OBSERVATIONS, ROWS, BINS = 6, 16, 512
TARGET_SHAPE = ((1.0,), (0.0,), (1.0,), (0.0,), (1.0,), (0.0,))
"""Where the telescope points: 1 at the target."""
CLOSEST = 0.1
"""Added to every squared ON-OFF distance: the seeds' 1e-8 sends an untrained encoder to infinity."""
POOL = 8
"""The last maps, 32 bins wide, are pooled to their maxima in four parts of the window."""
TERMS = ("reconstruction", "kl", "kl_most", "clustering")
"""Of the loss, as they are told; `kl_most` is that of the latent that says most."""
PAINTED = 3
"""Every third observation is reconstructed, one ON and one OFF: the others teach the same at three times the cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large an encoder and its decoder are, and what they compute in; weights are float32 whatever it is."""

    latent: int = 8
    dense: int = 512
    kernel: tuple[int, int] = (3, 3)
    rows: int = ROWS
    bins: int = BINS
    precision: str = "float32"  # or mixed_bfloat16: a Keras dtype policy

    def plain(self) -> "Shape":
        """Return the same in float32."""
        return replace(self, precision="float32")


def build_encoder(shape: Shape | None = None, seed: int = 0) -> keras.Model:
    """Return the encoder: (batch, rows, bins, 1) -> z_mean, z_log_var, each (batch, latent)."""
    init, shape = iter(range(seed, seed + 100)), shape or Shape()
    how: dict[str, Any] = {"activation": "relu", "dtype": shape.precision}
    image = x = keras.Input((shape.rows, shape.bins, 1), name="observation")
    for filters, stride in STAGES:
        start = keras.initializers.HeNormal(next(init))
        x = layers.Conv2D(filters, shape.kernel, stride, padding="same", kernel_initializer=start, **how)(x)
    x = layers.Flatten()(layers.MaxPooling2D((1, POOL))(x))
    x = layers.Dense(shape.dense, kernel_initializer=keras.initializers.HeNormal(next(init)), **how)(x)
    heads = [
        layers.Dense(
            shape.latent,
            name=name,
            dtype="float32",  # the posterior and the loss stay exact under a mixed-precision policy
            kernel_initializer=keras.initializers.GlorotNormal(next(init)),
            bias_initializer=keras.initializers.Constant(bias),
        )(x)
        for name, bias in (("z_mean", 0.0), ("z_log_var", -3.0))
    ]
    return keras.Model(image, heads, name="encoder")


def build_decoder(shape: Shape | None = None, seed: int = 0) -> keras.Model:
    """Return the encoder's mirror: (batch, latent) -> (batch, rows, bins, 1) between 0 and 1."""
    init, shape = iter(range(seed + 100, seed + 200)), shape or Shape()
    small = (shape.rows // 16, shape.bins // 16, STAGES[-1][0])
    z = x = keras.Input((shape.latent,), name="z")
    for units in (shape.dense, math.prod(small)):
        start = keras.initializers.HeNormal(next(init))
        x = layers.Dense(units, activation="relu", kernel_initializer=start, dtype=shape.precision)(x)
    x = layers.Reshape(small)(x)
    outputs = [filters for filters, _ in STAGES[-2::-1]] + [1]
    for filters, (_, stride) in zip(outputs, STAGES[::-1], strict=True):
        x = layers.Conv2DTranspose(
            filters,
            shape.kernel,
            stride,
            padding="same",
            activation="sigmoid" if filters == 1 else "relu",
            dtype="float32" if filters == 1 else shape.precision,
            kernel_initializer=keras.initializers.HeNormal(next(init)),
        )(x)
    return keras.Model(z, x, name="decoder")


def clustering_loss(z: Any, is_signal: Any) -> Any:
    """Return each cadence's clustering loss: (batch, 6, latent), (batch,) -> (batch,).

    The seeds sum over fifty named pairs; all of them are in one broadcast difference. With a signal: the mean squared
    distance within ONs and within OFFs (each pair in both directions), plus 1 / distance^2 over the nine ON-OFF pairs.
    Without: the squared distance over all pairs, the nine mixed ones counted once, as the seeds do.
    """
    at_target = ops.convert_to_tensor(TARGET_SHAPE, dtype=z.dtype)
    alike = at_target * ops.transpose(at_target) + (1 - at_target) * ops.transpose(1 - at_target)
    distance = ops.sum(ops.square(z[:, :, None] - z[:, None, :]), axis=-1)
    within = ops.sum(alike * distance, axis=(1, 2))
    apart = ops.sum((1 - alike) / (distance + CLOSEST), axis=(1, 2)) / 2
    mixed = ops.sum((1 - alike) * distance, axis=(1, 2)) / 2
    return within + is_signal * apart + (1 - is_signal) * mixed


@no_type_check  # Keras reads its layers' signatures, which the shape checker would wrap
class BetaVAE(keras.Model):
    """Encoder and decoder under the seeds' composite loss: gamma * (reconstruction + beta * KL) + alpha * clustering.

    Input: snippets (batch, 6, rows, bins), bytes in `UINT8_MAX`; target: 1.0 where a cadence holds a signal, else 0.0.
    `replicas` is among how many devices TensorFlow splits a batch: it adds up their losses and gradients.
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        beta: float = 1.5,
        alpha: float = 10.0,
        gamma: float = 0.02,
        seed: int = 0,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.draws = encoder, decoder, keras.random.SeedGenerator(seed)
        self.beta, self.alpha, self.gamma, self.replicas = beta, alpha, gamma, replicas
        self.terms = {name: keras.metrics.Mean(name) for name in TERMS}

    @property
    def metrics(self) -> list[Any]:
        """The loss and its terms, reset each epoch."""
        return [self._loss_tracker, *self.terms.values()]

    def images(self, snippets: Any) -> Any:
        """Return every observation of every snippet as the encoder takes it, in 0..1."""
        _, rows, bins, _ = self.encoder.input_shape
        return ops.cast(ops.reshape(snippets, (-1, rows, bins, 1)), "float32") / UINT8_MAX

    def call(self, snippets: Any) -> dict[str, Any]:
        """Return the posterior of every observation and the reconstruction of some."""
        z_mean, z_log_var = self.encoder(self.images(snippets))
        mean, spread = z_mean[::PAINTED], ops.exp(0.5 * z_log_var[::PAINTED])
        z = mean + spread * keras.random.normal(ops.shape(mean), dtype="float32", seed=self.draws)
        return {"image": self.decoder(z), "z_mean": z_mean, "z_log_var": z_log_var}

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        """Return the composite loss of a batch: a scalar."""
        seen = keras.losses.binary_crossentropy(self.images(x)[::PAINTED], y_pred["image"])
        z_mean, z_log_var = y_pred["z_mean"], y_pred["z_log_var"]
        kl = ops.mean(-0.5 * (1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var)), axis=0)
        latent = ops.shape(z_mean)[-1]
        clusters = clustering_loss(ops.reshape(z_mean, (-1, OBSERVATIONS, latent)), ops.reshape(y, (-1,)))
        terms = {
            "reconstruction": ops.mean(ops.sum(seen, axis=(1, 2))),
            "kl": ops.sum(kl),
            "kl_most": ops.max(kl),
            "clustering": ops.mean(clusters),
        }
        for name, value in terms.items():
            self.terms[name].update_state(value)
        seen_and_kl = terms["reconstruction"] + self.beta * terms["kl"]
        return (self.gamma * seen_and_kl + self.alpha * terms["clustering"]) / self.replicas
