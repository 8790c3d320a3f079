"""Fill a store with a simulated night: candidates of persistent emitters, chance lines and injected signals.

The rows are invented; the waterfalls are drawn from simulated observations of each kind of line, and shared by the
candidates of that kind. `benchmarks/desk.py` measures and pictures the pages of such a store.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from aetherscan.header import gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import Config
from sentinel.store.injected import put_injected, record_injected
from sentinel.store.labels import put_labels
from sentinel.store.queue import Store
from sentinel.store.schema import artefact, attempt, cadence, candidate, heartbeat, injection, now, release
from sentinel.workers.pictures import waterfalls

PATTERN = "ABACAD"
STEP_DAYS = 341 / 86_400
CADENCE_DAYS = 6.5 * STEP_DAYS
NCHANS = 8192
TARGETS = ("HIP99427", "HIP27913", "HIP110750", "TIC 27677846", "TRAPPIST-1", "GJ 699", "KIC 8462852", "HIP1444")
LATENTS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of line: what it looks like in the six observations, and how often a night has it.

    Attributes:
        snr: in each observation.
        drift_hz_s: of the simulated line.
        width_hz: of the simulated line.
        share: of the candidates.
        persistent: whether it is at the same frequencies in all cadences.
        probability: lowest and highest.
        named: kind that a release names most of them.
        strangeness: mean.
    """

    snr: tuple[float, ...]
    drift_hz_s: float
    width_hz: float
    share: float
    persistent: bool
    probability: tuple[float, float]
    named: str = "signal"
    strangeness: float = 0.4


KINDS = {
    "signal": Kind(
        snr=(38, 0, 41, 0, 36, 0), drift_hz_s=0.31, width_hz=4, share=0.01, persistent=False, probability=(0.9, 1)
    ),
    "faint": Kind(
        snr=(9, 0, 8, 0, 10, 0), drift_hz_s=-0.12, width_hz=3, share=0.04, persistent=False, probability=(0.5, 0.9)
    ),
    "side lobe": Kind(
        snr=(22, 3, 17, 2, 25, 4),
        drift_hz_s=0.0,
        width_hz=6,
        share=0.35,
        persistent=True,
        probability=(0.3, 0.7),
        named="side_lobe",
        strangeness=1.2,
    ),
    "clock": Kind(
        snr=(14, 2, 16, 3, 12, 1),
        drift_hz_s=0.01,
        width_hz=3,
        share=0.25,
        persistent=True,
        probability=(0.2, 0.6),
        named="side_lobe",
        strangeness=1.1,
    ),
    "satellite": Kind(
        snr=(60, 2, 48, 0, 71, 3),
        drift_hz_s=-1.6,
        width_hz=14,
        share=0.2,
        persistent=True,
        probability=(0.3, 0.8),
        named="drifting",
        strangeness=1.8,
    ),
    "chance": Kind(
        snr=(8, 1, 7, 2, 9, 0), drift_hz_s=0.6, width_hz=3, share=0.15, persistent=False, probability=(0.2, 0.6)
    ),
}


def draw_kinds(config: Config, scratch: Path, mjd: float) -> dict[str, tuple[str, str]]:
    """Draw one waterfall of each kind, of files in a folder that were recorded at a time; return path and sha256."""
    drawn = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        folder = scratch / name.replace(" ", "-")
        folder.mkdir(parents=True)
        header = replace(gbt_header(NCHANS, source_name=TARGETS[number % len(TARGETS)]), tstart=mjd)
        mhz = header.frequency(0.37 * NCHANS)
        emitter = Emitter(frequency_mhz=mhz, drift_hz_s=kind.drift_hz_s, width_hz=kind.width_hz, snr=kind.snr)
        paths = write_cadence(folder, Sky(header=header, emitters=(emitter,)), number, suffix=".fil")
        row = _row(np.random.default_rng(number), name, mhz, header.tstart, header.source_name) | {"valid": [1.0] * 6}
        shown = {**row, "drift_rate_hz_s": kind.drift_hz_s, "snr": list(kind.snr)}
        path = config.pictures / f"{folder.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        for draw in waterfalls(paths, PATTERN, [shown]):
            path.write_bytes(content := draw())
            drawn[name] = (str(path), hashlib.sha256(content).hexdigest())
    return drawn


