"""Train a release: the encoder in rounds on what the feed draws, then its forests on what the search finds in skies.

Encoder, forests and their judgement each see skies of their own. One encoder serves both modes of searching; each has
its forest, its threshold and its calibration.
"""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aetherscan.detector.detector import load_encoder
from aetherscan.detector.release import Release, read_release, write_card
from aetherscan.errors import ReleaseError
from aetherscan.options.search import MODES
from aetherscan.options.train import TrainSettings
from aetherscan.train.batches import FeedSettings, feed, sources_of
from aetherscan.train.encoder import Plan, train_encoder
from aetherscan.train.examples import Examples, draw
from aetherscan.train.forest import FEWEST, collect_features, labelled_features, train_forest
from aetherscan.train.onnx_export import export_onnx
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.report import write_training
from aetherscan.train.resources import Note, stage
from aetherscan.train.streams import Stream

SHOWN = 2000
"""Examples whose latents are drawn in the report."""


def code_commit() -> str:
    """Return the commit of the code that trains, with `+` where it was changed since; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=here, check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return shown.stdout.decode().strip()


def train(
    folder: Path,
    settings: TrainSettings,
    examples: ExampleSettings | None = None,
    *,
    labelled: Examples | None = None,
    labels: Mapping[str, Mapping[str, int]] | None = None,
    tell: Callable[[str], object] = print,
    note: Note = lambda _: None,
) -> Release:
    """Train a release into `folder`, which is made; return it as served.

    Args:
        folder: of the release; logs and report go to one of its name in `output_path`.
        settings: of the training.
        examples: what simulated patches look like.
        labelled: tracks that people have judged, for the forest.
        labels: how many of each word that they gave joined, and why others did not, for the card.
        tell: takes lines for people.
        note: takes each finished stage.

    Raises:
        FileExistsError: `folder` holds a release already.
        ReleaseError: the release that it should start from is none.
        TrainingError: it cannot go on; the last checkpoint is whole.
        KeyboardInterrupt: it was told to stop, by SIGINT or SIGTERM.
    """
    if (folder / "release.json").exists():
        raise FileExistsError(f"{folder}: expected no release there, found release.json; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    logs, commit = settings.output_path / folder.name, code_commit()
    examples = examples or ExampleSettings(
        rows=settings.time_bins, bins=settings.bins, hz=settings.freq_resolution, tsamp=settings.time_resolution
    )
    backgrounds, stages = feed_settings(settings, examples), list[dict[str, Any]]()
    start = encoder_of(settings.start) if settings.start else None

    def noted(finished: Any) -> None:
        stages.append(dict(finished))
        note(finished)

    with interruptible():
        encoder, history = train_encoder(
            folder, settings, lambda: feed(backgrounds, settings.processes),
            tell=tell, note=noted,
        )  # fmt: skip
        export_onnx(encoder, folder / "encoder.onnx")
        encode = load_encoder(folder / "encoder.onnx", (examples.rows, examples.bins), settings.processes)
        with stage("draw", noted):
            training, validation = sources_of(backgrounds) if settings.train_files else (None, None)
            half = settings.judge_patches // 2
            known, select, judged = (
                collect_features(
                    encode, draw(settings.seed, stream, patches, examples, settings.processes, source),
                    len(patches) * examples.chans / settings.width_bin,
                )
                for stream, patches, source in (
                    (Stream.FOREST_FIT, range(settings.forest_patches), training),
                    (Stream.FOREST_SELECT, range(half), validation),
                    (Stream.FOREST_JUDGE, range(half, settings.judge_patches), validation),
                )
            )  # fmt: skip
        modes = {}
        for mode in MODES:
            with stage(f"forest {mode}", noted) as found:
                mine = labelled_features(encode, labelled) if labelled and mode == "tracks" else None
                modes[mode] = train_forest(folder, mode, known[mode], select[mode], judged[mode], settings, mine)
                found |= {"threshold": modes[mode]["threshold"]}
    plan = Plan.of(settings)
    seen = {
        "epochs": len(history),
        "cadences": len(history) * plan.steps * plan.batch,
        "seconds": round(sum(row["seconds"] for row in history)),
        "devices": ", ".join(plan.devices) or "one device",
        "start": start,
    }
    card = {
        "name": folder.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "snippet": {"rows": examples.rows, "bins": examples.bins},
        "modes": modes,
        "data": asdict(examples),
        "training": {**settings.recorded(), "backgrounds": settings.backgrounds},
        "encoder": start if start and not history else seen,
        "labels": labels or {},
        "forests": {"seconds": round(sum(one["seconds"] for one in stages if not one["stage"].startswith("round")))},
        "packages": {"keras": keras.__version__, "backend": keras.backend.backend()},
    }
    release = write_card(folder, card)
    (folder / "CARD.md").write_text(describe(release), encoding="utf-8")
    shown = judged["tracks"].only(np.arange(min(SHOWN, len(judged["tracks"].labels))))
    write_training(logs, release, history, stages, shown)
    return release


def encoder_of(folder: Path) -> dict[str, Any]:
    """Return what a release's card says of its encoder.

    Raises:
        ReleaseError: it says nothing, or there is no release.
    """
    release = read_release(folder)
    if "encoder" not in release.card:
        raise ReleaseError(f"{folder}: expected a card that says what its encoder saw, found none")
    return {"name": release.name, **release.card["encoder"]}


def feed_settings(settings: TrainSettings, examples: ExampleSettings) -> FeedSettings:
    """Return what the encoder is fed."""
    return FeedSettings(
        seed=settings.seed, examples=examples,
        num_target_backgrounds=settings.num_target_backgrounds,
        background_load_chunk_size=settings.background_load_chunk_size,
        max_chunks_per_file=settings.max_chunks_per_file,
        signal_injection_chunk_size=settings.signal_injection_chunk_size,
        train_files=tuple(settings.files()),
    )  # fmt: skip


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM be what Ctrl-C is: an exception, so that what was begun is ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(release: Release) -> str:
    """Return CARD.md: what a release was trained on and measured at, for people."""
    card = release.card
    data, training, snippet = card["data"], card["training"], card["snippet"]
    labels = card["labels"].items()
    said = "; ".join(f"{word}, {', '.join(f'{n} {what}' for what, n in became.items())}" for word, became in labels)
    return f"""# {release.name}

