"""Continue a training: which checkpoint it begins from, with which settings it may, and the phases it has had.

A phase is a sequence of rounds with the same settings, code and devices. Checkpoints and cards hold every phase, so
that a card describes how the weights came about, also after a resume with other settings.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from aetherscan.detector.release import read_release
from aetherscan.errors import OptionsError, ReleaseError, TrainingError
from aetherscan.options.train import SHAPE, TrainSettings
from aetherscan.train.checkpoint import State, read_state
from aetherscan.train.folders import checkpoints_of, rounds_in

Phases = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What a training begins with.

    Attributes:
        folder: of the initial weights: a checkpoint or a release; None: random weights.
        run: identifies the training; the same for all resumes of it.
        done: rounds that are complete.
        start: the encoder part of the card of the release whose encoder is trained further.
    """

    folder: Path | None
    run: str
    done: int
    start: dict[str, Any] | None


def begin(settings: TrainSettings, name: str) -> Begin:
    """Find the checkpoint or release that a training begins from, and compare its settings.

    Args:
        settings: of the training.
        name: of the training.

    Raises:
        TrainingError: there is no such checkpoint, or it was left by other code.
        ReleaseError: the release to start from cannot be read.
        OptionsError: settings differ from the checkpoint's; one line for each.
    """
    folder, done = started_from(settings, name), settings.first_round - 1
    new = uuid4().hex[:12]
    if folder is None:
        return Begin(folder=None, run=new, done=done, start=None)
    state = read_state(folder)
    if state is None:
        return Begin(folder=folder, run=new, done=done, start=encoder_card(folder))
    if changes := refused_changes(settings, state, folder):
        raise OptionsError("\n".join(changes))
    own = folder.parent == checkpoints_of(settings, name)
    if own and done < state.round:
        raise OptionsError(
            f"start_round: expected at least {state.round + 1} after {folder}, or another save_tag with load_dir "
            f"{folder.parent.relative_to(settings.model_path)}, found {settings.first_round}"
        )
    return Begin(folder=folder, run=state.run if own else new, done=done, start=state.start)


def started_from(settings: TrainSettings, name: str) -> Path | None:
    """Return the folder of the initial weights: a checkpoint, a release to train further, or None.

    Raises:
        TrainingError: the folder holds no encoder.
    """
    if not settings.load_tag:
        places = [settings.start] if settings.start else []
    elif settings.load_dir is not None:
        inside = settings.model_path / settings.load_dir
        places = [inside / name / settings.load_tag, inside / settings.load_tag]
    elif settings.load_tag.startswith("round"):
        places = [checkpoints_of(settings, name) / settings.load_tag]
    else:
        places = [settings.model_path / settings.load_tag]
    if not places:
        return None
    for folder in places:
        if (folder / "encoder.keras").is_file():
            return folder
    raise TrainingError(
        f"{places[-1]}: expected a checkpoint or a release, found no encoder; available: {_available(settings)}"
    )


def _available(settings: TrainSettings) -> str:
    """List the last checkpoint of each training, and the releases."""
    runs = sorted(path for path in checkpoints_of(settings, "").glob("*") if rounds_in(path))
    last = [f"{run.name}/round_{max(rounds_in(run)):02d}" for run in runs]
    releases = sorted(path.parent.name for path in settings.model_path.glob("[!.]*/encoder.keras"))
    return ", ".join([*last, *releases]) or "none"


def encoder_card(folder: Path) -> dict[str, Any]:
    """Return the part of a release's card that describes its encoder.

    Raises:
        ReleaseError: there is no release, or its card does not describe the encoder.
    """
    release = read_release(folder, only_encoder=True)
    if "encoder" not in release.card:
        raise ReleaseError(f"{folder}: expected `encoder` in release.json, found none")
    return {"name": release.name, **release.card["encoder"]}


def refused_changes(settings: TrainSettings, state: State, folder: Path) -> list[str]:
    """Return a line for each setting of the encoder that differs from the checkpoint's and is not allowed to."""
    now, defaults = plain(settings.of_encoder()), plain(TrainSettings().recorded())
    before = {name: state.settings.get(name, defaults[name]) for name in now}
    changed = {name: (before[name], now[name]) for name in now if before[name] != now[name]}
    files = plain(settings.file_sizes())
    if "train_files" not in changed and state.files != files:
        changed["train_files"] = state.files, files
    lines = []
    for name, (expected, found) in changed.items():
        if name in SHAPE or name not in settings.allowed:
            line = f"{name}: expected {expected} as in {folder}, found {found}"
            lines.append(line if name in SHAPE else f"{line}; to change it, give --allow-changed {name}")
    return lines


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON holds them."""
    return dict(json.loads(json.dumps(values)))


def with_round(phases: Phases, number: int, rows: Iterable[Mapping[str, float]], about: Mapping[str, Any]) -> Phases:
    """Return the phases with one more round, which joins the last phase if it continues it.

    Args:
        phases: so far.
        number: of the round, from 1.
        rows: its epochs.
        about: what the rounds of a phase share: settings, cadences of an epoch, devices, commit.
    """
    rows = list(rows)
    seconds, last = sum(row["seconds"] for row in rows), phases[-1] if phases else None
    if last and last["rounds"][1] == number - 1 and all(last[key] == value for key, value in about.items()):
        joined = {"rounds": [last["rounds"][0], number], "epochs": last["epochs"] + len(rows)}
        return [*phases[:-1], {**last, **joined, "seconds": round(last["seconds"] + seconds, 3)}]
    return [*phases, {"rounds": [number, number], "epochs": len(rows), "seconds": round(seconds, 3), **about}]


def phase_lines(phases: Phases) -> list[str]:
    """Describe each phase, with the settings that differ from those of the phase before."""
    lines, before = [], dict[str, Any]()
    for phase in phases:
        first, last = phase["rounds"]
        rounds = f"Round {first}" if first == last else f"Rounds {first} to {last}"
        settings = phase["settings"]
        others = {name: value for name, value in settings.items() if value != before.get(name, value)}
        differ = [f"{name} from {before[name]} to {value}" for name, value in others.items()]
        changed = f"; changed: {', '.join(differ)}" if differ else ""
        lines.append(
            f"- {rounds}: {phase['epochs'] * phase['cadences_per_epoch']:,} cadences in {phase['epochs']} epochs, "
            f"{phase['seconds']:,.0f} s on {phase['devices']}, commit {phase['commit'] or 'unknown'}{changed}"
        )
        before = settings
    return lines