def _row(rng: np.random.Generator, name: str, mhz: float, mjd: float, target: str) -> dict[str, Any]:
    kind = KINDS[name]
    brightness = float(rng.lognormal(0, 0.35))
    snr = [round(max(0.0, value * brightness + rng.normal(0, 0.6)), 2) for value in kind.snr]
    drift = kind.drift_hz_s + float(rng.normal(0, 0.05))
    center = np.random.default_rng(hash_of(name)).normal(0, 1, LATENTS)
    turn = hash_of(target) % 360
    return {
        "frequency_mhz": mhz,
        "drift_rate_hz_s": drift,
        "curvature_hz_s2": 0.0,
        "drift_nhz": drift / mhz * 1e3,
        "bandwidth_hz": kind.width_hz * float(rng.uniform(0.8, 1.3)),
        "snr": snr,
        "valid": [1.0] * 6,
        "joint_snr": sum(snr[::2]) / 3**0.5,
        "valid_share": 1.0,
        "probability": float(rng.uniform(*kind.probability)),
        "probability_spread": float(rng.uniform(0.01, 0.08)),
        "strangeness": float(rng.gamma(2, kind.strangeness / 2)),
        "kind": kind.named,
        "kind_probability": float(rng.uniform(0.6, 0.99)),
        "rfi_density": float(rng.gamma(3, 0.9 if name in {"signal", "faint"} else 4)),
        "latents": [],
        "latents_f32": [float(value) for value in center + rng.normal(0, 0.3, LATENTS)],
        "proposer_score": max(snr),
        "target": target,
        "tstart_mjd": mjd,
        "telescope": "GBT",
        "ra_deg": float(turn),
        "dec_deg": float(turn / 4 - 40),
        "barycentric_mhz": mhz * (1 + 2e-5),
        "mode": "tracks",
        "scored_by": "forest",
        "release_name": "equinox",
        "release_sha256": "ab" * 32,
        "code_version": "0.1.0",
        "config_sha256": "cd" * 32,
        "binning": 1,
        "allocations": "GPS L1" if name == "satellite" else "",
        "clock": "multiple of 10 MHz" if name == "clock" else "",
        "comb_teeth": 7 if name == "clock" else 0,
        "comb_spacing_hz": 1e6 if name == "clock" else None,
        "neighbours": int(rng.integers(0, 4)),
        "nearest_hz": float(rng.uniform(50, 9000)),
        "seen_before": int(rng.integers(3, 60)) if kind.persistent else 0,
        "seen_cadences": int(rng.integers(12, 40)) if kind.persistent else 0,
        "seen_of": 40,
        "seen_targets": int(rng.integers(3, 8)) if kind.persistent else 0,
        "last_seen_mjd": mjd - CADENCE_DAYS if kind.persistent else None,
        "note": "",
        "on_separation_arcmin": 0.0,
    }


