"""Measure what the memory of interference does to side-lobe alarms and to recall, on nights with persistent emitters.

Run from the repository root: `python benchmarks/interference_memory.py [NIGHTS [SEED]]`, by default 5 nights. A night
has twenty pointings at different targets, 43 minutes apart, of 0.73 MHz. It has 30 emitters per MHz, whose frequency
scatters by 200 Hz from pointing to pointing. In 30% of the pointings an emitter is in a side lobe: it has SNR 6 to 60
in the ONs, and 0.12 to 0.35 of that in each OFF. In 40% it is in all six scans, with SNR 3 to 1,000; else it is absent.
Each pointing has eight signals of SNR 6 to 30 at new frequencies. Every pointing is searched with models/equinox, and
its candidates are compared, as the service does it, with the pointings that were searched before.

Printed are the signals found and the side-lobe alarms, if all are kept, and if those are left out at whose frequency
lines were rejected in so many pointings. Then, by probability alone and by the rank of messages: in how many pairs of a
signal and an alarm of one night the signal ranks higher, and how many alarms rank above the lowest signal when the
lowest 2, 5 or 10% of the signals are given up.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sqlalchemy import insert

from aetherscan.detector.detector import load_detector
from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform, random_signal
from aetherscan.simulate.sky import Sky, coarse_blocks, random_levels
from sentinel.notify.messages import rank
from sentinel.store.occupancy import Occupancy, recall, remember
from sentinel.store.queue import Store, open_store
from sentinel.store.schema import cadence, now

POINTINGS, NCHANS, PER_MHZ, SIGNALS = 20, 2**18, 30.0, 8
SAME_HZ, SCATTER_HZ = 50.0, 200.0
LEFT_OUT = (1, 2, 3, 5)
GIVEN_UP = (0.0, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate: what it is, its probability, and in how many of how many earlier pointings lines were rejected."""

    night: int
    is_signal: bool
    probability: float
    seen: int
    of: int


def pointing(rng: np.random.Generator, places: np.ndarray) -> tuple[list[Emitter], list[Emitter]]:
    """Return the emitters of one pointing: those in a side lobe, and the others."""
    lobes, others = [], []
    for mhz in places + rng.normal(0, SCATTER_HZ * 1e-6, len(places)):
        what, drift, width = rng.random(), rng.normal(0, 0.05), log_uniform(rng, 1, 30)
        if what < 0.3:
            snr = log_uniform(rng, 6, 60)
            snrs = tuple(snr * (rng.uniform(0.12, 0.35) if i % 2 else 1.0) for i in range(6))
            lobes.append(Emitter(frequency_mhz=mhz, drift_hz_s=drift, width_hz=width, snr=snrs))
        elif what < 0.7:
            snr = log_uniform(rng, 3, 1000)
            snrs = tuple(snr * rng.uniform(0.7, 1.3) for _ in range(6))
            others.append(Emitter(frequency_mhz=mhz, drift_hz_s=drift, width_hz=width, snr=snrs))
    return lobes, others


def night(store: Store, detector: object, seed: np.random.SeedSequence, number: int) -> Iterator[Row | None]:
    """Yield a row for each candidate that is a signal or a side lobe, and None for each signal that was missed."""
    rng = np.random.default_rng(seed)
    header = gbt_header(NCHANS)
    low, high = header.band_mhz
    places = rng.uniform(low, high, rng.poisson(PER_MHZ * (high - low)))
    for index, child in enumerate(seed.spawn(POINTINGS)):
        lobes, others = pointing(rng, places)
        signals = [
            random_signal(rng, rng.uniform(low + 0.02, high - 0.02), log_uniform(rng, 6, 30)) for _ in range(SIGNALS)
        ]
        gains, bursts = random_levels(rng)
        first = replace(header, source_name=f"T{number}-{index}", tstart=header.tstart + number + index * 0.03)
        sky = Sky(header=first, emitters=(*lobes, *others, *signals), gains=gains, bursts=bursts)
        scans = [
            ArrayObservation(scan, np.concatenate(list(coarse_blocks(sky, i, child)), axis=1))
            for i, scan in enumerate(sky.headers())
        ]
        found = search_cadence(scans, detector)  # type: ignore[arg-type]
        lines = Occupancy(
            telescope_id=6,
            target=first.source_name,
            tstart=first.tstart,
            band_mhz=first.band_mhz,
            lines_mhz=found.rejected_mhz,
        )
        with store.write() as rows:
            seen = recall(rows, lines, [row.frequency_mhz for row in found.candidates])
            values = {"target": first.source_name, "tstart": first.tstart, "band_low_mhz": low, "band_high_mhz": high}
            key = f"{number}-{index}"
            made = insert(cadence).values(key=key, state="done", created_at=now(), **values).returning(cadence.c.id)
            remember(rows, rows.scalars(made).one(), lines)
        yield from judged(number, found.candidates, seen, signals, lobes)