Made {card["made"]} from commit {card["commit"]} with {card["packages"]["backend"]}, seed {training["seed"]}.

{_seen(card["encoder"])}
The forests took {card["forests"]["seconds"]:,} s, and learned from what the search found in
{training["forest_patches"]:,} patches of {data["chans"]:,} channels ({training["backgrounds"]}), at most
{training["num_samples_rf"]:,} examples.
Snippets of {snippet["rows"]} rows x {snippet["bins"]} bins. What people said of candidates: {said or "nothing"}.

Measured on half of {training["judge_patches"]:,} further patches, of other skies or pieces of band. This says how well
encoder and forest tell apart what passed every gate before them; it is not a recall on the sky, which is what
`./sentinel.py evaluate` measures.

{chr(10).join(_table(mode, card["modes"][mode]) for mode in card["modes"])}
```json
{json.dumps({"data": data, "training": training}, indent=1)}
```
"""


def _seen(encoder: dict[str, Any]) -> str:
    """Say what made an encoder, and what made the one that it began as."""
    whose = f" of {encoder['name']}" if "name" in encoder else ""
    said = f"""The encoder{whose} saw {encoder["cadences"]:,} cadences in {encoder["epochs"]} epochs, in
{encoder["seconds"]:,} s on {encoder["devices"]}."""
    return f"{said} It began as another.\n{_seen(encoder['start'])}" if encoder.get("start") else said


def _table(mode: str, card: dict[str, Any]) -> str:
    metrics, compared = card["metrics"], card["compared"]
    reads = " + ".join([*card["latents"], *(["measurements"] if card["measurements"] else [])])
    recalls = [name for name in metrics if name.startswith("recall_at_")]
    rows = {snr: {name: metrics[name][snr] for name in recalls} for snr in metrics[recalls[0]]}
    learned = card["learned"]
    return f"""## {mode}

Learned from {learned["signals"]:,} signals and {learned["others"]:,} others, {card["labelled"]:,} of them judged by
people. Threshold {card["threshold"]:.4f}. Recall by SNR of the faintest ON, among {metrics["signals"]:,} signals and
{metrics["others"]:,} others in {metrics["windows"]:,} windows, at so many false alarms a window as {FEWEST} carry:

{_rows("SNR", rows)}
The forest reads {reads}, which was chosen on the other half by recall at the smallest rate.
A random draw of the posterior is there to be compared with: with it two searches of a cadence are two lists.

{_rows("reads", {" + ".join(one["reads"]): one for one in compared})}"""


def _rows(first: str, rows: dict[str, Any]) -> str:
    """Return a table in Markdown of recalls at the rates of false alarms that the keys name."""
    names = [name for name in next(iter(rows.values()), {}) if name.startswith("recall_at_")]
    head = [first, *(f"recall at {100 * float(name.removeprefix('recall_at_')):g}%" for name in names)]
    lines = [[label, *(f"{of[name]:.3f}" for name in names)] for label, of in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))
