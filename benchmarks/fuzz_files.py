"""Search damaged files, and let the watcher examine them: `python benchmarks/fuzz_files.py [COUNT] [SEED]`.

Run from the repository root. One file of a cadence with a tone in its ONs is damaged at a time: bits flipped, bytes cut
or added, header values removed or of another type or size, power replaced by values that are not power. Each file goes
through `search` with the other five, and through the watcher, which examines and groups it. Failures are an exception,
a search longer than `LIMIT_S`, and a candidate from values that are not power. The exit status is 1 if there is one.
The last line counts the results.
"""

import csv
import shutil
import signal
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aetherscan.header import gbt_header
from aetherscan.io import sigproc, verify_complete, write_fil, write_h5
from sentinel.commands.search import detector_of, search
from sentinel.config import Search, Watch, config_path, load_config
from sentinel.ingest.cadences import group
from sentinel.ingest.watcher import open_stable, scan_roots
from sentinel.store.queue import open_store
from sentinel.store.releases import read_active_release
from sentinel.store.schema import file

LIMIT_S = 60
NUMBERS = (0, -1, 1, 4, 100, 2**31 - 1, 1e-300, 1e300, float("nan"), float("inf"))
VALUES = (*NUMBERS, 2**62, "text", b"\xff\xfe", [], [1, 2], None)
KEYWORDS = [(name, code) for name, code in sigproc.KEYWORDS.items() if name in sigproc.FIELDS and code != sigproc.TEXT]
INTEGERS = (-(2**31), 2**31 - 1)
NEW_STORE = 50
"""Files after which the watcher begins with an empty store, as sessions with many files are slow to group."""


def flip_bits(path: Path, rng: np.random.Generator) -> None:
    raw = bytearray(path.read_bytes())
    end = len(raw) if rng.random() < 0.5 else 600  # half of them in the header
    for at in rng.integers(0, min(end, len(raw)), rng.integers(1, 9)):
        raw[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(raw)


def cut(path: Path, rng: np.random.Generator) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: rng.integers(len(raw))])


def add(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 9000))))


def change_value(path: Path, rng: np.random.Generator) -> None:
    if path.suffix == ".fil":
        raw = bytearray(path.read_bytes())
        name, code = KEYWORDS[rng.integers(len(KEYWORDS))]
        value = NUMBERS[rng.integers(len(NUMBERS))]
        at = raw.index(name.encode()) + len(name)
        struct.pack_into(code, raw, at, value if code == "<d" else int(np.clip(np.nan_to_num(value), *INTEGERS)))
        path.write_bytes(raw)
        return
    with h5py.File(path, "r+") as opened:
        attributes = opened["data"].attrs
        name, value = rng.choice(list(attributes)), VALUES[rng.integers(len(VALUES))]
        del attributes[name]
        if value is not None:
            attributes[name] = value


def observed(rng: np.random.Generator, header: Any, place: int) -> np.ndarray:
    """Return noise, in an ON with a tone of SNR 12 at three quarters of the band."""
    power = rng.chisquare(50, (header.ntime, header.nchans)).astype(np.float32)
    power[:, 3 * header.nchans // 4 + 5] += 30 * (place % 2 == 0)
    return power


def change_power(path: Path, rng: np.random.Generator, header: Any, power: np.ndarray) -> None:
    bad = (10 * np.log10(power / 50), power - power.mean(), np.full_like(power, np.nan), 0 * power, -power)
    write(path, header, bad[rng.integers(len(bad))].astype(np.float32))


def write(path: Path, header: Any, power: np.ndarray) -> None:
    (write_fil if path.suffix == ".fil" else write_h5)(path, header, [power])


def cadence(nchans: int = 4096) -> list[Any]:
    first, step_days = replace(gbt_header(nchans), nfpc=nchans // 4), 341 / 86_400
    names = ("HIP99427", "HIP1", "HIP99427", "HIP2", "HIP99427", "HIP3")
    places = [77 - 3 * int(name[-1]) if name != names[0] else 77 for name in names]
    scans = enumerate(zip(names, places, strict=True))
    return [
        replace(first, source_name=name, src_dej=float(dec), tstart=first.tstart + i * step_days)
        for i, (name, dec) in scans
    ]


def stop(*_: object) -> None:
    raise TimeoutError(f"expected an end within {LIMIT_S} s")


def fuzz(
    count: int, seed: int, folder: Path, detect: Callable[[], Any], nchans: int = 4096
) -> tuple[Counter[str], list[str]]:
    """Return how many files ended in each way, and the failures.

    Args:
        count: files.
        seed: of the damage.
        folder: that is empty.
        detect: returns the detector.
        nchans: channels of a file.
    """
    rng, results, failures = np.random.default_rng(seed), Counter[str](), list[str]()
    watched = folder / "watched"
    watched.mkdir()
    headers = cadence(nchans)
    good = [watched / f"{i}.h5" for i in range(6)]
    for place, (path, header) in enumerate(zip(good, headers, strict=True)):
        write(path, header, observed(rng, header, place))
    signal.signal(signal.SIGALRM, stop)
    for number in range(count):
        place = int(rng.integers(6))
        if number % NEW_STORE == 0:
            store = open_store(f"sqlite:///{folder / f'{number}.db'}")
        bad = watched / f"bad{number}{'.h5' if rng.random() < 0.6 else '.fil'}"
        write(bad, headers[place], power := observed(rng, headers[place], place))
        kind = (flip_bits, cut, add, change_value, change_power)[rng.integers(5)]
        kind(bad, rng, *((headers[place], power) if kind is change_power else ()))
        paths = [*good[:place], bad, *good[place + 1 :]]
        output = folder / f"found{number}"
        signal.alarm(LIMIT_S)
        try:
            settings = Search(threads=1)
            outcome = search(paths, output, detect=detect, search=settings, tell=lambda _: None)
            with (output / "candidates.csv").open(newline="", encoding="utf-8") as table:
                announced = [row for row in csv.DictReader(table) if not row["note"]]
            if kind is change_power and announced:
                failures.append(f"{number}: {len(announced)} candidates from values that are not power in file {place}")
            results["searches with the tone"] += bool(announced)
            results[f"{kind.__name__}: exit status {outcome.exit_status}"] += 1
            rules = Watch(roots=(watched,), settle_s=0)
            for _ in range(2):
                scan_roots(store, rules)
                open_stable(store, rules, verify_complete)
                group(store, rules)
            with store.read() as rows:
                state = rows.scalar(select(file.c.state).where(file.c.path == str(bad)))
            results[f"watcher: {state}"] += 1
        except Exception:  # noqa: BLE001
            failures.append(f"{number} {kind.__name__} {bad.suffix}: {traceback.format_exc()}")
        finally:
            signal.alarm(0)
        bad.unlink()
        shutil.rmtree(output, ignore_errors=True)
    return results, failures


def main(count: int = 2000, seed: int = 1) -> int:
    config = load_config(config_path())
    detector = detector_of(read_active_release(config), config.search)
    with TemporaryDirectory() as folder:
        results, failures = fuzz(count, seed, Path(folder), lambda: detector)
    print(*failures, sep="\n")
    print(f"{count} files, seed {seed}, {len(failures)} failures:", dict(sorted(results.items())))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
