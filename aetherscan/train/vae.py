"""The beta-VAE of Ma et al. (2023) and of Aetherscan, in Keras 3, for TensorFlow, JAX and PyTorch.

Nine convolutions encode one observation (16 rows x 512 bins) as a Gaussian over the latents; a mirrored decoder
reconstructs the observation (variational autoencoder: Kingma & Welling 2013, arXiv:1312.6114; weight beta of the KL
divergence: Higgins et al. 2017, OpenReview Sy2fzU9gl). The third term of the loss makes the latents useful to the
forest: if a cadence holds a signal from the target, the latents of the ONs are pulled together, those of the OFFs are
pulled together, and the two groups are pushed apart; otherwise all six are pulled together.

Ma et al. 2023: arXiv:2301.12670, doi:10.1038/s41550-022-01872-z. We differ from them in three points, because each
learned more from lines as thin as real ones in the same time (decision 0005): the maximum of the last convolution over
each quarter of the window replaces flattening, so that a line gives the same feature anywhere in its quarter; the
clustering loss uses the mean of the posterior, not a random draw; and the KL divergence has a lower weight. The
objective `seed` has the loss of Aetherscan itself; benchmarks/objectives.py prints the weights of both.
"""

import math
from dataclasses import dataclass
from typing import Any, no_type_check

import keras
from keras import layers, ops

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.train.streams import Stream, keras_seeds

STAGES = ((16, 2), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (128, 1), (256, 2))
"""Filters and stride of each convolution."""
LAYERS = len(STAGES) + 3
"""Most layers with weights in one model."""
OBSERVATIONS, ROWS, BINS = 6, 16, 512
ON_COLUMN = tuple((float(position in ON_POSITIONS),) for position in range(OBSERVATIONS))
"""1 for an ON, 0 for an OFF."""
CLOSEST, SEED_CLOSEST = 0.1, 1e-8
"""Added to every squared ON-OFF distance. With Aetherscan's 1e-8 the loss of an untrained encoder overflows, unless it
is that of draws from the posterior, which differ."""
POOL = 8
"""Bins of the last maps, 32 bins wide, that are pooled to one maximum: a quarter of the window."""
TERMS = ("reconstruction", "kl", "kl_most", "clustering")
"""Logged terms of the loss; `kl_most` is the KL divergence of the latent with the largest."""
RECONSTRUCTED = 3
"""Every third observation is reconstructed, one ON and one OFF: all six cost three times as much and add little."""
SEED_CLIP = 1.0
"""Largest norm of the gradient of all weights together, with the objective `seed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of an encoder and its decoder, and the precision of their computation; weights are always float32."""

    latent: int = 8
    dense: int = 512
    kernel: tuple[int, int] = (3, 3)
    rows: int = ROWS
    bins: int = BINS
    precision: str = "float32"  # Keras dtype policy: float32 or mixed_bfloat16


def build_encoder(shape: Shape | None = None, seed: int = 0) -> keras.Model:
    """Return the untrained encoder: (batch, rows, bins, 1) -> z_mean, z_log_var, each (batch, latent)."""
    init, shape = iter(keras_seeds(seed, Stream.ENCODER_WEIGHTS, count=LAYERS)), shape or Shape()
    options: dict[str, Any] = {"activation": "relu", "dtype": shape.precision}
    image = x = keras.Input((shape.rows, shape.bins, 1), name="observation")
    for filters, stride in STAGES:
        start = keras.initializers.HeNormal(next(init))
        x = layers.Conv2D(filters, shape.kernel, stride, padding="same", kernel_initializer=start, **options)(x)
    x = layers.Flatten()(layers.MaxPooling2D((1, POOL))(x))
    x = layers.Dense(shape.dense, kernel_initializer=keras.initializers.HeNormal(next(init)), **options)(x)
    heads = [
        layers.Dense(
            shape.latent,
            name=name,
            dtype="float32",  # posterior and loss stay float32 under mixed precision
            kernel_initializer=keras.initializers.GlorotNormal(next(init)),
            bias_initializer=keras.initializers.Constant(bias),
        )(x)
        for name, bias in (("z_mean", 0.0), ("z_log_var", -3.0))
    ]
    return keras.Model(image, heads, name="encoder")


def build_decoder(shape: Shape | None = None, seed: int = 0) -> keras.Model:
    """Return the untrained decoder: (batch, latent) -> (batch, rows, bins, 1), 0-1."""
    init, shape = iter(keras_seeds(seed, Stream.DECODER_WEIGHTS, count=LAYERS)), shape or Shape()
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


