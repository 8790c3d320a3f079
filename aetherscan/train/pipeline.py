"""Train a release: the encoder in rounds, then the forest of each search mode, and that of the kinds of lines.

The encoder trains on batches of rendered snippets. The forests train on what the search finds in simulated skies or in
real backgrounds with injected signals. Encoder, fit, calibration and measurement draw from independent random streams
(`aetherscan.train.streams`). One encoder serves both search modes; each mode has a forest, a calibration and a
threshold.
"""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aetherscan.detector.alarms import text_of
from aetherscan.detector.detector import Encode, load_encoder
from aetherscan.detector.release import Release, read_release, write_card
from aetherscan.options.search import MODES
from aetherscan.options.train import TrainSettings
from aetherscan.train.backgrounds import Source
from aetherscan.train.batches import BatchSettings, open_batches, sources_of
from aetherscan.train.encoder import Trained, list_devices, train_encoder
from aetherscan.train.examples import Examples, draw
from aetherscan.train.folders import checkpoints_of, hold
from aetherscan.train.forest import (
    EMITTERS_PER_MHZ,
    FEWEST_ALARMS,
    LabelledFeatures,
    check_both_classes,
    collect_features,
    labelled_features,
    train_forest,
)
from aetherscan.train.kinds import line_sets, metrics_text, train_kinds
from aetherscan.train.onnx_export import export_onnx
from aetherscan.train.quiet import quiet_tensorflow
from aetherscan.train.random_skies import ExampleSettings, kinds_drawn
from aetherscan.train.report import write_training
from aetherscan.train.resources import Note, stage
from aetherscan.train.resume import begin, phase_lines
from aetherscan.train.streams import Stream

FEW_PATCHES = 32
"""Patches of a set from which it holds enough examples of both classes: each has about ten."""
DRAWN_LATENTS = 2000
"""Most examples whose latents are drawn in the report."""


def code_commit() -> str:
    """Return the git commit of this code, with `+` if files were changed since; empty outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.decode().strip()


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
    """Train a release into a new folder, and return it.

    Args:
        folder: of the release; its logs and report are written to `output_path/NAME`.
        settings: of the training.
        examples: what simulated patches contain.
        labelled: tracks labelled by people, for the forest.
        labels: for each label, how many were used or why they were not, for the card.
        tell: receives lines for the user.
        note: receives each finished stage.

    Raises:
        FileExistsError: the folder holds a release already.
        OptionsError: settings differ from those of the checkpoint, or files are missing.
        ReadError, CadenceError: the files of backgrounds cannot be used.
        ReleaseError: the release to start from cannot be read.
        TrainingError: another training uses the folders, or this one cannot continue; the last checkpoint is complete.
        KeyboardInterrupt: the training was stopped by SIGINT or SIGTERM.
    """
    report = settings.output_path / folder.name
    with quiet_tensorflow():
        list_devices()
    with interruptible(), hold(folder, checkpoints_of(settings, folder.name), report):
        if (folder / "release.json").exists():
            expected = "expected a folder without a release, found release.json: choose another name"
            raise FileExistsError(f"{folder}: {expected}")
        begin(settings, folder.name)  # compares the settings with the checkpoint's, before large files are read
        stages, commit = list[dict[str, Any]](), code_commit()
        examples = examples or ExampleSettings(
            rows=settings.time_bins, bins=settings.bins, hz=settings.freq_resolution, tsamp=settings.time_resolution
        )
        batches = batch_settings(settings, examples)
        backgrounds = sources_of(batches)  # reads the files, before anything is written
        for line in backgrounds[0].notes:
            tell(line)
        drawn = draw_sets(settings, examples, backgrounds if settings.train_files else None)

        def record(finished: Mapping[str, Any]) -> None:
            stages.append(dict(finished))
            note(finished)

        opened = partial(open_batches, batches, settings.processes, backgrounds)
        trained = train_encoder(folder, settings, opened, commit=commit, tell=tell, note=record)
        export_onnx(trained.encoder, folder / "encoder.onnx")
        encode = load_encoder(folder / "encoder.onnx", (examples.rows, examples.bins), settings.processes)
        with stage("draw", record):
            sets = forest_sets(encode, settings, examples, drawn)
        modes = {}
        for mode in MODES:
            with stage(f"forest {mode}", record) as results:
                people = labelled_features(encode, labelled) if labelled and mode == "tracks" else None
                parts = {name: features[mode] for name, features in sets.items()}
                modes[mode] = train_forest(folder, mode, parts, settings, kinds_drawn(examples), people)
                results |= {"threshold": modes[mode]["threshold"]}
        with stage("forest kinds", record):
            lines = line_sets(settings, examples, backgrounds if settings.train_files else None)
            kinds = train_kinds(folder, lines, settings)
        seconds = sum(finished["seconds"] for finished in stages if not finished["stage"].startswith("round"))
        card = {
            "name": folder.name,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit,
            "snippet": {"rows": examples.rows, "bins": examples.bins},
            "modes": modes,
            "kinds": kinds,
            "data": asdict(examples),
            "training": {**settings.recorded(), "backgrounds": settings.backgrounds},
            "background_notes": [_without_folder(line) for line in backgrounds[0].notes],
            "encoder": encoder_history(trained),
            "labels": labels or {},
            "forests": {"seconds": round(seconds)},
            "packages": {"keras": keras.__version__, "backend": keras.backend.backend()},
        }
        release = write_card(folder, card)
        (folder / "CARD.md").write_text(describe(release), encoding="utf-8")
        tracks = sets["measure"]["tracks"]
        some = tracks.only(np.arange(min(DRAWN_LATENTS, len(tracks.labels))))
        write_training(report, release, trained.history, stages, some)
    return release


def _without_folder(line: str) -> str:
    """Return a line about a file without the file's folder, which is one of this machine."""
    path, _, text = line.partition(": ")
    return f"{Path(path).name}: {text}"