def judged(
    number: int, candidates: tuple, seen: list[dict], signals: list[Emitter], lobes: list[Emitter]
) -> Iterator[Row | None]:
    """Yield a row for each candidate that is a signal or a side lobe, and None for each signal that was missed."""
    hit = set()
    for row, memory in zip(candidates, seen, strict=True):
        near = {
            kind: [i for i, each in enumerate(some) if abs(each.frequency_mhz - row.frequency_mhz) * 1e6 < SAME_HZ]
            for kind, some in (("signal", signals), ("lobe", lobes))
        }
        if near["signal"] or near["lobe"]:
            hit.update(near["signal"])
            yield Row(
                night=number, is_signal=bool(near["signal"]), probability=float(row.probability),
                seen=memory["seen_cadences"], of=memory["seen_of"],
            )  # fmt: skip
    yield from [None] * (len(signals) - len(hit))


def ranked(row: Row) -> float:
    """Return the rank of a row as messages use it."""
    return rank({"probability": row.probability, "seen_cadences": row.seen, "seen_of": row.of})


def above(rows: list[Row], value: object) -> tuple[int, int]:
    """Return in how many pairs of a signal and an alarm of one night the signal is above, and the number of pairs."""
    pairs = [
        (value(a), value(b))  # type: ignore[operator]
        for a in rows
        for b in rows
        if a.is_signal and not b.is_signal and a.night == b.night
    ]
    return sum(a > b for a, b in pairs), len(pairs)


def main(nights: int, seed: int) -> None:
    detector = load_detector(Path("models/equinox"))
    rows, missed = list[Row](), 0
    for number, child in enumerate(np.random.SeedSequence(seed).spawn(nights)):
        with TemporaryDirectory() as folder:  # each night has emitters of its own
            store = open_store(f"sqlite:///{folder}/memory.db")
            for row in night(store, detector, child, number):
                rows += [row] if row else []
                missed += row is None
            store.engine.dispose()
        counts = [sum(row.is_signal is kind for row in rows) for kind in (True, False)]
        print(f"night {number + 1}: {counts[0]} signals, {counts[1]} side-lobe alarms so far", flush=True)
    signals, alarms = ([row for row in rows if row.is_signal is kind] for kind in (True, False))
    everything = len(signals) + missed
    print(f"\n{nights} nights, {nights * POINTINGS} pointings, seed {seed}: {everything} signals injected")
    print("| candidates left out if lines were rejected there in | signals found | side-lobe alarms |\n|---|---|---|")
    for least in (None, *LEFT_OUT):
        kept = [sum(least is None or row.seen < least for row in some) for some in (signals, alarms)]
        which = "none is left out" if least is None else f"{least} or more pointings"
        print(f"| {which} | {kept[0]} ({kept[0] / everything:.1%}) | {kept[1]} |")
    for name, value in (("probability", lambda row: row.probability), ("rank of messages", ranked)):
        wins, pairs = above(rows, value)
        print(f"{name}: signal above alarm in {wins} of {pairs} pairs" + (f" ({wins / pairs:.1%})" if pairs else ""))
        for given_up in GIVEN_UP:
            lowest = np.quantile([value(row) for row in signals], given_up)
            left = sum(value(row) >= lowest for row in alarms)
            print(f"  without the lowest {given_up:.0%} of the signals: {left} alarms")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*numbers, *(5, 8803)[len(numbers) :])
