"""A small cadence that lands in a folder of its own, is watched, queued, searched and recorded like any other.

It must come back with its tone found. No candidate, message or count ever speaks of it: what a search finds in one goes
no further than its own row, and once it has ended its files and rows are removed.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sqlalchemy import Connection, RowMapping, delete, exists, func, insert, select, update

from sentinel.config import Config
from sentinel.injection.tone import is_tone, tone_columns, write_sky
from sentinel.programs.program import die_with_parent
from sentinel.store.queue import Store
from sentinel.store.schema import CANARY, attempt, cadence, cadence_file, file, injection, now

LOG = logging.getLogger(__name__)
STRAY_S = 3600.0


def write_canary(folder: Path, seed: int) -> dict[str, float]:
    """Write six files with a tone in them; return what the injection's row says of it.

    A process that ends does: what makes a sky would stay in memory, for an hour of doing nothing.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=die_with_parent) as apart:
        return apart.submit(_write, folder, seed).result()


def _write(folder: Path, seed: int) -> dict[str, float]:
    _, tone = write_sky(folder, seed, ".h5", CANARY)
    return tone_columns(tone, tone.frequency_mhz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Lands a canary when one is due, and notes what became of the last."""

    config: Config
    store: Store
    write: Callable[[Path, int], Mapping[str, float]] = write_canary

    def tend(self) -> None:
        """Land a canary if one is due; judge and sweep those that have ended or are lost."""
        every_s = self.config.injections.canary_s
        canary, lost = injection.c.kind == "canary", 10 * self.config.injections.alarm_s
        with self.store.read() as rows:
            last_s = rows.scalar(select(now() - func.max(injection.c.made_at)).where(canary))
            waiting = (
                rows.execute(
                    select(injection, (now() - injection.c.made_at).label("age_s")).where(
                        canary, injection.c.recovered.is_(None)
                    )
                )
                .mappings()
                .all()
            )
        for one in waiting:
            self._judge(one, lost=one["age_s"] > lost)
        if self.config.sends_canaries and not waiting and (last_s is None or last_s > every_s):
            self._land()

    def _land(self) -> None:
        folder = self.config.canaries
        for stray in folder.glob(".*"):
            if time.time() - stray.stat().st_mtime > STRAY_S:  # who wrote it died; another host's may be fresh
                shutil.rmtree(stray)
        with self.store.read() as rows:
            seed = int(rows.scalars(select(now())).one())
        hidden, name = folder / f".{seed}", str(seed)
        hidden.mkdir(parents=True)
        tone = self.write(hidden, seed)
        with self.store.write() as rows:
            rows.execute(insert(injection).values(kind="canary", name=name, made_at=now(), **tone))
        hidden.rename(folder / name)  # whole at once: its landing is the moment that is noted

    def _judge(self, one: RowMapping, *, lost: bool) -> None:
        below = file.c.path.startswith(f"{self.config.canaries / one['name']}/", autoescape=True)
        seen = select(file.c.observation).where(below, file.c.observation.is_not(None))
        member = exists().where(cadence_file.c.cadence_id == cadence.c.id, cadence_file.c.observation.in_(seen))
        with self.store.write() as rows:
            row = rows.execute(
                select(cadence).where(member, cadence.c.run.is_not(None), cadence.c.state == "done")
            ).first()
            if row is None and not lost:
                return
            back = [p for mhz, drift, p in (row.run.get("found", ()) if row else ()) if is_tone(one, mhz, drift)]
            values = {"recovered": bool(back), "probability": max(back, default=None)}
            ended = {"ended_at": row.ended_at, "release_sha256": row.run["release"]} if row else {"ended_at": now()}
            rows.execute(update(injection).where(injection.c.id == one["id"]).values(**values, **ended))
            _forget(rows, list(rows.scalars(select(cadence.c.id).where(member))))
            rows.execute(delete(file).where(below))
        shutil.rmtree(self.config.canaries / one["name"], ignore_errors=True)
        LOG.log(
            logging.INFO if back else logging.ERROR, "canary %s %s", one["name"], "came back" if back else "was lost"
        )


def _forget(rows: Connection, ids: Sequence[int]) -> None:
    for table in (attempt, cadence_file):
        rows.execute(delete(table).where(table.c.cadence_id.in_(ids)))
    rows.execute(delete(cadence).where(cadence.c.id.in_(ids)))
