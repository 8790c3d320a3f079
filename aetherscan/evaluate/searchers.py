"""Who searches the files that judge: the code that serves, and what the field does instead.

Each takes six files and the positions of the ONs, and answers with rows. None is told what is in the files.
"""

import hashlib
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32
from numba import njit

from aetherscan.detector.detector import Detector
from aetherscan.evaluate.scenarios import MAD_TO_SIGMA
from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import Observation, open_cadence, open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence

MIN_SNR = 10.0
"""The field's threshold in one observation."""
MAX_DRIFT_HZ_S = 4.0
PATCH, TILE = 256, 4096
"""Channels of which the matched filter keeps the brightest, and of which it sums lines at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of what was found, in whoever's words."""

    frequency_mhz: float  # at the start of the first ON
    drift_hz_s: float
    snr: float  # median of the ONs
    probability: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of searching a cadence."""

    rows: tuple[Row, ...]
    stage_s: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    digest: str = ""  # of the list, to the last bit


Hits = Float64[np.ndarray, "_ 3"]
"""MHz at the start of the observation, Hz/s and SNR of lines in one observation."""
Find = Callable[[Sequence[Path], tuple[int, ...]], Answer]


def served(detector: Detector, settings: SearchSettings) -> Find:
    """Return the search that the service runs."""

    def find(paths: Sequence[Path], on: tuple[int, ...]) -> Answer:
        with open_cadence(paths) as observations:
            result = search_cadence(observations, detector, settings, on=on)
        rows = (
            Row(
                frequency_mhz=one.frequency_mhz,
                drift_hz_s=one.drift_rate_hz_s,
                snr=float(np.median([one.snr[i] for i in on])),
                probability=one.probability,
            )
            for one in result.candidates
        )
        table = json.dumps([asdict(one) for one in result.candidates])
        return Answer(
            rows=tuple(rows),
            stage_s=result.stage_s,
            counts=result.counts,
            digest=hashlib.sha256(table.encode()).hexdigest(),
        )

    return find


def matched_filter(paths: Sequence[Path], on: tuple[int, ...]) -> Answer:
    """Find lines by one full-resolution Taylor tree, and keep those that are in the ONs alone.

    Each row is standardized over its coarse channel, and nothing else is done to it.
    """
    hits = []
    for path in paths:
        with open_observation(path) as observation:
            hits.append(_hits(observation))
    return on_alone(hits, paths, on)


def turbo_seti(paths: Sequence[Path], on: tuple[int, ...]) -> Answer:
    """Let the command `turboSETI` find lines, which must be installed, and keep those that are in the ONs alone."""
    hits = []
    for path in paths:
        options = ["-M", str(MAX_DRIFT_HZ_S), "-s", str(MIN_SNR), "-o", str(path.parent), "-l", "warning"]
        subprocess.run(["turboSETI", str(path), *options], check=True, stdout=subprocess.DEVNULL)
        lines = path.with_suffix(".dat").read_text(encoding="utf-8").splitlines()
        columns = [line.split() for line in lines if not line.startswith("#")]
        hits.append(np.array([[column[3], column[1], column[2]] for column in columns], dtype=float).reshape(-1, 3))
    return on_alone(hits, paths, on)


def on_alone(hits: Sequence[Hits], paths: Sequence[Path], on: tuple[int, ...]) -> Answer:
    """Keep what turboSETI's `find_event` keeps at its strictest.

    Hits of an ON count if no OFF has one within the highest drift times the length of an observation; those of the
    first ON are rows if each other ON has such a hit within twice its own drift times that length of where it leads.
    """
    with open_cadence(paths) as observations:
        headers = [observation.header for observation in observations]
    length_s, step_hz_s = headers[0].duration_s, abs(headers[0].foff * 1e6) / headers[0].tsamp
    off = np.concatenate([many[:, 0] for i, many in enumerate(hits) if i not in on])
    reach_mhz = MAX_DRIFT_HZ_S * length_s * 1e-6
    clear = {i: np.array([hit for hit in hits[i] if not (np.abs(off - hit[0]) < reach_mhz).any()]) for i in on}
    rows = []
    for mhz, drift, snr in clear[on[0]]:
        snrs = [snr]
        for i in on[1:]:
            after_s = (headers[i].tstart - headers[on[0]].tstart) * SECONDS_PER_DAY
            reach_mhz = 2 * (abs(drift) or step_hz_s) * length_s * 1e-6
            snrs += [hit[2] for hit in clear[i] if abs(hit[0] - mhz - drift * after_s * 1e-6) < reach_mhz][:1]
        if len(snrs) == len(on):
            rows.append(Row(frequency_mhz=mhz, drift_hz_s=drift, snr=float(np.median(snrs))))
    return Answer(rows=tuple(rows))


def _hits(observation: Observation) -> Hits:
    header, found = observation.header, [np.empty((0, 3))]
    channel_hz_s = header.foff * 1e6 / header.tsamp
    for start in range(0, header.nchans, header.coarse_chans):
        power = observation.read(start, min(start + header.coarse_chans, header.nchans))
        power -= np.median(power, axis=1)[:, None]
        power /= MAD_TO_SIGMA * np.median(np.abs(power), axis=1)[:, None]
        upward, downward = (_best(power[:, ::sign], MAX_DRIFT_HZ_S / abs(channel_hz_s)) for sign in (1, -1))
        fell = downward[0][::-1] > upward[0]
        snrs = np.where(fell, downward[0][::-1], upward[0])
        drifts = np.where(fell, -downward[1][::-1], upward[1])
        for first in range(0, snrs.size, PATCH):
            brightest = first + int(np.argmax(snrs[first : first + PATCH]))
            around = snrs[max(0, brightest - PATCH) : brightest + PATCH + 1]
            if snrs[brightest] >= MIN_SNR and snrs[brightest] == around.max():
                drift = float(drifts[brightest])
                mhz = header.frequency(start + brightest - drift / 2)
                found.append(np.array([[mhz, drift * channel_hz_s, snrs[brightest]]]))
    return np.concatenate(found)


def _best(sigmas: Float32[np.ndarray, "time freq"], max_drift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the SNR and drift (channels a row) of the brightest rising line that begins in each channel."""
    rows, chans = sigmas.shape
    padded, shifts = 1 << (rows - 1).bit_length(), math.ceil(max_drift)
    beyond = np.zeros((padded, chans + TILE + shifts * padded), dtype=np.float32)
    beyond[:rows, :chans] = sigmas
    best, steps = np.full(chans, -np.inf, dtype=np.float32), np.zeros(chans, dtype=np.int32)
    _trees(beyond, shifts, best, steps)
    return best / np.float32(math.sqrt(rows)), steps / (padded - 1)