def encoder_history(trained: Trained) -> dict[str, Any]:
    """Return what the card says of the encoder: its phases, and the encoder that it started from.

    Where no round was trained, it is the description of that encoder.
    """
    phases = trained.phases
    if trained.start and not phases:
        return trained.start
    return {
        "run": trained.run,
        "epochs": sum(phase["epochs"] for phase in phases),
        "cadences": sum(phase["epochs"] * phase["cadences_per_epoch"] for phase in phases),
        "seconds": round(sum(phase["seconds"] for phase in phases)),
        "devices": "; ".join(dict.fromkeys(phase["devices"] for phase in phases)),
        "phases": phases,
        "start": trained.start,
    }


Drawn = dict[str, Iterable[dict[str, Examples]]]
"""Examples of several patches by search mode, for each set: `fit`, `calibrate`, `measure`."""


def draw_sets(settings: TrainSettings, examples: ExampleSettings, real: tuple[Source, ...] | None) -> Drawn:
    """Draw the examples that fit, calibrate and measure the forests, from separate patches, as they are used.

    Few patches are drawn at once, and checked: they may hold too few signals, and a long training would end with that.

    Args:
        settings: of the training.
        examples: what patches contain.
        real: real backgrounds for training and for validation; None: simulated skies.

    Raises:
        TrainingError: few patches were drawn, and a set has too few signals or too few other examples.
    """
    training, validation = real or (None, None)
    sets: Drawn = {}
    for name, (stream, numbers) in patches_of(settings).items():
        source = training if name == "fit" else validation
        sets[name] = draw(settings.seed, stream, numbers, examples, settings.processes, source)
        if len(numbers) < FEW_PATCHES:
            sets[name] = kept = list(sets[name])
            most = settings.num_samples_rf if name == "fit" else None
            for mode in MODES:
                check_both_classes(mode, name, np.concatenate([part[mode].labels for part in kept])[:most])
    return sets


def patches_of(settings: TrainSettings) -> dict[str, tuple[Stream, range]]:
    """Return the random stream and the numbers of the patches of each set."""
    half = settings.judge_patches // 2
    return {
        "fit": (Stream.FOREST_FIT, range(settings.forest_patches)),
        "calibrate": (Stream.FOREST_CALIBRATE, range(half)),
        "measure": (Stream.FOREST_MEASURE, range(half, settings.judge_patches)),
    }


def forest_sets(
    encode: Encode, settings: TrainSettings, examples: ExampleSettings, drawn: Drawn
) -> dict[str, dict[str, LabelledFeatures]]:
    """Encode the examples of the forests, and return them by set and search mode.

    Args:
        encode: the encoder.
        settings: of the training.
        examples: what patches contain.
        drawn: the examples.
    """
    return {
        name: collect_features(encode, drawn[name], len(numbers) * examples.chans / settings.width_bin)
        for name, (_, numbers) in patches_of(settings).items()
    }


def batch_settings(settings: TrainSettings, examples: ExampleSettings) -> BatchSettings:
    """Return the settings of the encoder's batches."""
    return BatchSettings(
        seed=settings.seed, examples=examples,
        num_target_backgrounds=settings.num_target_backgrounds,
        background_load_chunk_size=settings.background_load_chunk_size,
        max_chunks_per_file=settings.max_chunks_per_file,
        signal_injection_chunk_size=settings.signal_injection_chunk_size,
        train_files=tuple(settings.files()),
    )  # fmt: skip


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM as at Ctrl-C, so that files are closed and processes ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(release: Release) -> str:
    """Return the text of CARD.md: what the release was trained on, and how well it scores."""
    card = release.card
    data, training, snippet = card["data"], card["training"], card["snippet"]
    labels = "; ".join(
        f"{label}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}"
        for label, outcomes in card["labels"].items()
    )
    return f"""# {release.name}

Trained {card["made"]} with commit {card["commit"]} on {card["packages"]["backend"]}, seed {training["seed"]}.

{_encoder_text(card["encoder"])}
The forests took {card["forests"]["seconds"]:,} s. They were fitted to at most {training["num_samples_rf"]:,} examples
that the search found in {training["forest_patches"]:,} patches of {data["chans"]:,} channels
({training["backgrounds"]} backgrounds). A snippet has {snippet["rows"]} rows and {snippet["bins"]} bins. Candidates
labelled by people: {labels or "none"}.

The figures below were measured on half of {training["judge_patches"]:,} further patches; the other half calibrated the
forests. They say how well encoder and forest separate signals from the rest of what the search finds. This is
not a recall on the sky, which `./sentinel.py evaluate` measures.

{chr(10).join(_mode_text(mode, card["modes"][mode]) for mode in card["modes"])}
{_kinds_text(card["kinds"])}
```json
{json.dumps({"data": data, "training": training}, indent=1)}
```
"""


