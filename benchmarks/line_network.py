"""Draw lines as upright cut-outs, and train a small network on their kinds and emitters; `line_encoder.py` judges it.

The cut-out is `track_snippet` in which every row is moved so that the line stands in the middle. The network reads it,
the drift rate and the binning. Its loss is the cross-entropy of the kinds plus NT-Xent (Chen et al. 2020,
arXiv:2002.05709), for which two lines of one emitter in two skies, with another SNR, phase and beam, are a pair. In
half of the steps the pairs have no drift rate, so that the network compares shapes.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.detector import Detector, load_detector
from aetherscan.header import SCAN_STEP_S, Header
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.cutouts import UINT8_MAX, snippet_level, track_snippet
from aetherscan.search.features import measurements
from aetherscan.search.follow import DRIFT, as_track, channels_at
from aetherscan.search.on_off import WITH_A_KIND, on_snr
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform, random_interference, random_signal
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import followed, kind_of
from aetherscan.train.kinds import NAMED
from aetherscan.train.random_skies import KINDS, ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Stream, generator

SETTINGS = ExampleSettings()
SEEDS = {"train": 12011, "fit": 12022, "calibrate": 12033, "judge": 12044, "nights": 12055, "odd": 12066}
ROWS, BINS, CUT = 16, 64, 128
"""Rows of an observation, columns of a cut-out, and columns before its rows are moved."""
MOST = 4
"""Lines of one emitter in one patch that the network is trained on, each with a higher weight if it has more."""
IN_LOBE = 0.3
"""Share of the interference that the second of two skies receives in a side lobe."""
PAIRS, OTHERS, EPOCHS, RATE, TEMPERATURE = 32, 192, 6, 2e-3, 0.1
FEATURES, PROJECTED, DROPOUT = 32, 16, 0.3
FILTERS = ((24, (3, 5)), (48, (3, 3)), (64, (3, 3)), (96, (3, 3)))
"""Filters and kernel of each convolution; every stride is 2."""
TASK = 50
"""Patches that a process draws at a time."""
Lines = dict[str, np.ndarray]


def upright(block: NormalizedBlock, track: np.ndarray, cadence: Geometry) -> np.ndarray:
    """Return the cut-out of a line (obs, rows, bins), with every row moved so that the line stands in the middle."""
    image = track_snippet(block, track, cadence, (ROWS, CUT))
    rows = cadence.starts[:, None] + np.arange(ROWS) + 0.5
    away = channels_at(track[None], rows.ravel()).reshape(rows.shape) - channels_at(track[None], cadence.middles).T
    moved = np.rint(away / 2 ** snippet_level(as_track(track).box)).astype(int)[cadence.order]
    columns = np.clip((CUT - BINS) // 2 + moved[..., None] + np.arange(BINS), 0, CUT - 1)
    return np.rint(np.take_along_axis(image, columns, axis=2) * np.float32(UINT8_MAX)).astype(np.uint8)


def inputs(block: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> Lines:
    """Return what the network reads of some tracks."""
    drift = tracks[:, DRIFT] * cadence.hz / cadence.headers[0].tsamp / SETTINGS.max_drift_hz_s
    levels = [snippet_level(as_track(track).box) / 4 for track in tracks]
    images = np.array([upright(block, track, cadence) for track in tracks], dtype=np.uint8)
    return {
        "image": images.reshape(-1, 6 * ROWS, BINS),
        "scale": np.column_stack([drift, levels]).astype(np.float32).reshape(-1, 2),
    }


def again(rng: np.random.Generator, emitter: Emitter, header: Header) -> Emitter:
    """Return an emitter as another pointing receives it: another place, SNR, phase and beam."""
    name = "side_lobe" if emitter.kind != "tone" and rng.random() < IN_LOBE else emitter.kind
    if name in ("tone", "partial"):
        fresh = random_signal(rng, header.fch1, log_uniform(rng, *SETTINGS.signal_snr))
    else:
        fresh = random_interference(rng, header.fch1, log_uniform(rng, *KINDS[name][1]), name)
    snr = fresh.snr if name != "partial" else tuple(np.array(fresh.snr) * (np.array(emitter.snr) > 0))
    drift = emitter.drift_hz_s + rng.normal(0, 0.02)
    reach = drift * (5 * SCAN_STEP_S + header.duration_s) / (header.foff * 1e6)
    start = rng.uniform(max(0, -reach) + 50, SETTINGS.chans - max(0, reach) - 50)
    return replace(
        emitter, kind=name, snr=snr, phase_s=fresh.phase_s, drift_hz_s=drift, frequency_mhz=header.frequency(start)
    )


def draw(number: int, name: str, detector: Detector | None) -> Lines:
    """Return the lines of one patch; two neighboring patches of `train` hold the same emitters."""
    train = name == "train"
    header, rng = patch_header(SETTINGS), generator(SEEDS[name], Stream.KINDS_FIT, number)
    cadence = geometry_of(Sky(header=header).headers())
    same = generator(SEEDS[name], Stream.KINDS_MEASURE, number // 2) if train else rng
    first = [emitter for some in draw_emitters(same, SETTINGS) for emitter in some]
    emitters = [again(rng, emitter, header) for emitter in first] if train and number % 2 else first
    block = normalize_block(draw_power(rng, emitters, SETTINGS), cadence)
    tracks, rejections = followed(block, cadence, SETTINGS)
    tracks = tracks[np.isin(rejections, WITH_A_KIND)]
    tracks = tracks[np.argsort(-on_snr(tracks, cadence), kind="stable")]
    numbered = [replace(emitter, kind=str(i)) for i, emitter in enumerate(emitters)]
    who = np.array([kind_of(track, numbered, cadence) or "-1" for track in tracks], dtype=int)
    names = [emitter.kind for emitter in emitters]
    weights = np.array([i < 0 or names[i] == first[i].kind for i in who], dtype=np.float32)
    if train:  # of an emitter with many lines, only the brightest, which stand for all of them
        counts = {i: int((who == i).sum()) for i in who.tolist()}
        kept = np.array([i < 0 or (who[:n] == i).sum() < MOST for n, i in enumerate(who)], dtype=bool)
        weights *= [1 if i < 0 else max(1, counts[i] / MOST) for i in who.tolist()]
        tracks, who, weights = tracks[kept], who[kept], weights[kept]
    kinds = [NAMED.get(kind, kind) for kind in ("" if i < 0 else names[i] for i in who)]
    lines = {
        **inputs(block, tracks, cadence), "measured": measurements(tracks, cadence), "kind": np.array(kinds, "U16"),
        "emitter": np.where(who < 0, -1, number // 2 * 1000 + who), "patch": np.full(len(who), number),
        "weight": weights,
    }  # fmt: skip
    if detector:
        cut = [track_snippet(block, track, cadence, detector.release.snippet) for track in tracks]
        lines["latents"] = detector.encode_snippets(cut).mean.reshape(len(cut), -1)
    return lines


def draw_some(numbers: Sequence[int], name: str, folder: str) -> Lines:
    """Return the lines of some patches."""
    detector = None if name == "train" else load_detector(Path(folder))
    parts = [draw(number, name, detector) for number in numbers]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def lines_of(name: str, patches: int, release: str, folder: Path) -> Lines:
    """Return the lines of a set, from the file that an earlier run wrote or drawn by `PROCESSES` processes."""
    path = folder / f"{name}.npz"
    if not path.exists():
        tasks = [range(first, min(patches, first + TASK)) for first in range(0, patches, TASK)]
        parts = []
        processes = int(os.environ.get("PROCESSES", "2"))
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for part in pool.map(partial(draw_some, name=name, folder=release), tasks):
                parts.append(part)
                print(f"{name}: {TASK * len(parts)} of {patches} patches", file=sys.stderr, flush=True)
        np.savez(path, **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
    with np.load(path) as stored:
        return dict(stored)


@no_type_check  # Keras inspects the signatures of its models
def network(kinds: int) -> Any:
    """Return the untrained network: image and scale -> features, logits of the kinds, and projection for NT-Xent."""
    import keras  # noqa: PLC0415 - the processes that draw need none
    from keras import layers, ops  # noqa: PLC0415

    class LineNetwork(keras.Model):
        """A network with the cross-entropy of kinds and NT-Xent of the pairs that each batch begins with."""

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_):  # noqa: ARG002
            entropy = keras.losses.sparse_categorical_crossentropy(y, y_pred["logits"], from_logits=True)
            pairs = y_pred["projection"][: 2 * PAIRS]
            alike = ops.matmul(pairs, ops.transpose(pairs)) / TEMPERATURE - 1e9 * ops.eye(2 * PAIRS)
            partner = ops.arange(2 * PAIRS) // 2 * 2 + 1 - ops.arange(2 * PAIRS) % 2
            contrast = keras.losses.sparse_categorical_crossentropy(partner, alike, from_logits=True)
            return ops.sum(entropy * sample_weight) / ops.sum(sample_weight) + ops.mean(contrast)

    image = keras.Input((6 * ROWS, BINS), name="image", dtype="uint8")
    scale = keras.Input((2,), name="scale")
    x = layers.Rescaling(8 / UINT8_MAX, -2.5)(layers.Reshape((6 * ROWS, BINS, 1))(image))  # asinh of sigma
    for filters, kernel in FILTERS:
        x = layers.Conv2D(filters, kernel, 2, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Concatenate()([layers.Dropout(DROPOUT)(layers.Flatten()(x)), scale])
    x = layers.Dense(128, activation="relu", kernel_initializer="he_normal")(x)
    features = layers.Dense(FEATURES)(layers.Dropout(DROPOUT)(x))
    outputs = {
        "features": features,
        "logits": layers.Dense(kinds)(layers.ReLU()(features)),
        "projection": layers.UnitNormalization()(layers.Dense(PROJECTED)(x)),
    }
    return LineNetwork({"image": image, "scale": scale}, outputs)


def batches(rng: np.random.Generator, lines: Lines, classes: np.ndarray) -> Iterator[tuple[Lines, np.ndarray, Any]]:
    """Yield the batches of an epoch: pairs of lines of one emitter in two patches, then other lines."""
    order = np.lexsort((lines["patch"], lines["emitter"]))  # stable: the brightest line of an emitter is its first
    bright = order[np.unique(np.column_stack([lines["emitter"], lines["patch"]])[order], axis=0, return_index=True)[1]]
    bright = bright[lines["emitter"][bright] >= 0]
    first = np.flatnonzero(lines["emitter"][bright[1:]] == lines["emitter"][bright[:-1]])
    pairs = rng.permutation(np.column_stack([bright[first], bright[first + 1]]))
    others = rng.permutation(len(classes))
    for number in range(min(len(pairs) // PAIRS, len(others) // OTHERS)):
        chosen = np.concatenate([pairs[number * PAIRS :][:PAIRS].ravel(), others[number * OTHERS :][:OTHERS]])
        image, scale = lines["image"][chosen], lines["scale"][chosen]
        turned = np.repeat(rng.random(len(chosen) // 2) < 0.5, 2)  # mirrored in frequency
        image[turned] = image[turned, :, ::-1]
        scale[turned, 0] *= -1
        if rng.random() < 0.5:
            scale[: 2 * PAIRS, 0] = 0
        weight = lines["weight"][chosen]
        weight[: 2 * PAIRS] = 0  # their kinds are not as frequent as in a sky
        yield {"image": image, "scale": scale}, classes[chosen], weight


def trained(lines: Lines, names: np.ndarray, path: Path) -> Any:
    """Return the network, from the weights that an earlier run wrote or trained now."""
    import keras  # noqa: PLC0415

    keras.utils.set_random_seed(SEEDS["train"])
    model, rng = network(len(names)), np.random.default_rng(SEEDS["train"])
    if not path.exists():
        classes = np.searchsorted(names, lines["kind"])
        steps = sum(1 for _ in batches(np.random.default_rng(0), lines, classes))
        rate = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * steps)
        model.compile(keras.optimizers.Adam(rate), jit_compile=False)
        for epoch in range(EPOCHS):
            model.fit(batches(rng, lines, classes), steps_per_epoch=steps, shuffle=False, verbose=2)
            print(f"epoch {epoch + 1} of {EPOCHS}", file=sys.stderr, flush=True)
        model.save_weights(path)
    model.load_weights(path)
    return model