def clustering_loss(z: Any, is_signal: Any, closest: float = CLOSEST) -> Any:
    """Return the clustering loss of each cadence: (batch, 6, latent), (batch,) -> (batch,).

    Every cadence: the sum of the squared distances within ONs and within OFFs, each pair in both directions. With a
    signal, plus 1 / (distance^2 + `closest`) over the nine ON-OFF pairs; without one, plus distance^2 over these pairs.
    Aetherscan writes the same sums as 42 named pairs, 21 with a signal and 21 without.
    """
    on = ops.convert_to_tensor(ON_COLUMN, dtype=z.dtype)
    alike = on * ops.transpose(on) + (1 - on) * ops.transpose(1 - on)
    distance = ops.sum(ops.square(z[:, :, None] - z[:, None, :]), axis=-1)
    within = ops.sum(alike * distance, axis=(1, 2))
    apart = ops.sum((1 - alike) / (distance + closest), axis=(1, 2)) / 2
    mixed = ops.sum((1 - alike) * distance, axis=(1, 2)) / 2
    return within + is_signal * apart + (1 - is_signal) * mixed


@no_type_check  # Keras inspects the signatures of its models, which the shape checker would wrap
class BetaVAE(keras.Model):
    """Encoder and decoder with the loss gamma * (reconstruction + beta * KL) + alpha * clustering.

    With the objective `sentinel`, reconstruction is the binary cross-entropy summed over the pixels of an observation,
    of one ON and one OFF; clustering is that of the means of the posterior, averaged over all cadences. With `seed`, as
    in Aetherscan 1.2.0, the cross-entropy is averaged over bins and summed over the 96 rows of all six observations,
    and clustering is that of draws from the posterior, averaged over the cadences of each class and added.

    Input: snippets (batch, 6, rows, bins) as uint8, of which `UINT8_MAX` is 1. Target: 1.0 if a cadence holds a signal,
    else 0.0.

    Args:
        encoder: from `build_encoder`.
        decoder: from `build_decoder`.
        beta: weight of the KL divergence relative to the reconstruction.
        alpha: weight of the clustering loss.
        gamma: weight of reconstruction and KL divergence together.
        objective: `sentinel` or `seed`.
        seed: of the draws from the posterior.
        replicas: devices that share a batch; TensorFlow sums their losses and gradients.
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        beta: float = 1.5,
        alpha: float = 10.0,
        gamma: float = 0.02,
        objective: str = "sentinel",
        seed: int = 0,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.draws = encoder, decoder, keras.random.SeedGenerator(seed)
        self.beta, self.alpha, self.gamma, self.replicas = beta, alpha, gamma, replicas
        self.as_seed = objective == "seed"
        self.every = 1 if self.as_seed else RECONSTRUCTED
        self.terms = {name: keras.metrics.Mean(name) for name in TERMS}

    @property
    def metrics(self) -> list[Any]:
        """The loss and its terms; Keras resets them every epoch."""
        return [self._loss_tracker, *self.terms.values()]

    def images(self, snippets: Any) -> Any:
        """Return every observation of every snippet as an input of the encoder, 0-1."""
        _, rows, bins, _ = self.encoder.input_shape
        return ops.cast(ops.reshape(snippets, (-1, rows, bins, 1)), "float32") / UINT8_MAX

    def call(self, snippets: Any) -> dict[str, Any]:
        """Return the posterior of every observation, and draws and reconstruction of every `self.every`th."""
        z_mean, z_log_var = self.encoder(self.images(snippets))
        mean, spread = z_mean[:: self.every], ops.exp(0.5 * z_log_var[:: self.every])
        z = mean + spread * keras.random.normal(ops.shape(mean), dtype="float32", seed=self.draws)
        return {"image": self.decoder(z), "z": z, "z_mean": z_mean, "z_log_var": z_log_var}

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        """Return the loss of a batch, a scalar."""
        entropy = keras.losses.binary_crossentropy(self.images(x)[:: self.every], y_pred["image"])
        z_mean, z_log_var = y_pred["z_mean"], y_pred["z_log_var"]
        kl = ops.mean(-0.5 * (1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var)), axis=0)
        reconstruction = ops.mean(ops.sum(entropy, axis=(1, 2)))
        if self.as_seed:
            reconstruction = reconstruction * OBSERVATIONS / self.encoder.input_shape[2]
        terms = {
            "reconstruction": reconstruction,
            "kl": ops.sum(kl),
            "kl_most": ops.max(kl),
            "clustering": self.clustering(y_pred["z"] if self.as_seed else z_mean, ops.reshape(y, (-1,))),
        }
        for name, value in terms.items():
            self.terms[name].update_state(value)
        evidence = terms["reconstruction"] + self.beta * terms["kl"]
        return (self.gamma * evidence + self.alpha * terms["clustering"]) / self.replicas

    def clustering(self, z: Any, is_signal: Any) -> Any:
        """Return the clustering loss of a batch: a mean over all cadences, or of Aetherscan over each class."""
        cadences = ops.reshape(z, (-1, OBSERVATIONS, ops.shape(z)[-1]))
        if not self.as_seed:
            return ops.mean(clustering_loss(cadences, is_signal))
        losses = clustering_loss(cadences, is_signal, SEED_CLOSEST)
        classes = (is_signal, 1 - is_signal)
        return sum(ops.sum(losses * members) / ops.maximum(ops.sum(members), 1) for members in classes)
