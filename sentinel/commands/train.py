"""Train a release from the service: with the labels of its candidates, and with a log in Slack."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import select
from tqdm import tqdm

from aetherscan.errors import FormatError
from aetherscan.options.train import TrainSettings
from aetherscan.train.examples import Examples
from aetherscan.train.labels import read_labelled
from sentinel.config import Config
from sentinel.errors import PostError
from sentinel.notify.messages import escaped
from sentinel.notify.outbox import Message
from sentinel.notify.slack import SlackPoster
from sentinel.store.labels import disagreed
from sentinel.store.queue import Store
from sentinel.store.schema import artefact, labeled

LOG = logging.getLogger(__name__)
LABELS = {"candidate": 1.0, "RFI": 0.0}
"""Class of each label in the training of a forest; `unsure` is not used."""
RESULTS = ("loss", "reconstruction", "kl", "clustering", "val_loss", "threshold")
"""Results of a stage that are logged."""
LINES = 12
"""Most lines of the message: the last ones."""


def run(config: Config, settings: TrainSettings, folder: Path | None, store: Store | None) -> None:
    """Train a release, and log the training in Slack.

    Args:
        config: of the service.
        settings: of the training.
        folder: of the new release; None: named by the settings.
        store: that holds the labels, if there is one.
    """
    from aetherscan.train.folders import checkpoints_of
    from aetherscan.train.quiet import quiet_tensorflow

    with quiet_tensorflow():  # Keras takes seconds to load
        from aetherscan.train.pipeline import train
    folder = folder or settings.model_path / settings.tag()
    report = settings.output_path / folder.name
    poster = SlackPoster(config.slack_channel, config.slack.api_url) if config.slack_channel else None
    log = TrainingLog(run=folder.name, poster=poster)
    log.say(f"checkpoints: {checkpoints_of(settings, folder.name)}; logs: {report}")
    examples, labels = labeled_examples(store, (settings.time_bins, settings.bins)) if store else (None, {})
    for label, outcomes in labels.items():
        log.say(f"labels, {label}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")
    release = train(folder, settings, labelled=examples, labels=labels, tell=log.say, note=log.note)
    log.say(f"release: {folder}, sha256 {release.sha256}")
    log.say(f"card: {folder / 'CARD.md'}; report: {report / 'training.html'}")
    log.show(report)


@dataclass(slots=True, kw_only=True)
class TrainingLog:
    """Log the stages of a training in one Slack message, which is edited with each stage.

    `show` adds the figures to the thread of the message. If Slack fails, the training continues: its report holds
    every stage.
    """

    run: str
    poster: Any = None  # a SlackPoster; None: no message
    _lines: list[str] = field(default_factory=list)
    _ts: str | None = None

    def note(self, stage: Mapping[str, Any]) -> None:
        """Log a finished stage."""
        results = [f"{key} {stage[key]:.4g}" for key in RESULTS if key in stage]
        self.say(", ".join([f"{stage['stage']}: {stage['seconds']:.0f} s", *results]))

    def say(self, line: str) -> None:
        """Print a line, above a progress bar if there is one, and add it to the message."""
        tqdm.write(line)
        self._lines.append(escaped(line))
        text = "\n".join([f"*Training {escaped(self.run)}*", "```", *self._lines[-LINES:], "```"])
        if ts := self._ts:
            self._call(methodcaller("edit", ts, text))
        else:
            self._ts = self._call(methodcaller("post", _message(self.run, text), repeat=False))

    def show(self, folder: Path) -> None:
        """Upload the figures in a folder to the thread of the message."""
        if ts := self._ts:
            for picture in sorted(folder.glob("*.png")):
                self._call(methodcaller("upload", ts, str(picture)))

    def _call(self, request: Callable[[Any], Any]) -> Any:
        """Return the reply of Slack; None without Slack or if the request fails."""
        if self.poster is None:
            return None
        try:
            return request(self.poster)
        except PostError:
            LOG.exception("training %s: the Slack message was not updated", self.run)
            return None


def _message(run: str, text: str) -> Message:
    values: dict[str, Any] = dict.fromkeys(Message.__dataclass_fields__)
    return Message(**{**values, "id": 0, "uid": f"training-{run}", "text": text, "pictures": (), "attempts": 1})


def labeled_examples(store: Store, shape: tuple[int, int]) -> tuple[Examples | None, dict[str, dict[str, int]]]:
    """Return the candidates that people labeled as training examples, and how many of each label were used.

    An example is read from the snippet and measurements saved with the picture of the candidate: the latents in the
    store belong to another encoder, and the observation may be gone.

    Args:
        store: with candidates and labels.
        shape: rows and bins of a snippet.

    Returns:
        The examples, None if there are none; and for each label, the number of candidates by outcome.
    """
    saved = select(artefact.c.candidate_id, artefact.c.path).where(artefact.c.kind == "example")
    with store.read() as rows:
        rated = [row for row in rows.execute(labeled()).mappings() if row["label"] in LABELS and not row["superseded"]]
        paths = {row.candidate_id: Path(row.path) for row in rows.execute(saved)}
        disputed = set(rows.scalars(disagreed()))
    examples, outcomes = list[Examples](), {label: Counter[str]() for label in LABELS}
    for row in rated:
        outcome = "used"
        if row["id"] in disputed:
            outcomes[row["label"]]["that people label differently"] += 1
            continue
        try:
            examples.append(read_labelled(paths[row["id"]], LABELS[row["label"]], shape))
        except KeyError:
            outcome = "without a saved example"
        except FormatError as error:
            outcome = "with another shape or other measurements"
            LOG.warning("candidate %d: %s", row["id"], error)
        except OSError as error:
            outcome = "with an unreadable file"
            LOG.warning("candidate %d: %s", row["id"], error)
        outcomes[row["label"]][outcome] += 1
    used = {label: dict(counts) for label, counts in outcomes.items() if counts}
    return Examples.join(examples) if examples else None, used