@njit(cache=True, nogil=True)
@no_type_check
def _trees(
    sigmas: Float32[np.ndarray, "time beyond"],
    shifts: int,
    best: Float32[np.ndarray, " freq"],
    steps: Int32[np.ndarray, " freq"],
) -> None:
    """Climb a tree for every whole shift of channels a row, a tile of band at a time so that it stays in cache."""
    rows = sigmas.shape[0]
    tree = np.empty((rows, TILE + rows), dtype=np.float32)
    for start in range(0, best.size, TILE):
        top, at = best[start : start + TILE], steps[start : start + TILE]
        for shift in range(shifts):
            for t in range(rows):
                tree[t] = sigmas[t, start + shift * t : start + shift * t + TILE + rows]
            for step, sums in enumerate(_climb(tree)):
                for f in range(top.size):
                    if sums[f] > top[f]:
                        top[f] = sums[f]
                        at[f] = shift * (rows - 1) + step


@njit(cache=True, nogil=True)
@no_type_check
def _climb(tree: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "step freq"]:
    """Return Taylor's sums, along lines that rise by `step` channels; the last few channels are incomplete."""
    rows = tree.shape[0]
    done = np.empty_like(tree)
    half = 1
    while half < rows:
        for first in range(0, rows, 2 * half):
            for step in range(2 * half):
                right = (step + 1) // 2
                low, high, out = tree[first + step // 2], tree[first + half + step // 2], done[first + step]
                for f in range(out.size - right):
                    out[f] = low[f] + high[f + right]
        tree, done = done, tree
        half *= 2
    return tree
