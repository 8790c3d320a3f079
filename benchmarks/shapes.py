"""Compare searches with and without the network on signals that are no straight lines, at equal budgets of alarms.

Run from the repository root: `python benchmarks/shapes.py [--seed 1] [--background-mhz 60] [--shape-mhz 25]
[--release models/equinox] [--output shapes]`. Simulated patches of band hold noise, bursts and 15 interferers per MHz;
two sets of them hold nothing else, and a third one holds eight signals each. Compared are

- released: the released search at its own threshold, which follows lines and scores them by their measurements;
- tracks: the same, with the threshold that the budget allows;
- tracks or network: the same, or the network in any window of 4,096 channels, each with half of the budget;
- --mode windows: a track that passes the gates, scored by the network in its windows;
- network: the network alone, in every window, without any line.

All others get the lowest threshold that keeps the budget in one set without signals; alarms are counted in the other.
`past the gates` is the fraction of signals of which any track reaches a forest: no other score of tracks finds more.
SNR is that of the ideal matched filter for the whole signal in each ON. A signal is found by a track that is inside its
band in every ON, or by a window that holds its middle. Finished patches are kept in the folder `--output`: the same
command continues after an interruption, and more MHz add patches. Intervals are at 95%.
"""

import argparse
import hashlib
import json
import math
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from jaxtyping import Float64

from aetherscan.cadence.geometry import ON_POSITIONS, geometry_of
from aetherscan.detector.detector import Detector, load_detector
from aetherscan.evaluate.statistics import count_interval, fraction_interval
from aetherscan.header import SCAN_STEP_S
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.cutouts import WINDOW_LEVEL, window_snippet
from aetherscan.search.features import measurements
from aetherscan.search.follow import channels_at
from aetherscan.search.on_off import find_tracks, merge
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform, zoo
from aetherscan.simulate.sky import Sky
from aetherscan.train.random_skies import ExampleSettings, draw_power, patch_header

