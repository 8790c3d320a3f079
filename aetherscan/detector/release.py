"""A release: encoder, forests and card in one folder under one name, with a checksum on every file.

    models/NAME/
        encoder.keras   one observation -> latent posterior, as it was trained
        encoder.onnx    the same, as it is served
        tracks.skops    six latents, and a track's measurements beside them -> share of trees
        windows.skops   six latents of a window -> share of trees
        release.json    data, code commit, seeds, geometry, metrics, sha256 of the files above
        CARD.md         the same for people

Nothing in a folder is opened before its sha256 agrees with `release.json`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from aetherscan.errors import ReleaseError

LATENTS = ("mean", "log_var")
ENCODERS = ("encoder.keras", "encoder.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a release decides in one mode of searching."""

    threshold: float  # of probability
    latents: tuple[str, ...] = ("mean",)  # the forest's first columns: of `mean` and `log_var`
    measurements: tuple[str, ...]  # its last columns
    calibration: dict[str, list[float]] | None  # score and probability at points between which lines are drawn
    familiar: dict[str, Any] | None = (
        None  # where the latents of signals lie: `centre`, and `whiten` for a round scatter
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release folder whose files have been found as they were published."""

    path: Path
    name: str
    sha256: str  # of release.json, which holds the other files' own
    snippet: tuple[int, int]  # rows and bins
    modes: dict[str, Mode]
    card: dict[str, Any]


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_release(folder: Path) -> Release:
    """Return the release in `folder` after checking every file in it.

    Raises:
        ReleaseError: a file or a key is missing, or a checksum does not agree.
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
                    threshold=float(of["threshold"]),
                    latents=tuple(part for part in of.get("latents", ["mean"]) if part in LATENTS),
                    measurements=tuple(of["measurements"]),
                    familiar=of.get("familiar"),
                    calibration=_checked(of.get("calibration")),
                )
                for mode, of in card["modes"].items()
            },
            card=card,
        )
        expected = {name: str(card["sha256"][name]) for name in weights(release.modes)}
    except OSError as error:
        raise ReleaseError(f"{folder}: expected a folder with release.json, found {error.strerror}") from error
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{card_path}: expected name, snippet, modes and sha256, found {error!r}") from error
    for name, sha256 in expected.items():
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder}: expected {name}, found none")
        if (found := file_sha256(folder / name)) != sha256:
            raise ReleaseError(f"{folder / name}: expected sha256 {sha256}, found {found}")
    return release


def weights(modes: Iterable[str]) -> list[str]:
    """Return the names of a release's files beside its card."""
    return [*ENCODERS, *(f"{mode}.skops" for mode in modes)]


def _checked(calibration: dict[str, list[float]] | None) -> dict[str, list[float]] | None:
    if calibration is None:
        return None
    score, probability = calibration["score"], calibration["probability"]
    rising = len(score) == len(probability) > 1 and all(a < b for a, b in pairwise(score))
    if not rising or sorted(probability) != probability or not 0 <= probability[0] <= probability[-1] <= 1:
        raise ValueError("calibration: not points that rise")
    return {"score": score, "probability": probability}


def write_card(folder: Path, card: dict[str, Any]) -> Release:
    """Write `release.json`, with checksums, for the encoders and forests that lie in `folder`; return the release."""
    card = {**card, "sha256": {name: file_sha256(folder / name) for name in weights(card["modes"])}}
    (folder / "release.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return read_release(folder)
