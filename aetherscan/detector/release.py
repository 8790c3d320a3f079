"""A release on disk: the encoder, the forests and their card in one folder, with a checksum for every file.

    models/NAME/
        encoder.keras   the encoder as it was trained: one observation -> Gaussian over the latents
        encoder.onnx    the same encoder as ONNX Runtime runs it
        tracks.skops    forest of `--mode tracks`: measurements -> share of trees
        windows.skops   forest of `--mode windows`: latents of six observations -> share of trees
        kinds.skops     forest of kinds: measurements -> share of each kind; an older release has none
        release.json    the card: options, code commit, seed, snippet shape, metrics, sha256 of the files above
        CARD.md         the card as text

No file is opened before its sha256 agrees with `release.json`. A forest reads columns by position, so a release whose
measurements are not those of this code, in this order, is refused.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from aetherscan.errors import ReleaseError

OBSERVATIONS = 6
"""Observations that a forest reads the latents of: ON and OFF in turn."""
LATENTS = ("mean", "log_var")
KINDS = "kinds"
"""Name of the forest of kinds, and of its part of the card."""
SIGNAL = "signal"
"""Kind of a line that looks like a signal from the target; the others are kinds of interference, and noise."""
ENCODERS = ("encoder.keras", "encoder.onnx")
MEASUREMENTS = (
    "on_together", "on_weakest", "on_brightest", "off_together", "off_brightest", "off_to_on", "off_near",
    "off_around", "around_to_on", "drift_hz_s", "curvature_hz_s2", "width_hz", "box_channels", "residual", "steady",
    "hit_to_on", "on_unlike", "on_unlike_to_on", "side_lobe_odds",
)  # fmt: skip
"""The measurements of a track, in the order of a forest's columns; `aetherscan.search.features` computes them."""
SHAPE = (
    "on_weakest", "on_brightest", "width_hz", "curvature_hz_s2", "residual", "steady", "hit_to_on", "on_unlike_to_on",
)  # fmt: skip
"""Measurements of the shape of a line. Brightness and drift rate are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a release scores in one search mode.

    Attributes:
        threshold: lowest probability of a candidate, 0-1.
        latents: parts of the posterior in the forest's first columns, of `LATENTS`.
        measurements: the forest's last columns: `MEASUREMENTS`, or none.
        calibration: points (`score`, `probability`) of a piecewise linear function; None: the score is not calibrated.
        alarms: alarms `per_100_mhz` expected at each `threshold` (`aetherscan.detector.alarms`); None: not known.
    """

    threshold: float
    latents: tuple[str, ...] = ("mean",)
    measurements: tuple[str, ...]
    calibration: dict[str, list[float]] | None
    alarms: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What the signals of a training look like (`aetherscan.detector.strangeness`), as lists for the card.

    Attributes:
        shape: names of the measurements, `SHAPE`.
        centre: mean of each, scaled.
        whiten: matrix that gives the departures from it unit variance.
        shares: of the signals, falling from 1.
        distances: Mahalanobis' distance from `centre` that these shares of the signals reach.
        unlikely: probability of not being a signal that they reach.
    """

    shape: tuple[str, ...]
    centre: list[float]
    whiten: list[list[float]]
    shares: list[float]
    distances: list[float]
    unlikely: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """How a release names the kind of a line.

    Attributes:
        names: of the kinds, in the order of the forest's classes.
        power: of the shares of trees; the powers, divided by their sum, are the probabilities.
        signals: what signals look like; None: not known.
    """

    names: tuple[str, ...]
    power: float
    signals: Signals | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release folder whose checksums agree."""

    path: Path
    name: str
    sha256: str  # of release.json, which holds those of the other files
    snippet: tuple[int, int]  # rows and bins
    modes: dict[str, Mode]
    kinds: Kinds | None = None  # None: it names none
    card: dict[str, Any]  # release.json


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_release(folder: Path, *, only_encoder: bool = False) -> Release:
    """Read the card in `folder` and check every file against it.

    Args:
        folder: of the release.
        only_encoder: whether its forests, and so their measurements, are not used.

    Raises:
        ReleaseError: a file or a key is missing, a checksum does not agree, or a forest was trained on measurements of
            other names or in another order than `MEASUREMENTS`.
    """
    card_path = folder / "release.json"
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        release = Release(
            path=folder,
            name=str(card["name"]),
            sha256=file_sha256(card_path),
            snippet=(int(card["snippet"]["rows"]), int(card["snippet"]["bins"])),
            modes={
                mode: Mode(
                    threshold=float(values["threshold"]),
                    latents=tuple(part for part in values.get("latents", ["mean"]) if part in LATENTS),
                    measurements=tuple(values["measurements"]),
                    alarms=values.get("alarms"),
                    calibration=_rising(values.get("calibration")),
                )
                for mode, values in card["modes"].items()
            },
            kinds=_kinds(card.get("kinds")),
            card=card,
        )
        expected = {name: str(card["sha256"][name]) for name in weights(forests_of(card))}
    except OSError as error:
        raise ReleaseError(f"{folder}: expected a folder with release.json, found {error.strerror}") from error
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{card_path}: expected name, snippet, modes and sha256, found {error!r}") from error
    read = {mode: values.measurements for mode, values in release.modes.items()}
    read |= {KINDS: tuple(card[KINDS]["measurements"])} if release.kinds else {}
    for forest, measurements in read.items():
        if not only_encoder and measurements not in ((), MEASUREMENTS):
            raise ReleaseError(
                f"{card_path}: expected {forest} measurements {', '.join(MEASUREMENTS)}, in this order, found "
                f"{', '.join(measurements)}: train the forests anew, or run the code of the release"
            )
    for name, sha256 in expected.items():
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder}: expected {name}, found none")
        if (found := file_sha256(folder / name)) != sha256:
            raise ReleaseError(f"{folder / name}: expected sha256 {sha256}, found {found}")
    return release


