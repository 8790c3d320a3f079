"""Signals of our own, by which it is known what would be found; no candidate, message or count ever speaks of one.

A *canary* is a small cadence that lands in a folder of its own, is watched, queued, searched and recorded like any
other, and must come back with its tone found. Its candidates go no further than its own row, and once it has ended its
files and rows are removed. A *blind* injection is a tone added to the power of a live cadence, as it is read a second
time: one coarse channel, after the real search has been recorded, so that no row of it can depend on it.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from sqlalchemy import Connection, RowMapping, delete, exists, func, insert, select, update

from aetherscan.inject import Emitter, add_emitter
from aetherscan.io import Observation, open_observation
from aetherscan.observation import SECONDS_PER_DAY
from aetherscan.search import SearchSettings, search_cadence
from aetherscan.simulate import log_uniform
from sentinel.config import Config
from sentinel.demo import is_tone, write_sky
from sentinel.schema import CANARY, attempt, cadence, cadence_file, file, injection, now
from sentinel.store import Store

LOG = logging.getLogger(__name__)
CLEAR_OF_EDGES = (0.1, 0.45)
"""Where in either half of a coarse channel a blind tone lies: neither in the filter's flanks nor on the spike."""
BLIND_SNR = (10.0, 100.0)
BLIND_WIDTH_HZ = (1.0, 20.0)
STRAY_S = 3600.0
NOISE_CHANNELS = 2048
"""To either side of a tone, in which the noise that its SNR counts in is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Lands a canary when one is due, and notes what became of the last."""

    config: Config
    store: Store
    write: Callable[..., Any] = write_sky

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
        _, tone = self.write(hidden, seed, ".h5", CANARY)
        with self.store.write() as rows:
            rows.execute(
                insert(injection).values(kind="canary", name=name, made_at=now(), **_columns(tone, tone.frequency_mhz))
            )
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


def _columns(tone: Emitter, frequency_mhz: float) -> dict[str, float]:
    widest = {"width_hz": tone.width_hz, "snr": max(tone.snr)}
    return {"frequency_mhz": frequency_mhz, "drift_rate_hz_s": tone.drift_hz_s, **widest}


class Injected(Observation):
    """A part of an observation's band, read as it is with a tone added."""

    def __init__(
        self, observation: Observation, first: int, width: int, tone: Emitter, position: int, start_s: float
    ) -> None:
        self._real, self._first, self._tone, self._position, self._start_s = observation, first, tone, position, start_s
        self.header = replace(observation.header, fch1=observation.header.frequency(first), nchans=width)
        middle = int(self.header.channel(float(tone.track_mhz(np.array([start_s]))[0])))
        low = min(max(middle - NOISE_CHANNELS, 0), max(width - 2 * NOISE_CHANNELS, 0))
        power = observation.read(first + low, first + min(low + 2 * NOISE_CHANNELS, width))
        level = np.median(power, axis=1, keepdims=True)
        self._noise = 1.4826 * np.median(np.abs(power - level), axis=1).astype(np.float64)

    @property
    def chunk_channels(self) -> int:
        """Channels that are decoded together."""
        return self._real.chunk_channels

    def read(
        self, start: int, stop: int, out: Float32[np.ndarray, "time freq"] | None = None
    ) -> Float32[np.ndarray, "time freq"]:
        """Read channels of the part, the tone among them."""
        power = self._real.read(self._first + start, self._first + stop, out)
        at: dict[str, Any] = {
            "fch1": self.header.frequency(start),
            "foff": self.header.foff,
            "tsamp": self.header.tsamp,
        }
        add_emitter(power, self._tone, position=self._position, start_s=self._start_s, noise=self._noise, **at)
        return power


def search_blind(
    paths: Sequence[Path], on: tuple[int, ...], settings: SearchSettings, detector: Any, rng: np.random.Generator
) -> dict[str, Any]:
    """Search one coarse channel of a cadence with a tone put in, and return the injection's columns."""
    with ExitStack() as opened:
        six = [opened.enter_context(open_observation(path)) for path in paths]
        headers = [one.header for one in six]
        nchans = min(header.nchans for header in headers)
        width = min(headers[0].coarse_chans, nchans)
        first = width * int(rng.integers(nchans // width))
        starts_s = [(header.tstart - headers[0].tstart) * SECONDS_PER_DAY for header in headers]
        channel = first + width * (rng.uniform(*CLEAR_OF_EDGES) + rng.choice([0.0, 0.5]))
        snr = log_uniform(rng, *BLIND_SNR)
        tone = Emitter(
            frequency_mhz=headers[0].frequency(channel),
            drift_hz_s=float(rng.uniform(-1, 1)) * settings.max_drift_hz_s,
            width_hz=log_uniform(rng, *BLIND_WIDTH_HZ),
            snr=tuple(snr if i in on else 0.0 for i in range(6)),
        )
        parts = [Injected(one, first, width, tone, i, starts_s[i]) for i, one in enumerate(six)]
        result = search_cadence(parts, detector, settings, on=on)
        at_on = float(tone.track_mhz(np.array([starts_s[on[0]]]))[0])
        columns = _columns(tone, at_on)
    back = [one.probability for one in result.candidates if is_tone(columns, one.frequency_mhz, one.drift_rate_hz_s)]
    ended = {"recovered": bool(back), "probability": max(back, default=None), "release_sha256": detector.release.sha256}
    return {"kind": "blind", **columns, **ended}
