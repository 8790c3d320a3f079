"""Measure the rate at which observations are read, in GB/s of float32, beside other readers of the same files.

Run from the repository root: `python benchmarks/reading.py [CHANNELS [ROUNDS]]`. Simulated files are read one coarse
channel at a time. They stay in the page cache, so decoding is timed and not the disk. First, each reader's power is
compared with the power that was written. The readers take turns, round after round, with the same buffers; medians are
printed. "GB/s a core" is per CPU second; compare this number on a machine with other work.
"""

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy as np

from aetherscan.header import gbt_header
from aetherscan.io import open_observation, write_fil, write_h5
from aetherscan.simulate.sky import Sky, coarse_blocks

COARSE, ROWS = 2**20, 16
Reader = Callable[[Path, np.ndarray], Iterator[np.ndarray]]


def by_blimpy(path: Path, buffer: np.ndarray) -> Iterator[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from blimpy import Waterfall  # noqa: PLC0415 - it warns

        waterfall = Waterfall(str(path))
        for start in range(0, waterfall.data.shape[2], buffer.shape[1]):
            yield waterfall.data[:, 0, start : start + buffer.shape[1]]
        if path.suffix == ".h5":
            waterfall.container.h5.close()


def by_h5py(path: Path, buffer: np.ndarray) -> Iterator[np.ndarray]:
    with h5py.File(path, "r", locking=False) as file:
        for start in range(0, file["data"].shape[2], buffer.shape[1]):
            file["data"].read_direct(buffer[:, None], np.s_[:, :, start : start + buffer.shape[1]])
            yield buffer


def by_us(path: Path, buffer: np.ndarray) -> Iterator[np.ndarray]:
    with open_observation(path) as observation:
        for start in range(0, observation.header.nchans, buffer.shape[1]):
            yield observation.read(start, start + buffer.shape[1], buffer)


READERS = {  # file, name: reader, threads with a file each; ratios are to the first of a file
    ("h5", "h5py read_direct"): (by_h5py, 1),
    ("h5", "h5py, two threads"): (by_h5py, 2),
    ("h5", "blimpy"): (by_blimpy, 1),
    ("h5", "ours"): (by_us, 1),
    ("h5", "ours, two threads"): (by_us, 2),
    ("fil", "blimpy"): (by_blimpy, 1),
    ("fil", "ours"): (by_us, 1),
    ("fil", "ours, two threads"): (by_us, 2),
}


def write(folder: Path, position: int, chans: int) -> list[np.ndarray]:
    header = replace(gbt_header(chans), nfpc=min(COARSE, chans))
    blocks = list(coarse_blocks(Sky(header=header), position, np.random.SeedSequence(1)))
    write_h5(folder / f"{position}.h5", header, blocks)
    write_fil(folder / f"{position}.fil", header, blocks)
    return blocks


def seconds(reader: Reader, paths: list[Path], buffers: np.ndarray, pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Read the files at once; return the wall time and the CPU time in seconds."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    list(pool.map(lambda path, buffer: sum(1 for _ in reader(path, buffer)), paths, buffers))
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def main(chans: int = 2**22, rounds: int = 7) -> None:
    buffers = np.empty((2, ROWS, min(COARSE, chans)), np.float32)
    took: dict[tuple[str, str], list[tuple[float, float]]] = {row: [] for row in READERS}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        written = [write(Path(folder), position, chans) for position in range(2)]
        paths = {suffix: [Path(folder, f"{position}.{suffix}") for position in range(2)] for suffix in ("h5", "fil")}
        for (suffix, _), (reader, _) in READERS.items():
            for path, blocks in zip(paths[suffix], written, strict=True):
                for found, expected in zip(reader(path, buffers[0]), blocks, strict=True):
                    np.testing.assert_array_equal(found, expected)
        for _ in range(rounds):
            for (suffix, name), (reader, threads) in READERS.items():
                took[suffix, name].append(seconds(reader, paths[suffix][:threads], buffers[:threads], pool))
    first: dict[str, float] = {}
    print(f"{ROWS} rows of {chans:,} channels, medians of {rounds}\n{'file':6}{'reader':20}  GB/s   ratio  GB/s a core")
    for (suffix, name), times in took.items():
        gigabytes = READERS[suffix, name][1] * ROWS * chans * 4e-9
        wall, cpu = (gigabytes / statistics.median(all_s) for all_s in zip(*times, strict=True))
        print(f"{suffix:6}{name:20}{wall:6.1f}{wall / first.setdefault(suffix, wall):8.2f}{cpu:13.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
