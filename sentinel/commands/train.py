"""What a training and the service have to do with each other: its stages in the store, one message, people's labels."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from tqdm import tqdm

from aetherscan.errors import FormatError
from aetherscan.train.examples import Examples
from aetherscan.train.labels import unpacked
from sentinel.errors import PostError, StoreError
from sentinel.notify.messages import plain
from sentinel.notify.outbox import Message
from sentinel.store.queue import Store
from sentinel.store.schema import artefact, labeled, now, training

LOG = logging.getLogger(__name__)
LABELS = {"candidate": 1.0, "RFI": 0.0}
"""What is learned from a label; from `unsure`, nothing."""
SHOWN = 12
"""Stages in a message, the last ones."""


@dataclass(slots=True, kw_only=True)
class TrainingLog:
    """Writes each stage of a training into the store, and says in one message, edited in place, how far it is.

    What it drew comes into the message's thread at the end.

    A store or a Slack that is away does not stop a training: the stage is in its own report in any case.
    """

    run: str
    store: Store
    poster: Any = None  # a SlackPoster; None: nobody is told
    _lines: list[str] = field(default_factory=list)
    _ts: str | None = None

    def note(self, stage: Mapping[str, Any]) -> None:
        """Take a finished stage."""
        facts = {key: value for key, value in stage.items() if key not in {"stage", "seconds"}}
        row = {"run": self.run, "stage": stage["stage"], "seconds": stage["seconds"], "facts": facts}
        try:
            with self.store.write() as rows:
                rows.execute(insert(training).values(**row, at=now()))
        except StoreError:
            LOG.exception("training %s: %s is not in the store", self.run, stage["stage"])
        shown = ", ".join(f"{key} {facts[key]:.4g}" for key in ("loss", "val_loss", "threshold") if key in facts)
        self.say(f"{stage['stage']}: {stage['seconds']:.0f} s{', ' if shown else ''}{shown}")

    def say(self, line: str) -> None:
        """Print a line, above the progress bar where there is one, and add it to the message."""
        tqdm.write(line)
        self._lines.append(plain(line))
        text = "\n".join([f"*Training {plain(self.run)}*", "```", *self._lines[-SHOWN:], "```"])
        if ts := self._ts:
            self._ask(methodcaller("edit", ts, text))
        else:
            self._ts = self._ask(methodcaller("post", _message(self.run, text), repeat=False))

    def show(self, folder: Path) -> None:
        """Put the pictures in a folder into the message's thread."""
        if ts := self._ts:
            for picture in sorted(folder.glob("*.png")):
                self._ask(methodcaller("upload", ts, str(picture)))

    def _ask(self, what: Callable[[Any], Any]) -> Any:
        """Return what Slack answers, None where there is none or it cannot be told."""
        if self.poster is None:
            return None
        try:
            return what(self.poster)
        except PostError:
            LOG.exception("training %s: nobody was told", self.run)
            return None


def _message(run: str, text: str) -> Message:
    values: dict[str, Any] = dict.fromkeys(Message.__dataclass_fields__)
    return Message(**{**values, "id": 0, "uid": f"training-{run}", "text": text, "pictures": (), "attempts": 1})


def labelled(store: Store, shape: tuple[int, int]) -> tuple[Examples | None, dict[str, dict[str, int]]]:
    """Return the examples that people judged, None where there are none, and what became of each label.

    Latents on the rows are of the encoder that was used, and mean nothing to another; observations are moved away. So
    each candidate that is drawn has what its release was shown beside its picture, and that is learned from.
    """
    kept = select(artefact.c.candidate_id, artefact.c.path).where(artefact.c.kind == "example")
    with store.read() as rows:
        judged = [row for row in rows.execute(labeled()).mappings() if row["label"] in LABELS]
        paths = {one.candidate_id: Path(one.path) for one in rows.execute(kept)}
    found, became = list[Examples](), {label: Counter[str]() for label in LABELS}
    for row in judged:
        why = "joined"
        try:
            found.append(unpacked(paths[row["id"]], LABELS[row["label"]], shape))
        except KeyError:
            why = "nothing was kept"
        except FormatError as error:
            why = "another shape, or measured otherwise"
            LOG.warning("candidate %d: %s", row["id"], error)
        except OSError as error:
            why = "its file is gone"
            LOG.warning("candidate %d: %s", row["id"], error)
        became[row["label"]][why] += 1
    return Examples.join(found) if found else None, {label: dict(of) for label, of in became.items() if of}