def _encoder_text(encoder: dict[str, Any]) -> str:
    """Describe the training of an encoder, and of the encoder that it started from."""
    name = f" of {encoder['name']}" if "name" in encoder else ""
    text = f"""The encoder{name} was trained on {encoder["cadences"]:,} cadences in {encoder["epochs"]} epochs, in
{encoder["seconds"]:,} s on {encoder["devices"]}."""
    if encoder.get("phases"):
        text = "\n".join([text, "", *phase_lines(encoder["phases"]), ""])
    start = encoder.get("start")
    return f"{text}\nIt started from another encoder. {_encoder_text(start)}" if start else text


def _alarms_text(card: dict[str, Any]) -> str:
    """Describe the false alarms that the threshold of a forest allows."""
    if card["alarms"] is None:
        return ""
    return (
        f" It allows {card['alarms']['allowed']:g} false alarms in 100 MHz with {EMITTERS_PER_MHZ:g} interferers per "
        f"MHz, of all kinds alike and SNR 8 to 3,000: {text_of(card['alarms']['kinds'])}."
    )


def add_kinds(
    folder: Path, settings: TrainSettings, examples: ExampleSettings | None = None, *, measure_seed: int
) -> Release:
    """Fit a forest of kinds, write it into the folder of a release, and return the release. Other forests stay.

    Args:
        folder: of the release.
        settings: of the training; the seed is best that of the release.
        examples: what patches contain.
        measure_seed: of the patches that measure the forest.

    Raises:
        ReleaseError: the folder holds no release.
    """
    card = read_release(folder).card
    lines = line_sets(settings, examples or ExampleSettings(), measure_seed=measure_seed)
    kinds = {**train_kinds(folder, lines, settings), "commit": code_commit(), "measure_seed": measure_seed}
    return write_card(folder, {**card, "kinds": kinds})


def _kinds_text(card: dict[str, Any]) -> str:
    learned = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in sorted(card["learned"].items()))
    seed = f" of seed {card['measure_seed']}" if "measure_seed" in card else ""
    return f"""## kinds

The forest of kinds reads measurements; the latents add nothing to them. It was fitted to lines that the gates let pass
or that an OFF vetoes, in {card["patches"]["fit"]:,} simulated patches ({learned}), and calibrated on
{card["calibrated"]:,} others by the power {card["power"]:g} of the shares of trees. The figures below are those of
{card["patches"]["measure"]:,} further patches{seed}. Several lines may belong to one emitter, so they are not
independent. Its probabilities assume that kinds are as frequent as in these patches, where interference that
resembles a signal is drawn more often than in a real band.

{metrics_text(card["metrics"], card["names"])}"""


def _mode_text(mode: str, card: dict[str, Any]) -> str:
    metrics, learned = card["metrics"], card["learned"]
    inputs = " + ".join([*card["latents"], *(["measurements"] if card["measurements"] else [])])
    recalls = {name: by_snr for name, by_snr in metrics.items() if name.startswith("recall_at_")}
    rates = (f"recall at {100 * float(name.removeprefix('recall_at_')):g}%" for name in recalls)
    rows = [
        ["SNR", *rates],
        ["---"] * (1 + len(recalls)),
        *([snr, *(f"{by_snr[snr]:.3f}" for by_snr in recalls.values())] for snr in next(iter(recalls.values()))),
    ]
    return f"""## {mode}

The forest reads {inputs}. It was fitted to {learned["signals"]:,} signals and {learned["others"]:,} other examples,
{card["labelled"]:,} of them labelled by people. Threshold {card["threshold"]:.4f}.{_alarms_text(card)}
The table gives the recall, by SNR of the faintest ON, at rates of false alarms per window with at least
{FEWEST_ALARMS} expected false alarms. It was measured on {metrics["signals"]:,} signals and {metrics["others"]:,} other
examples in {metrics["windows"]:,} windows.

{"".join(f"| {' | '.join(row)} |{chr(10)}" for row in rows)}"""