def weights(forests: Iterable[str]) -> list[str]:
    """Return the names of the encoder and forest files of a release, given the names of the forests."""
    return [*ENCODERS, *(f"{name}.skops" for name in forests)]


def forests_of(card: Mapping[str, Any]) -> list[str]:
    """Return the names of the forests of a release: its search modes, and `KINDS` if it has kinds."""
    return [*card["modes"], *([KINDS] if card.get(KINDS) else [])]


def _kinds(values: dict[str, Any] | None) -> Kinds | None:
    if values is None:
        return None
    names, power = tuple(map(str, values["names"])), float(values["power"])
    if len({*names}) < len(names) or not power > 0:
        raise ValueError("kinds: expected different names and a power above 0")
    return Kinds(names=names, power=power, signals=_signals(values.get("signals")))


def _signals(values: dict[str, Any] | None) -> Signals | None:
    """Return what signals look like, None if it is not known or was measured otherwise than by this code."""
    if values is None or tuple(values["shape"]) != SHAPE:
        return None
    signals = Signals(**{**values, "shape": SHAPE})
    square = [len(signals.centre), len(signals.whiten), *map(len, signals.whiten)]
    if {*square} != {len(SHAPE)} or not len(signals.shares) == len(signals.distances) == len(signals.unlikely) > 1:
        raise ValueError(f"kinds: expected signals of {len(SHAPE)} measurements and equal lists of shares")
    return signals


def _rising(calibration: dict[str, list[float]] | None) -> dict[str, list[float]] | None:
    if calibration is None:
        return None
    score, probability = calibration["score"], calibration["probability"]
    rising = len(score) == len(probability) > 1 and all(a < b for a, b in pairwise(score))
    if not rising or sorted(probability) != probability or not 0 <= probability[0] <= probability[-1] <= 1:
        raise ValueError("calibration: expected rising points between 0 and 1")
    return {"score": score, "probability": probability}


def write_card(folder: Path, card: dict[str, Any]) -> Release:
    """Add the checksums of the files in `folder` to `card`, write it as `release.json`, and return the release."""
    card = {**card, "sha256": {name: file_sha256(folder / name) for name in weights(forests_of(card))}}
    part = folder / ".release.json.part"  # a release in use may be changed: never half of a card
    part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "release.json")
    return read_release(folder)