STREAM = zlib.crc32(b"benchmarks.shapes")
"""First key of every seed sequence here."""
SETS = ("shapes", "thresholds", "alarms")
SNRS = (10.0, 20.0, 50.0, 150.0)
BUDGETS = (5.0, 20.0)
"""Alarms per 100 MHz that each search may raise."""
PER_PATCH, ZOO_PER_MHZ, MAX_DRIFT_HZ_S, TEETH = 8, 15.0, 2.0, 7
ROOM_HZ = 30.0
"""Distance beyond a signal's band within which a track is a part of it."""
SETTINGS = ExampleSettings()
MHZ = SETTINGS.chans * SETTINGS.hz * 1e-6
WINDOW = SETTINGS.bins << WINDOW_LEVEL
CADENCE = geometry_of(Sky(header=patch_header(SETTINGS)).headers())
STEADY = "steady line"
SEARCHES = ("released", "tracks", "tracks or network", "--mode windows", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulses(Emitter):
    """An emitter that is on for the first `duty` of each period."""

    duty: float

    def brightness(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return 1 during a pulse, else 0."""
        return ((at_s + self.phase_s) % self.period_s < self.duty * self.period_s).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed(Emitter):
    """One of two tones of which one or the other is on in each row, at random."""

    key: int
    tone: int  # 0 or 1

    def brightness(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return 1 where this tone is on, else 0."""
        bits = np.random.default_rng(self.key).integers(0, 2, 256)
        return (bits[(at_s / SETTINGS.tsamp).astype(int)] == self.tone).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chirps(Emitter):
    """An emitter that sweeps up by `sweep_hz` in each period."""

    sweep_hz: float
    every_s: float

    def track_mhz(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return the frequency in MHz; the fields of a line count too."""
        swept = ((at_s + self.phase_s) / self.every_s) % 1.0 - 0.5
        return self.frequency_mhz + (self.drift_hz_s * at_s + self.sweep_hz * swept) * 1e-6


def in_ons(snr: float) -> tuple[float, ...]:
    """Return an SNR in the ONs and none in the OFFs."""
    return tuple(snr if i in ON_POSITIONS else 0.0 for i in range(6))


def pulsed(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return a line that is on for a quarter of each 80 to 290 s."""
    return (Pulses(**{**asdict(line), "period_s": rng.uniform(80, 290), "phase_s": rng.uniform(0, 290)}, duty=0.25),)


def chirped(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return a line that sweeps by 300 to 3,000 Hz, again and again in 50 to 150 s."""
    sweep = {"sweep_hz": log_uniform(rng, 300, 3000), "every_s": rng.uniform(50, 150)}
    return (Chirps(**{**asdict(line), "phase_s": rng.uniform(0, 150)}, **sweep),)


def comb(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return seven parallel lines, 60 to 300 Hz apart."""
    step_mhz = log_uniform(rng, 60, 300) * 1e-6
    snr = tuple(snr / math.sqrt(TEETH) for snr in line.snr)
    return tuple(
        replace(line, frequency_mhz=line.frequency_mhz + step_mhz * (i - TEETH // 2), snr=snr) for i in range(TEETH)
    )


def modulated(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return two tones 50 to 500 Hz apart, of which one or the other is on in each row."""
    shift_mhz, key = log_uniform(rng, 50, 500) * 1e-6, int(rng.integers(2**31))
    parts = []
    for tone in (0, 1):
        part = Keyed(
            **{**asdict(line), "frequency_mhz": line.frequency_mhz + shift_mhz * (tone - 0.5)}, key=key, tone=tone
        )
        rows = [part.brightness(row_middles(i)).sum() for i in range(6)]
        snr = tuple(s * math.sqrt(on / SETTINGS.rows) for s, on in zip(line.snr, rows, strict=True))
        parts.append(replace(part, snr=snr))
    return tuple(parts)


def spread(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return a line that is 300 to 3,000 Hz wide."""
    return (replace(line, width_hz=log_uniform(rng, 300, 3000)),)


def wandering(rng: np.random.Generator, line: Emitter) -> tuple[Emitter, ...]:
    """Return a line that wanders by up to 30 to 300 Hz either way in 100 to 1,000 s."""
    return (replace(line, wander_hz=log_uniform(rng, 30, 300), wander_s=log_uniform(rng, 100, 1000)),)


SHAPES: dict[str, Callable[[np.random.Generator, Emitter], tuple[Emitter, ...]]] = {
    STEADY: lambda _, line: (line,), "pulsed": pulsed, "chirped": chirped, "comb": comb,
    "modulated": modulated, "spread": spread, "wandering": wandering,
}  # fmt: skip


def row_middles(position: int) -> Float64[np.ndarray, " rows"]:
    """Return the times of the middles of an observation's rows, in s after the start of the cadence."""
    start_s = position * SCAN_STEP_S
    return start_s + SETTINGS.tsamp * (np.arange(SETTINGS.rows) + 0.5)


def draw_shapes(rng: np.random.Generator) -> list[tuple[str, float, tuple[Emitter, ...]]]:
    """Draw the signals of a patch: shape, SNR and emitters of each, far apart."""
    header, room, shapes = CADENCE.headers[0], SETTINGS.chans / PER_PATCH, []
    for i in range(PER_PATCH):
        name, snr = str(rng.choice(list(SHAPES))), float(rng.choice(SNRS))
        drift = rng.uniform(-MAX_DRIFT_HZ_S, MAX_DRIFT_HZ_S)
        middle_mhz = header.frequency(room * (i + 0.5) + rng.uniform(-0.15, 0.15) * room)
        line = Emitter(
            frequency_mhz=middle_mhz - drift * row_middles(2).mean() * 1e-6, drift_hz_s=drift,
            width_hz=log_uniform(rng, 2, 20), snr=in_ons(snr), kind=name,
        )  # fmt: skip
        shapes.append((name, snr, SHAPES[name](rng, line)))
    return shapes


def band_of(emitters: Sequence[Emitter], position: int) -> tuple[float, float]:
    """Return the lowest and the highest MHz of a signal in an observation, with room on either side."""
    tracks = np.array([emitter.track_mhz(row_middles(position)) for emitter in emitters])
    reach_mhz = (emitters[0].width_hz / 2 + ROOM_HZ) * 1e-6
    return float(tracks.min() - reach_mhz), float(tracks.max() + reach_mhz)


def search_patch(seed: int, kind: str, number: int, detector: Detector) -> dict[str, Any]:
    """Draw a patch, search it, and return its signals and the scores of its tracks and windows.

    Args:
        seed: of all patches.
        kind: of `SETS`.
        number: of the patch in its set.
        detector: a release.

    Returns:
        `shapes`: shape and SNR of each signal. `tracks`: probability of each track, best score of its windows, and
        index of its signal or -1. `windows`: score of each window, and index of its signal or -1.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAM, SETS.index(kind), number)))
    header, cadence = CADENCE.headers[0], CADENCE
    shapes = draw_shapes(rng) if kind == "shapes" else []
    emitters = [*zoo(rng, header, ZOO_PER_MHZ), *(emitter for _, _, parts in shapes for emitter in parts)]
    block = normalize_block(draw_power(rng, emitters, SETTINGS), cadence)
    tracks, rejections, _ = find_tracks(block, cadence, SearchSettings().gates)
    tracks = tracks[rejections == ""]
    tracks = tracks[merge(tracks, cadence)]
    starts = np.arange(0, SETTINGS.chans - WINDOW + 1, WINDOW // 2)
    latents = detector.encode_snippets(
        window_snippet(block, float(start), cadence, (SETTINGS.rows, SETTINGS.bins)) for start in starts
    )
    scores = detector.for_mode("windows").score(latents, np.empty((len(starts), 0), np.float32))
    probabilities = detector.score(latents, measurements(tracks, cadence)) if len(tracks) else []
    middles = channels_at(tracks, np.array([cadence.middles.mean()]))[:, 0]
    held = [float(scores[(starts <= at) & (at < starts + WINDOW)].max(initial=0.0)) for at in middles]
    bands = [[band_of(parts, i) for i in ON_POSITIONS] for _, _, parts in shapes]
    lines = cadence.mhz(channels_at(tracks, cadence.middles[list(ON_POSITIONS)]))
    of_tracks = [
        next(
            (i for i, band in enumerate(bands) if all(a <= at <= b for (a, b), at in zip(band, line, strict=True))), -1
        )
        for line in lines
    ]
    centers = [(sum(band[1]) / 2 - header.fch1) / header.foff for band in bands]
    of_windows = [next((i for i, at in enumerate(centers) if start <= at < start + WINDOW), -1) for start in starts]
    return {
        "shapes": [[name, snr] for name, snr, _ in shapes],
        "tracks": [[float(p), score, i] for p, score, i in zip(probabilities, held, of_tracks, strict=True)],
        "windows": [[float(score), i] for score, i in zip(scores, of_windows, strict=True)],
    }


def scores_of(patch: dict[str, Any], search: str) -> list[tuple[float, int]]:
    """Return what a search may report of a patch: score and index of the signal, or -1.

    Of windows that overlap, the one with the highest score is reported.
    """
    if search in ("released", "tracks"):
        return [(p, i) for p, _, i in patch["tracks"]]
    if search == "--mode windows":
        return [(score, i) for _, score, i in patch["tracks"]]
    scores = [-1.0, *(score for score, _ in patch["windows"]), -1.0]
    peaks = [i for i in range(1, len(scores) - 1) if scores[i] > scores[i - 1] and scores[i] >= scores[i + 1]]
    return [(scores[i], patch["windows"][i - 1][1]) for i in peaks]


def lowest_threshold(scores: Sequence[float], alarms: float) -> float:
    """Return the threshold that at most so many scores exceed; a score passes if it is above the threshold."""
    return sorted([*scores, *[0.0] * (int(alarms) + 1)], reverse=True)[int(alarms)]


def passing(patch: dict[str, Any], search: str, limits: dict[str, tuple[float, float]]) -> Iterator[int]:
    """Yield the index of the signal, or -1, of everything that a search reports of a patch.

    Args:
        patch: of `search_patch`.
        search: of `SEARCHES`.
        limits: thresholds of each search that has one, for the whole and for half of the budget.
    """
    if search == "tracks or network":
        for part in ("tracks", "network"):
            yield from (i for score, i in scores_of(patch, part) if score > limits[part][1])
    else:
        yield from (i for score, i in scores_of(patch, search) if score > limits[search][0])


def drawn(folder: Path, kind: str, count: int, seed: int, detector: Detector) -> list[dict[str, Any]]:
    """Return patches of a set; those that an earlier run finished are read from the folder.

    Args:
        folder: of the results.
        kind: of `SETS`.
        count: of patches.
        seed: of all patches.
        detector: a release.
    """
    made_by = hashlib.sha256(Path(__file__).read_bytes() + detector.release.sha256.encode()).hexdigest()[:12]
    path = folder / f"{kind}-{seed}-{made_by}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("\n")]
    path.write_text("".join(json.dumps(patch) + "\n" for patch in done))
    with path.open("a") as file:
        for number in range(len(done), count):
            done.append(search_patch(seed, kind, number, detector))
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    return done[:count]


def report(patches: dict[str, list[dict[str, Any]]], budget: float, released: float) -> Iterator[str]:
    """Yield the lines of a table of recall by shape, and of the alarms of each search, at a budget.

    Args:
        patches: of each set.
        budget: alarms per 100 MHz.
        released: the release's own threshold.
    """
    allowed = budget / 100 * MHZ * len(patches["thresholds"])
    limits = {"released": (math.nextafter(released, 0.0),) * 2}  # the search reports a track at its threshold too
    for search in ("tracks", "--mode windows", "network"):
        scores = [score for patch in patches["thresholds"] for score, _ in scores_of(patch, search)]
        limits[search] = (lowest_threshold(scores, allowed), lowest_threshold(scores, allowed / 2))
    columns = ("past the gates", *SEARCHES)
    found: dict[str, Counter[tuple[str, float]]] = {name: Counter() for name in columns}
    drawn = Counter((name, snr) for patch in patches["shapes"] for name, snr in patch["shapes"])
    for patch in patches["shapes"]:
        for column in columns:
            reported = (i for _, _, i in patch["tracks"]) if column == columns[0] else passing(patch, column, limits)
            found[column].update((name, snr) for name, snr in (patch["shapes"][i] for i in {*reported} - {-1}))
    yield f"\nAt most {budget:g} alarms per 100 MHz; signals of SNR {', '.join(f'{snr:g}' for snr in SNRS)}:\n"
    yield f"| shape | drawn | {' | '.join(columns)} |"
    yield f"|{'---|' * (2 + len(columns))}"
    for shape in SHAPES:
        cells = [", ".join(str(counts[shape, snr]) for snr in SNRS) for counts in (drawn, *found.values())]
        yield f"| {shape} | {' | '.join(cells)} |"
    total, *sums = (
        sum(count for (shape, _), count in counts.items() if shape != STEADY) for counts in (drawn, *found.values())
    )
    yield f"| all but the steady line | {total} | {' | '.join(interval(k, total) for k in sums)} |"
    mhz, cells = MHZ * len(patches["alarms"]), [""]
    for search in SEARCHES:
        count = sum(len([*passing(patch, search, limits)]) for patch in patches["alarms"])
        low, high = (bound / mhz * 100 for bound in count_interval(count))
        cells.append(f"{count}: {low:.2g} to {high:.2g} per 100 MHz")
    yield f"| alarms in {mhz:.0f} MHz | | {' | '.join(cells)} |"


def interval(k: int, n: int) -> str:
    """Return a fraction and its interval in percent, as text."""
    return f"{k / n:.1%}, {{:.1%}} to {{:.1%}}".format(*fraction_interval(k, n)) if n else ""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--background-mhz", type=float, default=60, help="of each set without signals")
    options.add_argument("--shape-mhz", type=float, default=25, help="of the set with signals")
    options.add_argument("--release", type=Path, default=Path(__file__).resolve().parents[1] / "models" / "equinox")
    options.add_argument("--output", type=Path, default=Path("shapes"))
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    detector = load_detector(given.release)
    patches = {}
    for kind in SETS:
        count = math.ceil((given.shape_mhz if kind == "shapes" else given.background_mhz) / MHZ)
        patches[kind] = drawn(given.output, kind, count, given.seed, detector)
    for budget in BUDGETS:
        print("\n".join(report(patches, budget, detector.threshold)))


if __name__ == "__main__":
    main()
