"""Search simulated cadences with a release, and with what the field uses; print recall, alarms and time of each.

Run from the repository root: `python benchmarks/compare_searches.py [--scenarios zoo tones] [--band-mhz 8.8] [--seed 2]
[--release models/equinox]`. All search the same files, the first cadence of each scenario:

- the release, and the release with `--mode windows`;
- a matched filter: one Taylor tree (Taylor 1974, A&AS 15, 367) at full resolution, drift rates to 4 Hz/s, each row
  standardized over its coarse channel, hits at SNR 10;
- turboSETI (Enriquez et al. 2017, arXiv:1709.03491), if the command `turboSETI` is installed: `-M 4 -s 10`.

The hits of the last two are combined by the ON/OFF rule of `find_event` at its strictest: a hit in an ON is dropped if
an OFF has a hit within the highest drift rate times the length of an observation; a hit in the first ON is reported if
every other ON has such a hit where its drift leads.
"""

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import no_type_check

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from jaxtyping import Float32, Float64, Int32
from numba import njit

from aetherscan.detector.detector import load_detector
from aetherscan.evaluate.pipeline import evaluate
from aetherscan.evaluate.scenarios import CADENCE_CHANS, SCENARIOS
from aetherscan.evaluate.searchers import Detection, Searcher, SearchOutput, release_search
from aetherscan.evaluate.statistics import BRIGHT, labels
from aetherscan.header import MAD_TO_SIGMA, SECONDS_PER_DAY, gbt_header
from aetherscan.io import Observation, open_cadence
from aetherscan.options.search import SearchSettings

MIN_SNR, MAX_DRIFT_HZ_S = 10.0, 4.0
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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenarios", nargs="+", default=["zoo", "tones"])
    options.add_argument("--band-mhz", type=float, default=8.8, help="of each scenario (default %(default)s)")
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--release", type=Path, default=Path(__file__).resolve().parents[1] / "models" / "equinox")
    given = options.parse_args()
    detector = load_detector(given.release)
    searches = {
        detector.release.name: release_search(detector, SearchSettings()),
        "--mode windows": release_search(detector, SearchSettings(mode="windows")),
        "matched filter and ON/OFF rule": matched_filter,
        "turboSETI and ON/OFF rule": turbo_seti,
    }
    if not shutil.which("turboSETI"):
        print("turboSETI: expected the command turboSETI on the PATH, found none; left out")
        del searches["turboSETI and ON/OFF rule"]
    coarse_chans = gbt_header(CADENCE_CHANS).coarse_chans
    chans = max(1, round(given.band_mhz / abs(gbt_header(CADENCE_CHANS).foff * coarse_chans))) * coarse_chans
    scored = evaluate(
        [scenario for scenario in SCENARIOS if scenario.name in given.scenarios],
        [Searcher(name=name, search=search, max_cadences=1) for name, search in searches.items()],
        seed=given.seed, band_mhz=given.band_mhz, chans=min(chans, CADENCE_CHANS),
    )  # fmt: skip
    print("| searched by | scenario | MHz | tones of SNR >= 10 found | fainter tones found | alarms | seconds |")
    print("|---|---|---|---|---|---|---|")
    for search in sorted(scored, key=lambda search: list(searches).index(search.searcher)):
        bright, faint = (
            [t for t in search.tones if (labels(t)["bright"] == BRIGHT) is is_bright] for is_bright in (True, False)
        )
        found = (f"{sum(t.detections > 0 for t in tones)} of {len(tones)}" for tones in (bright, faint))
        cells = (search.searcher, search.scenario, f"{search.mhz:.1f}", *found, str(len(search.alarms)))
        print(f"| {' | '.join(cells)} | {search.search_s:.0f} |")


if __name__ == "__main__":
    main()
