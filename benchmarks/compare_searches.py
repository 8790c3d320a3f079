"""Search simulated cadences with a release, and with what the field uses; print and draw recall and alarms of each.

Run from the repository root: `python benchmarks/compare_searches.py [--scenarios zoo tones] [--band-mhz 8.8] [--seed 2]
[--tones-per-mhz 35] [--release models/equinox] [--output compared]`. All search the same files, in cadences of three
coarse channels:

- the release, and the release with `--mode windows`;
- a matched filter: one Taylor tree (Taylor 1974, A&AS 15, 367) at full resolution, drift rates to 4 Hz/s, each row
  standardized over its coarse channel, hits at SNR 10;
- turboSETI (Enriquez et al. 2017, arXiv:1709.03491), if the command `turboSETI` is installed: `-M 4 -s 10`;
- the gate of Aetherscan 1.2.0, which decides what its network sees: windows of 256 channels of an ON, each half-way
  over the one before, whose statistic of D'Agostino & Pearson (1973, doi:10.1093/biomet/60.3.613) exceeds 2,048. Each
  coarse channel is divided by the response with which it was simulated. A tone counts as found if such a window
  touches it in an ON. A gate has no alarms; the network judges what lies within 4,096 channels of such a window, so it
  also sees fainter tones that are beside interference by chance.

The hits of the matched filter and of turboSETI are combined by the ON/OFF rule of `find_event` at its strictest: a hit
in an ON is dropped if an OFF has a hit within the highest drift rate times the length of an observation; a hit in the
first ON is reported if every other ON has such a hit where its drift leads.

Intervals are at 95%. Seconds are of CPU time, in the cadence that took least, because a first search also compiles. The
folder `--output` gets the figure `comparison.png` and every finished search: the same command continues after an
interruption, and a wider band adds cadences.
"""

import argparse
import hashlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import no_type_check

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from jaxtyping import Float32, Float64, Int32
from numba import njit
from scipy.stats import normaltest

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.detector.detector import load_detector
from aetherscan.evaluate.journal import Journal
from aetherscan.evaluate.matching import ScoredSearch
from aetherscan.evaluate.pipeline import evaluate
from aetherscan.evaluate.scenarios import COARSE_CHANS, SCENARIOS, SNRS
from aetherscan.evaluate.searchers import Detection, Searcher, SearchFunction, SearchOutput, release_search
from aetherscan.evaluate.statistics import count_interval, fraction_interval, labels
from aetherscan.header import MAD_TO_SIGMA, SCAN_STEP_S, SECONDS_PER_DAY, gbt_header
from aetherscan.io import Observation, open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.plotting.evaluation import Curve, draw_comparison
from aetherscan.plotting.html import picture
from aetherscan.simulate.sky import filter_shape

MIN_SNR, MAX_DRIFT_HZ_S = 10.0, 4.0
CHANS = 3 * COARSE_CHANS
"""Channels of a cadence."""
GATE, GATE_WINDOW, GATE_STATISTIC, GATE_SPIKE, STAMP = "gate of Aetherscan", 256, 2048.0, 2, 4096
"""Name of Aetherscan's gate, its window in channels, what it accepts, channels of a DC spike, channels of a stamp."""
CPU = "cpu"
"""Stage under which a search's CPU time is kept."""
PATCH, TILE = 256, 4096
"""Channels of which the matched filter keeps the brightest, and of which it sums lines at a time."""
Hits = Float64[np.ndarray, "_ 3"]
"""MHz at the start of the observation, Hz/s and SNR of lines in one observation."""


