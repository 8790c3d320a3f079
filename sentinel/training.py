"""What a training and the service have to do with each other: its stages in the store, one message, people's labels."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from tqdm import tqdm

from aetherscan.errors import CadenceError, ReadError
from aetherscan.examples import Examples
from aetherscan.io import open_observation
from aetherscan.recut import recut
from sentinel.errors import PostError, StoreError
from sentinel.messages import plain
from sentinel.outbox import Message
from sentinel.schema import labeled, now, training
from sentinel.store import Store

LOG = logging.getLogger(__name__)
LABELS = {"candidate": 1.0, "RFI": 0.0}
"""What is learned from a label; from `unsure`, nothing."""
SHOWN = 12
"""Stages in a message, the last ones."""


@dataclass(slots=True, kw_only=True)
class Journal:
    """Writes each stage of a training into the store, and says in one message, edited in place, how far it is.

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
        if self.poster is None:
            return
        text = "\n".join([f"*Training {plain(self.run)}*", "```", *self._lines[-SHOWN:], "```"])
        try:
            if self._ts:
                self.poster.edit(self._ts, text)
            else:
                self._ts = self.poster.post(_message(self.run, text), repeat=False)
        except PostError:
            LOG.exception("training %s: nobody was told", self.run)


def _message(run: str, text: str) -> Message:
    values: dict[str, Any] = dict.fromkeys(Message.__dataclass_fields__)
    return Message(**{**values, "id": 0, "uid": f"training-{run}", "text": text, "pictures": (), "attempts": 1})


def labelled(store: Store, shape: tuple[int, int], tell: Callable[[str], object]) -> Examples | None:
    """Return what people judged, cut out of the recorded files again; None where there is nothing.

    Latents on the rows are of the encoder that was used, and mean nothing to another: where files are gone, so is the
    example. How many there were is told.
    """
    with store.read() as rows:
        judged = [row for row in rows.execute(labeled()).mappings() if row["label"] in LABELS]
    found, lost = list[Examples](), 0
    for row in judged:
        paths, pattern = store.paths(row["cadence_id"]), store.pattern(row["cadence_id"])
        on = tuple(i for i, letter in enumerate(pattern) if letter == "A")
        try:
            one = _cut(paths, row["frequency_mhz"], LABELS[row["label"]], on, shape) if len(paths) == 6 else None
        except (ReadError, CadenceError, OSError) as error:
            LOG.warning("candidate %d: %s", row["id"], error)
            one = None
        found, lost = (found, lost + 1) if one is None else ([*found, one], lost)
    if judged:
        tell(
            f"labels: {len(found)} of {len(judged)} join the training; the files of {lost} are gone or show it no more"
        )
    return Examples.join(found) if found else None


def _cut(
    paths: tuple[Path, ...], frequency_mhz: float, label: float, on: tuple[int, ...], shape: tuple[int, int]
) -> Examples | None:
    with ExitStack() as opened:
        return recut([opened.enter_context(open_observation(path)) for path in paths], frequency_mhz, label, on, shape)