def hash_of(text: str) -> int:
    """Return a number that depends on a text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def fill(
    store: Store, pictures: dict[str, tuple[str, str]], *, cadences: int, each: int, seed: int, mjd: float
) -> None:
    """Fill a store with a night.

    Args:
        store: empty.
        pictures: path and sha256 of the waterfall of each kind; without, candidates have none.
        cadences: that were searched.
        each: candidates of a cadence.
        seed: of all draws.
        mjd: when the night begins.
    """
    rng = np.random.default_rng(seed)
    names, shares = list(KINDS), [kind.share for kind in KINDS.values()]
    homes = {name: rng.uniform(1400, 1800, 5) for name in names}
    with store.write() as rows:
        rows.execute(insert(release).values(sha256="ab" * 32, name="equinox", first_used_at=now()))
        rows.execute(insert(heartbeat).values(name="watcher", at=now(), period_s=10, pid=1, host="night", facts={}))
    for number in range(cadences):
        start, target = mjd + number * CADENCE_DAYS / 4, TARGETS[int(rng.integers(len(TARGETS)))]
        found = []
        for kind in rng.choice(names, each, p=np.array(shares) / sum(shares)):
            place = rng.choice(homes[kind]) if KINDS[kind].persistent else rng.uniform(1400, 1800)
            row = _row(rng, str(kind), float(place + rng.normal(0, 3e-4)), start, target)
            found.append((str(kind), {**row, "picture": pictures[kind][0] if pictures else None}))
        _record(store, number, start, target, sorted(found, key=lambda each: -each[1]["probability"]), pictures, rng)


def _record(
    store: Store, number: int, start: float, target: str, found: list[Any], pictures: dict[str, Any], rng: Any
) -> None:
    token = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    took = float(rng.gamma(4, 6))
    run = {"counts": {"hits": 900 + len(found), "tracks": 210, "candidates": len(found)}, "release": "ab" * 32}
    with store.write() as rows:
        ended = {"stable_at": now() - 60 - took, "landed_at": now() - 70 - took, "ended_at": now() - 60}
        of_cadence = {"key": token, "state": "done", "target": target, "pattern": PATTERN, "tstart": start, "run": run,
                      "band_low_mhz": 1400.0, "band_high_mhz": 1800.0, "created_at": now() - 80, "attempts": 1,
                      "ready_at": now() - 60 - took, "token": token}  # fmt: skip
        made = rows.scalars(insert(cadence).values(**of_cadence, **ended).returning(cadence.c.id)).one()
        tried = {"cadence_id": made, "number": 1, "token": token, "outcome": "done", "worker": "night/1"}
        times = {"started_at": now() - 60 - took * 0.8, "ended_at": now() - 60}
        attempt_id = rows.scalars(insert(attempt).values(**tried, **times).returning(attempt.c.id)).one()
        whole = [{**row, "cadence_id": made, "attempt_id": attempt_id} for _, row in found]
        ids = list(rows.scalars(insert(candidate).returning(candidate.c.id, sort_by_parameter_order=True), whole))
        drawn = [
            {"cadence_id": made, "candidate_id": row_id, "kind": "waterfall"}
            | dict(zip(("path", "sha256"), pictures[kind], strict=True))
            for row_id, (kind, _) in zip(ids, found, strict=True)
            if pictures
        ]
        if drawn:
            rows.execute(insert(artefact), drawn)
        snr = float(np.exp(rng.uniform(np.log(10), np.log(100))))
        tone = {"frequency_mhz": 1500.0, "drift_rate_hz_s": 0.3, "width_hz": 4.0, "snr": snr, "kind": "blind"}
        result = {"recovered": bool(rng.random() < 1 - 3 / snr), "made_at": now(), "ended_at": now()}
        rows.execute(insert(injection).values(name=f"blind{number}", **tone, **result))


def review(store: Store, count: int, seed: int) -> None:
    """Let two people label injected signals; they miss some."""
    rng = np.random.default_rng(seed)
    with store.read() as rows:
        made = rows.execute(select(injection.c.id, injection.c.frequency_mhz).limit(count)).all()
        last = rows.execute(select(candidate.c.cadence_id, candidate.c.attempt_id).limit(1)).one()
    for entry in made:
        row = _row(rng, "signal", entry.frequency_mhz, 0.0, TARGETS[0]) | dict(last._mapping)  # noqa: SLF001
        with store.write() as rows:
            number = record_injected(rows, entry.id, row, {})
            for person, missed in (("anna", 0.1), ("ben", 0.25)):
                word = "candidate" if rng.random() > missed else str(rng.choice(["RFI", "unsure"]))
                put_injected(rows, [number], word, person)


def label_some(store: Store, share: float, seed: int) -> None:
    """Let two people label a share of the candidates; they disagree on some."""
    rng = np.random.default_rng(seed)
    with store.read() as rows:
        known = rows.execute(select(candidate.c.id, candidate.c.seen_cadences, candidate.c.probability)).all()
    words = {
        row.id: "RFI" if row.seen_cadences else "candidate" if row.probability > 0.9 else "unsure" for row in known
    }
    chosen = rng.choice(list(words), int(share * len(words)), replace=False)
    for word in sorted(set(words.values())):
        ids = [int(each) for each in chosen if words[int(each)] == word]
        for first in range(0, len(ids), 50):
            with store.write() as rows:
                put_labels(rows, ids[first : first + 50], word, "anna", via="page")
                other = "RFI" if word != "RFI" else "unsure"
                if len(ids) > 20:
                    put_labels(rows, ids[first : first + 3], other, "ben", via="page")
