"""Canaries: small simulated cadences that run through the whole service, from files in a folder to a recorded search.

The search must find the tone in a canary, or `status` is critical. A canary makes no candidates and no messages, and is
left out of counts: its result is recorded in the `injection` table, then its files and other rows are deleted.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from sentinel.config import Config
from sentinel.injection.tone import is_tone, tone_columns, write_sky
from sentinel.programs.program import die_with_parent
from sentinel.store.queue import Store
from sentinel.store.schema import CANARY, attempt, cadence, cadence_file, cadences_below, file, injection, now

LOG = logging.getLogger(__name__)
STRAY_S = 3600.0
"""A hidden folder older than this was left by a process that died."""


def write_canary(folder: Path, seed: int) -> dict[str, float]:
    """Write six files with a tone in them; return the tone's columns of the `injection` table.

    A separate process writes them and ends, because the simulation code would otherwise stay in memory.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=die_with_parent) as pool:
        return pool.submit(_write, folder, seed).result()


def _write(folder: Path, seed: int) -> dict[str, float]:
    _, tone = write_sky(folder, seed, ".h5", CANARY)
    return tone_columns(tone, tone.frequency_mhz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Lands a canary when one is due, and records the result of earlier ones."""

    config: Config
    store: Store
    write: Callable[[Path, int], Mapping[str, float]] = write_canary

    def tend(self) -> None:
        """Land a canary if one is due; record and delete those that are searched or overdue."""
        every_s = self.config.injections.canary_s
        canary, overdue_s = injection.c.kind == "canary", 10 * self.config.injections.alarm_s
        columns = (injection, (now() - injection.c.made_at).label("age_s"))
        with self.store.read() as rows:
            last_s = rows.scalar(
                select(now() - injection.c.made_at).where(canary).order_by(injection.c.id.desc()).limit(1)
            )
            waiting = rows.execute(select(*columns).where(canary, injection.c.recovered.is_(None))).mappings().all()
        for row in waiting:
            self._record(row, overdue=row["age_s"] > overdue_s)
        recent = last_s is not None and 0 <= last_s <= every_s  # below 0: the clock was set back
        if self.config.sends_canaries and not waiting and not recent:
            self._land()

    def _land(self) -> None:
        folder = self.config.canaries
        for stray in folder.glob(".*"):
            if time.time() - stray.stat().st_mtime > STRAY_S:  # a newer one may be another host's
                shutil.rmtree(stray)
        with self.store.read() as rows:
            seed = int(rows.scalars(select(now())).one())
        hidden, name = folder / f".{seed}", str(seed)
        hidden.mkdir(parents=True)
        try:
            tone = self.write(hidden, seed)
            with self.store.write() as rows:
                rows.execute(insert(injection).values(kind="canary", name=name, made_at=now(), **tone))
            hidden.rename(folder / name)  # all files appear at once
        except Exception:  # the next attempt is seconds away, and these files would fill the disk
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    def _record(self, canary: RowMapping, *, overdue: bool) -> None:
        folder = self.config.canaries / canary["name"]
        member = cadence.c.id.in_(cadences_below(folder))
        with self.store.write() as rows:
            done = select(cadence).where(member, cadence.c.run.is_not(None), cadence.c.state == "done")
            row = rows.execute(done).first()
            if row is None and not overdue:
                return
            found = row.run.get("found", ()) if row else ()
            matches = [probability for mhz, drift, probability in found if is_tone(canary, mhz, drift)]
            values = {"recovered": bool(matches), "probability": max(matches, default=None)}
            ended = {"ended_at": row.ended_at, "release_sha256": row.run["release"]} if row else {"ended_at": now()}
            rows.execute(update(injection).where(injection.c.id == canary["id"]).values(**values, **ended))
            _delete_cadences(rows, list(rows.scalars(select(cadence.c.id).where(member))))
            rows.execute(delete(file).where(file.c.path.startswith(f"{folder}/", autoescape=True)))
        shutil.rmtree(folder, ignore_errors=True)
        if matches:
            LOG.info("canary %s: tone recovered", canary["name"])
        else:
            LOG.error("canary %s: tone not found", canary["name"])


def _delete_cadences(rows: Connection, ids: Sequence[int]) -> None:
    for table in (attempt, cadence_file):
        rows.execute(delete(table).where(table.c.cadence_id.in_(ids)))
    rows.execute(delete(cadence).where(cadence.c.id.in_(ids)))