def matched_filter(paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
    """Find lines with one Taylor tree at full resolution, and keep those in the ONs only."""
    with open_cadence(paths) as observations:
        return on_off_filter([find_hits(observation) for observation in observations], paths, on)


def turbo_seti(paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
    """Find lines with the command `turboSETI`, and keep those in the ONs only."""
    hits = []
    for path in paths:
        options = ["-M", str(MAX_DRIFT_HZ_S), "-s", str(MIN_SNR), "-o", str(path.parent), "-l", "warning"]
        subprocess.run(["turboSETI", str(path), *options], check=True, stdout=subprocess.DEVNULL)
        lines = path.with_suffix(".dat").read_text(encoding="utf-8").splitlines()
        columns = [line.split() for line in lines if not line.startswith("#")]
        hits.append(np.array([[column[3], column[1], column[2]] for column in columns], dtype=float).reshape(-1, 3))
    return on_off_filter(hits, paths, on)


def aetherscan_gate(paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
    """Return the middles of the windows of the ONs that pass the gate of Aetherscan, as detections without a drift."""
    hits, half = list[Detection](), GATE_WINDOW // 2
    with open_cadence(paths) as observations:
        header = observations[0].header
        covered = np.zeros(header.nchans + 2 * STAMP, dtype=bool)
        for observation in (observations[i] for i in on):
            for start in range(0, header.nchans, header.coarse_chans):
                power = observation.read(start, min(start + header.coarse_chans, header.nchans))
                for first, statistic in gate_hits(power):
                    middle = start + first + half
                    covered[middle : middle + 2 * STAMP] = True
                    hits.append(Detection(frequency_mhz=header.frequency(middle), drift_hz_s=0.0, snr=statistic))
    counts = {"covered": int(covered[STAMP : STAMP + header.nchans].sum())}
    return SearchOutput(detections=tuple(hits), counts=counts)


def gate_hits(power: Float32[np.ndarray, "time freq"]) -> list[tuple[int, float]]:
    """Return the first channel and the statistic of each window of a coarse channel that passes Aetherscan's gate."""
    flat, middle, step = power / filter_shape(power.shape[1]), power.shape[1] // 2, GATE_WINDOW // 2
    flat -= flat.mean()
    for spike in range(middle - GATE_SPIKE + 1, middle + 1):
        flat[:, spike] = (flat[:, middle - GATE_SPIKE] + flat[:, middle + 1]) / 2
    hits = []
    for first in range(0, flat.shape[1] - GATE_WINDOW, TILE):
        part = flat[:, first : first + TILE + step]
        windows = np.lib.stride_tricks.sliding_window_view(part, GATE_WINDOW, axis=1)[:, ::step]
        samples = windows.transpose(1, 0, 2).reshape(windows.shape[1], -1).astype(np.float64)
        statistics = normaltest(samples, axis=1).statistic
        hits += [(first + step * int(i), float(statistics[i])) for i in np.flatnonzero(statistics > GATE_STATISTIC)]
    return hits


def touched(search: ScoredSearch) -> ScoredSearch:
    """Return a search by Aetherscan's gate in which a tone is found if a window that passes touches it in an ON."""
    header, tones = gbt_header(), []
    hits = np.array([matched.detection.frequency_mhz for matched in search.detections])
    reach_mhz = abs(header.foff) * GATE_WINDOW / 2
    for tone in search.tones:
        near = np.zeros(hits.size, dtype=bool)
        for i in ON_POSITIONS:
            ends = [
                tone.frequency_mhz + tone.drift_hz_s * (i * SCAN_STEP_S + at_s) * 1e-6
                for at_s in (0, header.duration_s)
            ]
            near |= (hits > min(ends) - reach_mhz) & (hits < max(ends) + reach_mhz)
        tones.append(replace(tone, detections=int(near.sum())))
    return replace(search, tones=tuple(tones), detections=())


def on_off_filter(hits: Sequence[Hits], paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
    """Apply the ON/OFF rule of `find_event` at its strictest to the hits of six observations.

    A hit in another ON continues one in the first if it is within twice the drift times the length of an observation of
    where that drift leads.
    """
    with open_cadence(paths) as observations:
        headers = [observation.header for observation in observations]
    length_s, step_hz_s = headers[0].duration_s, abs(headers[0].foff * 1e6) / headers[0].tsamp
    off_mhz = np.concatenate([rows[:, 0] for i, rows in enumerate(hits) if i not in on])
    reach_mhz = MAX_DRIFT_HZ_S * length_s * 1e-6
    clear = {i: np.array([hit for hit in hits[i] if not (np.abs(off_mhz - hit[0]) < reach_mhz).any()]) for i in on}
    detections = []
    for mhz, drift, snr in clear[on[0]]:
        snrs = [snr]
        for i in on[1:]:
            after_s = (headers[i].tstart - headers[on[0]].tstart) * SECONDS_PER_DAY
            reach_mhz = 2 * (abs(drift) or step_hz_s) * length_s * 1e-6
            snrs += [hit[2] for hit in clear[i] if abs(hit[0] - mhz - drift * after_s * 1e-6) < reach_mhz][:1]
        if len(snrs) == len(on):
            detections.append(Detection(frequency_mhz=mhz, drift_hz_s=drift, snr=float(np.median(snrs))))
    return SearchOutput(detections=tuple(detections))


def find_hits(observation: Observation) -> Hits:
    header, hits = observation.header, [np.empty((0, 3))]
    channel_hz_s = header.foff * 1e6 / header.tsamp
    for start in range(0, header.nchans, header.coarse_chans):
        power = observation.read(start, min(start + header.coarse_chans, header.nchans))
        power -= np.median(power, axis=1)[:, None]
        power /= MAD_TO_SIGMA * np.median(np.abs(power), axis=1)[:, None]
        upward, downward = (brightest_lines(power[:, ::sign], MAX_DRIFT_HZ_S / abs(channel_hz_s)) for sign in (1, -1))
        falling = downward[0][::-1] > upward[0]
        snrs = np.where(falling, downward[0][::-1], upward[0])
        drifts = np.where(falling, -downward[1][::-1], upward[1])
        for first in range(0, snrs.size, PATCH):
            brightest = first + int(np.argmax(snrs[first : first + PATCH]))
            around = snrs[max(0, brightest - PATCH) : brightest + PATCH + 1]
            if snrs[brightest] >= MIN_SNR and snrs[brightest] == around.max():
                drift = float(drifts[brightest])
                mhz = header.frequency(start + brightest - drift / 2)
                hits.append(np.array([[mhz, drift * channel_hz_s, snrs[brightest]]]))
    return np.concatenate(hits)


def brightest_lines(sigmas: Float32[np.ndarray, "time freq"], max_drift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the SNR and the drift (channels per row) of the brightest rising line that begins in each channel."""
    rows, chans = sigmas.shape
    padded, shifts = 1 << (rows - 1).bit_length(), math.ceil(max_drift)
    extended = np.zeros((padded, chans + TILE + shifts * padded), dtype=np.float32)
    extended[:rows, :chans] = sigmas
    best, steps = np.full(chans, -np.inf, dtype=np.float32), np.zeros(chans, dtype=np.int32)
    brightest_sums(extended, shifts, best, steps)
    return best / np.float32(math.sqrt(rows)), steps / (padded - 1)


@njit(cache=True, nogil=True)
@no_type_check
def brightest_sums(
    sigmas: Float32[np.ndarray, "time beyond"],
    shifts: int,
    best: Float32[np.ndarray, " freq"],
    steps: Int32[np.ndarray, " freq"],
) -> None:
    """Sum a tree for every whole number of channels per row, on one tile of the band at a time, which fits in cache."""
    rows = sigmas.shape[0]
    tree = np.empty((rows, TILE + rows), dtype=np.float32)
    for start in range(0, best.size, TILE):
        top, at = best[start : start + TILE], steps[start : start + TILE]
        for shift in range(shifts):
            for t in range(rows):
                tree[t] = sigmas[t, start + shift * t : start + shift * t + TILE + rows]
            for step, sums in enumerate(taylor_tree(tree)):
                for f in range(top.size):
                    if sums[f] > top[f]:
                        top[f] = sums[f]
                        at[f] = shift * (rows - 1) + step


@njit(cache=True, nogil=True)
@no_type_check
def taylor_tree(tree: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "step freq"]:
    """Return sums along lines that rise by `step` channels (Taylor 1974); the last few channels are incomplete."""
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


def timed(search: SearchFunction, paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
    """Search, and keep the CPU time of this process and of those it started."""
    before = sum(os.times()[:4])
    output = search(paths, on)
    return replace(output, stage_s={CPU: sum(os.times()[:4]) - before})


def recall_curve(searches: Sequence[ScoredSearch]) -> tuple[Curve, list[str]]:
    """Return SNR, recall and the interval's bounds of the tones of a search, and the counts as text."""
    tones = [(labels(tone)["snr"], tone.detections > 0) for search in searches for tone in search.tones]
    points, counts = [], []
    for snr in SNRS:
        found = [is_found for name, is_found in tones if name == f"{snr:g}"]
        counts.append(f"{sum(found)}/{len(found)}")
        if found:
            points.append((snr, sum(found) / len(found), *fraction_interval(sum(found), len(found))))
    return np.array(points, dtype=np.float64).reshape(-1, 4), counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenarios", nargs="+", default=["zoo", "tones"])
    options.add_argument("--band-mhz", type=float, default=8.8, help="of each scenario (default %(default)s)")
    options.add_argument(
        "--tones-per-mhz", type=float, default=35.0, help="where there are tones (default %(default)s)"
    )
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--release", type=Path, default=Path(__file__).resolve().parents[1] / "models" / "equinox")
    options.add_argument("--output", type=Path, default=Path("compared"), help="default %(default)s")
    given = options.parse_args()
    detector = load_detector(given.release)
    searches: dict[str, SearchFunction] = {
        detector.release.name: release_search(detector, SearchSettings()),
        "--mode windows": release_search(detector, SearchSettings(mode="windows")),
        "matched filter and ON/OFF rule": matched_filter,
        "turboSETI and ON/OFF rule": turbo_seti,
        GATE: aetherscan_gate,
    }
    if not shutil.which("turboSETI"):
        print("turboSETI: expected the command turboSETI on the PATH, found none; left out")
        del searches["turboSETI and ON/OFF rule"]
    given.output.mkdir(parents=True, exist_ok=True)
    how = {"seed": given.seed, "tones_per_mhz": given.tones_per_mhz, "release": detector.release.sha256}
    this = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    scored = evaluate(
        [replace(scenario, tones_per_mhz=given.tones_per_mhz if scenario.tones_per_mhz else 0.0)
         for scenario in SCENARIOS if scenario.name in given.scenarios],
        [Searcher(name=name, search=partial(timed, search)) for name, search in searches.items()],
        seed=given.seed, band_mhz=given.band_mhz, chans=CHANS, journal=Journal(given.output, {**how, "this": this}),
    )  # fmt: skip
    print(f"| searched by | {' | '.join(f'SNR {snr:g}' for snr in SNRS)} | alarms | per 100 MHz | CPU s per MHz |")
    print(f"|{'---|' * (len(SNRS) + 4)}")
    curves, alarms = dict[str, Curve](), dict[str, tuple[float, float, float]]()
    for name in searches:
        own = [touched(search) if name == GATE else search for search in scored if search.searcher == name]
        curves[name], counts = recall_curve(own)
        mhz, cells = sum(search.mhz for search in own), ["", ""]
        if name != GATE:
            count = sum(len(search.alarms) for search in own)
            low, high = (bound / mhz * 100 for bound in count_interval(count))
            alarms[name] = (count / mhz * 100, low, high)
            cells = [f"{count} in {mhz:.1f} MHz", f"{count / mhz * 100:.3g}, {low:.3g} to {high:.3g}"]
        cells.append(f"{min(search.stage_s[CPU] / search.mhz for search in own):.2g}")
        print(f"| {' | '.join([name, *counts, *cells])} |")
    covered = [search.counts["covered"] / CHANS for search in scored if search.searcher == GATE]
    print(f"The gate of Aetherscan passes {np.mean(covered):.0%} of the band on to its network.")
    picture("", 2, lambda axes: draw_comparison(axes, curves, alarms), given.output / "comparison.png")


if __name__ == "__main__":
    main()
