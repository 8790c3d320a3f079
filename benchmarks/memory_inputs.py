"""Measure what the memory of interference is worth as an input of the forest, on nights with persistent emitters.

Run from the repository root: `python benchmarks/memory_inputs.py FOLDER [FIT CALIBRATE JUDGE [SEED]]`, by default 36,
16 and 20 nights. Nights are drawn once, into a file each in FOLDER, so that a second run only fits forests. All
takes about ten minutes of an idle core.

A night has twenty pointings of 0.73 MHz; the last six are at the targets of the first six. Each pointing has ten steady
signals of SNR 4 to 24 in the ONs. Half of them return with their target. There are 30 persistent emitters per MHz,
whose frequency scatters by 200 Hz from pointing to pointing. In 30% of the pointings an emitter is in a side lobe: it
has SNR 4 to 60 in the ONs, and 0.12 to 0.35 of that in each OFF. In 40% it is in all six scans, with SNR 3 to 1,000;
else it is absent. Emitters of every kind that are there once have 4 per MHz. In the nights to which forests are fitted,
density, scatter and presence of the emitters vary, and 30% of the signals pulse or curve.

Compared are, at equal numbers of alarms: the forest of the release; forests fitted to the same tracks, with the
measurements alone and with inputs from memory; the rank of messages; and sums of log odds, of a forest that knows no
memory and of a logistic regression on memory. A third of the examples are fitted with an empty memory. Remembered are
the lines of earlier pointings at other targets that the ON/OFF rule rejects, or that pass the gates. An alarm is a
track that passes the gates and lies on no signal. Intervals are of 95%, over resampled nights.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.release import MEASUREMENTS
from aetherscan.detector.saved_forest import load_forest, tree_share
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.features import measurements
from aetherscan.search.follow import HIT_SNR, SNR
from aetherscan.search.on_off import BRIGHT_HIT, find_tracks, home_channels, merge
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import _kind, _match
from aetherscan.train.forest import FAINT_WEIGHT, LEAVES, MAX_FEATURES, ON_TOGETHER, ZOO_SNR
from aetherscan.train.random_forest import fit_forest
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header
from sentinel.store.schema import FEW_CADENCES

POINTINGS, RETURNING, NCHANS, SEED = 20, 6, 2**18, 20_417
SETS, NIGHTS = ("fit", "calibrate", "judge"), (36, 16, 20)
PER_MHZ, ONCE_PER_MHZ, SIGNALS, SCATTER_HZ = 30.0, 4.0, 10, 200.0
LOBE, BRIGHT = 0.3, 0.4
"""Share of the pointings in which a persistent emitter is in a side lobe, and in all six scans."""
SAME_HZ, AROUND = 500.0, np.array([*range(-30, -1), *range(2, 31)])
"""Reach within which a line is at a frequency, and the places around one, in units of the reach."""
MEMORY = ("seen_share", "seen_of", "seen_on", "seen_off", "seen_around")
"""Inputs from memory: share of the pointings that have a line there, -1 without pointings; their number; log2 of the
SNR of the brightest line there, in the ONs and in the OFFs, over that of the track in the ONs; and share of the places
around that have a line in any pointing, -1 without pointings."""
DRIFT = MEASUREMENTS.index("drift_hz_s")
EVERY, NO_DRIFT = tuple(range(len(MEASUREMENTS))), tuple(i for i in range(len(MEASUREMENTS)) if i != DRIFT)
FORESTS = {
    "measurements": (EVERY, 0),
    "measurements, share and number": (EVERY, 2),
    "measurements, all of memory": (EVERY, 5),
    "measurements without drift": (NO_DRIFT, 0),
    "the same, share and number": (NO_DRIFT, 2),
}
"""Forests that are fitted: the measurements that they read, and how many of `MEMORY`."""
TREES, COPIES, EMPTY = 100, 4, 1 / 3
"""Trees of a forest, random memories that each example is fitted with, and share of them that are empty."""
BUDGETS = (40.0, 20.0, 10.0)
"""Alarms per 100 MHz."""
SNRS = {"SNR 5": (4.5, 5.5), "6": (5.5, 7.0), "8": (7.0, 9.0), ">= 10": (10.0, 99.0)}
FAINT, SLOW_HZ_S, RESAMPLED = (4.5, 9.0), 0.1, 400

ROUNDING = 1e-9
"""Keeps a share of trees whose probability is just below the threshold below the share at the threshold."""
SERVED = json.loads(Path("models/equinox/release.json").read_text(encoding="utf-8"))["modes"]["tracks"]
"""Part of the card of the release."""

Night = dict[str, np.ndarray]


def draw(folder: Path, counts: tuple[int, ...], seed: int) -> None:
    """Draw the nights that are missing in a folder, those of all sets in turn."""
    pairs = list(zip(SETS, counts, strict=True))
    for _, name, number in sorted((number / count, name, number) for name, count in pairs for number in range(count)):
        path = folder / f"{name}-{seed}-{number:03d}.npz"
        if path.exists():
            continue
        drawn = draw_night(np.random.SeedSequence(seed, spawn_key=(SETS.index(name), number)), varied=name == "fit")
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.savez_compressed(stream, **drawn)
        unfinished.rename(path)
        print(
            f"{path.name}: {len(drawn['track_mhz'])} tracks pass the gates, {len(drawn['line_mhz'])} lines", flush=True
        )


def draw_night(seed: np.random.SeedSequence, *, varied: bool) -> Night:
    """Search the pointings of a night; return the tracks that pass the gates, the signals, and the lines to remember.

    Args:
        seed: of the night.
        varied: whether density, scatter and presence of the emitters are drawn, and some signals pulse or curve.
    """
    rng = np.random.default_rng(seed)
    settings = ExampleSettings(
        chans=NCHANS, tones=SIGNALS, unsteady=0.3 if varied else 0.0, signal_snr=(4.0, 24.0),
        interference=round(ONCE_PER_MHZ * NCHANS * 2.794e-6),
    )  # fmt: skip
    header = patch_header(settings)
    cadence, (low, high) = geometry_of(Sky(header=header).headers()), header.band_mhz
    per_mhz, scatter_hz = (log_uniform(rng, 10, 90), log_uniform(rng, 50, 500)) if varied else (PER_MHZ, SCATTER_HZ)
    places = rng.uniform(low, high, rng.poisson(per_mhz * (high - low)))
    present = rng.uniform(0.3, 1.0, len(places)) if varied else np.full(len(places), LOBE + BRIGHT)
    lobe_share = rng.uniform(0.1, 0.8, len(places)) if varied else np.full(len(places), LOBE / (LOBE + BRIGHT))
    parts, before = list[Night](), list[list[Emitter]]()
    for pointing in range(POINTINGS):
        signals, others = draw_emitters(rng, settings, header)
        back = pointing - (POINTINGS - RETURNING)
        if back >= 0:
            returned = [_again(rng, signal) for signal in before[back][: SIGNALS // 2]]
            signals = [*returned, *signals[len(returned) :]]
        before.append(signals)
        for mhz, here, lobes in zip(places, present, lobe_share, strict=True):
            at = mhz + rng.normal(0, scatter_hz * 1e-6)
            others += _persistent(rng, at, here * lobes, here * (1 - lobes))
        parts.append(draw_pointing(rng, signals, others, settings, cadence))
        parts[-1]["signal_returns"] = np.arange(SIGNALS) < (SIGNALS // 2 if back >= 0 else 0)
        for name in ("track", "signal", "line"):
            parts[-1][f"{name}_pointing"] = np.full(len(parts[-1][f"{name}_mhz"]), pointing)
    targets = np.arange(POINTINGS) % (POINTINGS - RETURNING)
    return {**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, "targets": targets}


def _persistent(rng: np.random.Generator, mhz: float, lobe: float, bright: float) -> list[Emitter]:
    """Return what one pointing sees of a persistent emitter: one emitter, or none.

    Args:
        rng: of the draw.
        mhz: frequency.
        lobe: probability that it is in a side lobe.
        bright: probability that it is in all six scans.
    """
    what, drift, width = rng.random(), rng.normal(0, 0.05), log_uniform(rng, 1, 30)
    if what > lobe + bright:
        return []
    if what < lobe:
        snr, kind = log_uniform(rng, 4, 60), "side_lobe"
        snrs = tuple(snr * (rng.uniform(0.12, 0.35) if i % 2 else 1.0) for i in range(6))
    else:
        snr, kind = log_uniform(rng, 3, 1000), "persistent"
        snrs = tuple(snr * rng.uniform(0.7, 1.3) for _ in range(6))
    return [Emitter(frequency_mhz=mhz, drift_hz_s=drift, width_hz=width, snr=snrs, kind=kind)]


def _again(rng: np.random.Generator, signal: Emitter) -> Emitter:
    """Return a signal as it is seen later: a little beside its frequency, and fainter or brighter by a quarter."""
    times = rng.uniform(0.8, 1.25)
    return replace(
        signal,
        frequency_mhz=signal.frequency_mhz + rng.normal(0, SCATTER_HZ) * 1e-6,
        snr=tuple(snr * times for snr in signal.snr),
    )


def draw_pointing(
    rng: np.random.Generator,
    signals: list[Emitter],
    others: list[Emitter],
    settings: ExampleSettings,
    cadence: Geometry,
) -> Night:
    """Search one pointing; return its tracks that pass the gates, its signals, and its lines.

    Args:
        rng: of the noise.
        signals: that are injected.
        others: interference.
        settings: of the patch.
        cadence: its geometry.
    """
    block = normalize_block(draw_power(rng, [*signals, *others], settings), cadence)
    tracks, rejections, _ = find_tracks(block, cadence, SearchSettings().gates)
    passed = tracks[rejections == ""]
    passed = passed[merge(passed, cadence)]
    known = (rejections == "in_an_off") | ((rejections != "") & (tracks[:, HIT_SNR] >= BRIGHT_HIT))
    lines = np.concatenate([tracks[known], passed])
    strength = np.nan_to_num(lines[:, SNR::2])
    matches = np.array([[_match(track, [signal], cadence)[0] for signal in signals] for track in passed])
    matches = matches.reshape(-1, len(signals))
    on_signal = np.where((matches == 1).any(axis=1), matches.argmax(axis=1), -1)
    return {
        "track_mhz": cadence.mhz(home_channels(passed, cadence)),
        "track_measurements": measurements(passed, cadence),
        "track_signal": np.where((on_signal < 0) & (matches < 0).any(axis=1), -2, on_signal),  # -2: near a signal
        "track_kind": np.array([_kind(track, others, cadence) for track in passed], dtype="U16"),
        "signal_mhz": np.array([signal.frequency_mhz for signal in signals]),
        "signal_snr": np.array([np.mean([signal.snr[i] for i in cadence.on]) for signal in signals]),
        "line_mhz": cadence.mhz(home_channels(lines, cadence)),
        "line_on": strength[:, cadence.on].mean(axis=1),
        "line_off": strength[:, cadence.off].mean(axis=1),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Tracks and signals of several nights, and the lines near each track in every pointing of its night."""

    measurements: np.ndarray  # (tracks, measurements)
    signal: np.ndarray  # number of the signal that a track is; -1: none, -2: near one
    kind: np.ndarray  # of the interference that it is
    night: np.ndarray
    earlier: np.ndarray  # (tracks, pointings): whether the pointing is before that of the track
    elsewhere: np.ndarray  # (tracks, pointings): whether it has another target
    seen: np.ndarray  # (tracks, pointings): whether a line is within `SAME_HZ`
    on: np.ndarray  # (tracks, pointings): mean SNR of the brightest of these in the ONs, 0 for none
    off: np.ndarray  # (tracks, pointings): and in the OFFs
    around: np.ndarray  # (tracks, pointings, places): whether there is a line at each of `AROUND`
    signal_snr: np.ndarray  # mean in the ONs
    signal_returns: np.ndarray  # whether it was in an earlier pointing at the same target
    signal_night: np.ndarray

    @property
    def snr(self) -> np.ndarray:
        """Mean SNR of each track in the ONs."""
        return self.measurements[:, ON_TOGETHER] / 3**0.5

    @property
    def other_targets(self) -> np.ndarray:
        """Which earlier pointings had another target, (tracks, pointings)."""
        return self.earlier & self.elsewhere

    @property
    def is_alarm(self) -> np.ndarray:
        """Whether a track that scores enough is an alarm."""
        return self.signal == -1

    def memory(self, pointings: np.ndarray) -> np.ndarray:
        """Return the columns of `MEMORY` for each track from the chosen pointings (tracks, pointings)."""
        of, near = pointings.sum(axis=1), self.seen & pointings
        on, off = (np.where(near, strength, 0).max(axis=1) for strength in (self.on, self.off))
        columns = {
            "seen_share": np.where(of, near.sum(axis=1) / np.maximum(of, 1), -1),
            "seen_of": of,
            "seen_on": np.log2(np.maximum(on, 0.25) / self.snr),
            "seen_off": np.log2(np.maximum(off, 0.25) / self.snr),
            "seen_around": np.where(of, (self.around & pointings[:, :, None]).any(axis=1).mean(axis=1), -1),
        }
        assert tuple(columns) == MEMORY
        return np.stack(list(columns.values()), axis=1).astype(np.float32)


def read(folder: Path, name: str, seed: int, *, others: bool = False) -> Tracks:
    """Return the tracks of the nights of a set that were drawn.

    Args:
        folder: of the nights.
        name: of the set.
        seed: of all nights.
        others: whether the lines are those of the next night, whose emitters have nothing to do with the tracks.
    """
    parts, signals, nights = list[Night](), 0, list[Night]()
    for path in sorted(folder.glob(f"{name}-{seed}-*.npz")):
        with np.load(path) as drawn:
            nights.append({key: drawn[key] for key in drawn.files})
    for number, night in enumerate(nights):
        pointing, target, signal = night["track_pointing"], night["targets"], night["track_signal"]
        count, remembered = len(night["signal_snr"]), nights[(number + others) % len(nights)]
        parts.append({
            "measurements": night["track_measurements"], "kind": night["track_kind"],
            "signal": np.where(signal >= 0, signal + pointing * SIGNALS + signals, signal),
            "night": np.full(len(pointing), number), "earlier": pointing[:, None] > np.arange(POINTINGS),
            "elsewhere": target[pointing][:, None] != target, "signal_snr": night["signal_snr"],
            "signal_returns": night["signal_returns"], "signal_night": np.full(count, number),
            **_lines_near(night, remembered),
        })  # fmt: skip
        signals += count
    return Tracks(**{key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def _lines_near(night: Night, remembered: Night) -> Night:
    """Return the columns `seen`, `on`, `off` and `around` of `Tracks`, for the lines of a night that is remembered."""
    mhz, reach = night["track_mhz"], SAME_HZ * 1e-6
    near = {name: np.zeros((len(mhz), POINTINGS)) for name in ("on", "off")}
    seen, around = np.zeros((len(mhz), POINTINGS), bool), np.zeros((len(mhz), POINTINGS, len(AROUND)), bool)
    for pointing in range(POINTINGS):
        there = np.flatnonzero(remembered["line_pointing"] == pointing)
        there = there[np.argsort(remembered["line_mhz"][there])]
        lines, grid = remembered["line_mhz"][there], mhz[:, None] + AROUND * reach
        first, last = np.searchsorted(lines, mhz - reach), np.searchsorted(lines, mhz + reach)
        seen[:, pointing] = last > first
        around[:, pointing] = np.searchsorted(lines, grid + reach) > np.searchsorted(lines, grid - reach)
        for i in np.flatnonzero(last > first):
            best = max(there[first[i] : last[i]], key=lambda line: remembered["line_on"][line])
            near["on"][i, pointing], near["off"][i, pointing] = (
                remembered["line_on"][best],
                remembered["line_off"][best],
            )
    return {**near, "seen": seen, "around": around}


BASES = {
    "release": "release", "measurements without": "measurements without drift",
    "the same": "measurements without drift", "measurements": "measurements",
}  # fmt: skip
"""By the beginning of its name: with which score one is compared."""
Score = Callable[[Tracks, np.ndarray], np.ndarray]
"""Scores tracks, given which pointings are remembered (tracks, pointings)."""


def scorers(fit: Tracks, seed: int) -> dict[str, Score]:
    """Fit what is compared."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(SETS),)))
    used = np.flatnonzero(fit.signal != -2)
    memories = [fit.memory(_random_pointings(rng, fit.elsewhere))[used] for _ in range(COPIES)]
    measured, labels = fit.measurements[used], (fit.signal[used] >= 0).astype(np.float32)
    weights = np.where((labels == 0) & (fit.snr[used] < ZOO_SNR[0]), FAINT_WEIGHT, 1.0).astype(np.float32)
    print(f"fitted to {int(labels.sum())} signals and {int((labels == 0).sum())} others", flush=True)
    release = load_forest(Path("models/equinox/tracks.skops"))

    def share(tracks: Tracks, _: np.ndarray) -> np.ndarray:
        return tree_share(release, tracks.measurements)

    def rank(tracks: Tracks, pointings: np.ndarray) -> np.ndarray:
        n, m = (tracks.seen & pointings).sum(axis=1), pointings.sum(axis=1)
        return calibrated(share(tracks, pointings)) * (1 - n / (m + FEW_CADENCES))

    scored: dict[str, Score] = {"release": share, "release, rank of messages": rank}
    odds = _with_odds(share, tree_share(release, measured), memories, labels, weights)
    scored["release, odds of memory"] = odds
    scored["release, odds that only fall"] = lambda tracks, pointings: np.minimum(
        odds(tracks, pointings), odds(tracks, np.zeros_like(pointings))
    )
    for name, (chosen, count) in FORESTS.items():
        rows = [np.concatenate([measured[:, chosen], memory[:, :count]], axis=1) for memory in memories]
        forest = fit_forest(
            np.concatenate(rows), np.tile(labels, COPIES), seed, TREES, weights=np.tile(weights, COPIES),
            max_features=MAX_FEATURES["tracks"], max_leaf_nodes=LEAVES["tracks"], n_jobs=1,
        )  # fmt: skip
        scored[name] = partial(_share_of, forest, chosen, count)
    return scored


def _share_of(forest: object, chosen: tuple[int, ...], count: int, tracks: Tracks, pointings: np.ndarray) -> np.ndarray:
    """Return the share of trees of a forest that was fitted here.

    Args:
        forest: that scores.
        chosen: measurements that it reads.
        count: how many of `MEMORY` it reads.
        tracks: to score.
        pointings: that are remembered.
    """
    rows = [tracks.measurements[:, chosen], tracks.memory(pointings)[:, :count]]
    return tree_share(forest, np.concatenate(rows, axis=1))


def _random_pointings(rng: np.random.Generator, elsewhere: np.ndarray) -> np.ndarray:
    """Return for each track a random set of the pointings at other targets; `EMPTY` of the sets are empty."""
    count = np.where(rng.random(len(elsewhere)) < EMPTY, 0, rng.integers(1, elsewhere.sum(axis=1) + 1))
    order = np.where(elsewhere, rng.random(elsewhere.shape), 2).argsort(axis=1).argsort(axis=1)
    return np.asarray(order < count[:, None])


def _with_odds(
    score: Score, fitted: np.ndarray, memories: list[np.ndarray], labels: np.ndarray, weights: np.ndarray
) -> Score:
    """Return a score whose log odds are raised or lowered by a logistic regression on memory; empty changes nothing.

    Args:
        score: share of trees of a forest without memory.
        fitted: that of the examples.
        memories: several of each example.
        labels: of the examples.
        weights: of the examples.
    """

    def terms(shares: np.ndarray, memory: np.ndarray) -> np.ndarray:
        (part, of, on), known = memory[:, :3].T, memory[:, 1] > 0
        count = np.where(known, part * of, 0)
        seen = [known, known * np.log1p(of), count > 0, np.log1p(count), (count > 0) * on]
        return np.stack([logit(np.clip(shares, 0.002, 0.998)), *seen], axis=1)

    regression = LogisticRegression(C=10.0, max_iter=1000)
    rows = np.concatenate([terms(fitted, memory) for memory in memories])
    regression.fit(rows, np.tile(labels, len(memories)), np.tile(weights, len(memories)))
    slope, intercept = regression.coef_[0, 0], regression.intercept_[0]

    def log_odds(tracks: Tracks, pointings: np.ndarray) -> np.ndarray:
        rows = terms(score(tracks, pointings), tracks.memory(pointings))
        return np.asarray((regression.decision_function(rows) - intercept) / slope)

    return log_odds


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores of a set of nights: of the best track on each signal, and of each alarm."""

    signals: np.ndarray
    alarms: np.ndarray

    @staticmethod
    def of(score: Score, tracks: Tracks, pointings: np.ndarray) -> "Scored":
        """Score tracks, given which pointings are remembered."""
        scores, on_signal = score(tracks, pointings), tracks.signal >= 0
        best = np.full(len(tracks.signal_snr), -np.inf)
        np.maximum.at(best, tracks.signal[on_signal], scores[on_signal])
        return Scored(signals=best, alarms=scores[tracks.is_alarm])

    def limit(self, alarms: float, times: np.ndarray | None = None) -> float:
        """Return the lowest score that at most so many alarms reach, where each alarm counts so many times."""
        order = np.argsort(-self.alarms)
        counts = np.cumsum(np.ones(len(order)) if times is None else times[order])
        first = int(np.searchsorted(counts, alarms, side="right"))
        return float(np.nextafter(self.alarms[order[first]], np.inf)) if first < len(order) else -np.inf


def gain(one: Scored, other: Scored, tracks: Tracks, alarms: float) -> str:
    """Return by how many points the recall of faint signals differs at so many alarms, and its interval.

    Args:
        one: scores.
        other: scores without what is compared.
        tracks: that were scored.
        alarms: in these nights.
    """
    faint = (tracks.signal_snr >= FAINT[0]) & (tracks.signal_snr < FAINT[1])
    nights, alarm_night = tracks.signal_night.max() + 1, tracks.night[tracks.is_alarm]

    def difference(times: np.ndarray) -> float:
        counts = times[tracks.signal_night] * faint
        hits = [
            counts[each.signals >= each.limit(alarms, times[alarm_night])].sum() / counts.sum() for each in (one, other)
        ]
        return 100 * float(hits[0] - hits[1])

    rng = np.random.default_rng(nights)
    resampled = [difference(rng.multinomial(nights, np.full(nights, 1 / nights))) for _ in range(RESAMPLED)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return f"{difference(np.ones(nights)):+.1f} ({low:+.1f} to {high:+.1f})"


def mhz_of(tracks: Tracks) -> float:
    """Return the band that was searched."""
    return float(tracks.signal_night.max() + 1) * POINTINGS * NCHANS * ExampleSettings().hz * 1e-6


def recalls(scored: Scored, limit: float, tracks: Tracks) -> list[str]:
    """Return the recall in each of `SNRS`."""
    inside = [(tracks.signal_snr >= low) & (tracks.signal_snr < high) for low, high in SNRS.values()]
    return [f"{100 * np.mean(scored.signals[part] >= limit):.1f}" for part in inside]


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    print(
        f"\n{title}\n",
        *(" | ".join(("", *row, "")).strip() for row in (columns, ["---"] * len(columns), *rows)),
        sep="\n",
    )


def compare(fit: Tracks, calibrate: Tracks, judge: Tracks, unrelated: Tracks, seed: int) -> None:
    """Print recall and alarms of every score at equal alarms, and how slow and returning signals fare.

    Args:
        fit: nights to which forests are fitted.
        calibrate: nights that give the thresholds.
        judge: nights that are judged.
        unrelated: the same, with the lines of other nights.
        seed: of the fits.
    """
    scored, mhz = scorers(fit, seed), mhz_of(judge)
    drawn = [int(((judge.signal_snr >= low) & (judge.signal_snr < high)).sum()) for low, high in SNRS.values()]
    lobes = int((judge.is_alarm & (judge.kind == "side_lobe")).sum())
    print(f"judged: {mhz:.0f} MHz, {drawn} signals of {', '.join(SNRS)}")
    print(f"tracks on no signal: {judge.is_alarm.sum()}, of which {lobes} are in side lobes")
    thresholds = {name: Scored.of(score, calibrate, calibrate.other_targets) for name, score in scored.items()}
    known = {name: Scored.of(score, judge, judge.other_targets) for name, score in scored.items()}
    empty = {name: Scored.of(score, judge, np.zeros_like(judge.earlier)) for name, score in scored.items()}
    alien = {name: Scored.of(score, unrelated, unrelated.other_targets) for name, score in scored.items()}
    for budget in BUDGETS:
        rows = []
        for name, there in known.items():
            limit = thresholds[name].limit(budget * mhz_of(calibrate) / 100)
            base = next(each for each in BASES if name.startswith(each))
            alarms, found = budget * mhz / 100, recalls(there, limit, judge)
            gains = [gain(scores[name], scores[BASES[base]], judge, alarms) for scores in (known, empty)]
            counted = [str((each[name].alarms >= limit).sum()) for each in (known, empty, alien)]
            rows.append([name, *found, *counted, *gains])
        title = f"{budget:g} alarms per 100 MHz, thresholds of other nights; gain at {round(budget * mhz / 100)} alarms"
        counts = ["alarms", "without memory", "with another night's"]
        table(title, ["score", *SNRS, *counts, "gain", "gain without memory"], rows)
    rows = []
    for name, limit in served_limits().items():
        for memory, there in (("with memory", known), ("without", empty), ("with another night's", alien)):
            scores = there[name]
            rows.append([f"{name}, {memory}", *recalls(scores, limit, judge), str((scores.alarms >= limit).sum())])
    table("At the threshold of the release", ["score", *SNRS, "alarms"], rows)
    faint = (judge.signal_snr >= FAINT[0]) & (judge.signal_snr < FAINT[1])
    drifts = np.full(len(faint), np.nan)
    on_signal = judge.signal >= 0
    drifts[judge.signal[on_signal]] = judge.measurements[on_signal, DRIFT]
    back = judge.signal_returns
    parts = {
        f"drift up to {SLOW_HZ_S} Hz/s": faint & (drifts <= SLOW_HZ_S), "faster": faint & (drifts > SLOW_HZ_S),
        "new": faint & ~back, "returned": faint & back,
    }  # fmt: skip
    rows = []
    for name, there in known.items():
        limit, same_too = there.limit(BUDGETS[1] * mhz / 100), Scored.of(scored[name], judge, judge.earlier)
        found = [np.mean(there.signals[part] >= limit) for part in parts.values()]
        found.append(np.mean(same_too.signals[parts["returned"]] >= limit))
        rows.append([name, *(f"{100 * value:.1f}" for value in found)])
    columns = ["score", *(f"{name} ({part.sum()})" for name, part in parts.items()), "its target remembered"]
    table(f"Signals of SNR {FAINT[0]:g} to {FAINT[1]:g} found, at {BUDGETS[1]:g} alarms per 100 MHz", columns, rows)


def calibrated(shares: np.ndarray) -> np.ndarray:
    """Return the probability that the release gives to shares of trees."""
    return np.interp(shares, SERVED["calibration"]["score"], SERVED["calibration"]["probability"])


def served_limits() -> dict[str, float]:
    """Return the score at the threshold of the release, of each score that the release gives."""
    points, least = SERVED["calibration"], SERVED["threshold"]
    share = float(np.interp(least, points["probability"], points["score"])) + ROUNDING
    odds = dict.fromkeys(("release, odds of memory", "release, odds that only fall"), float(logit(share)))
    return {"release": share, "release, rank of messages": least, **odds}


def main(folder: str, *numbers: str) -> None:
    given = [int(number) for number in numbers]
    *counts, seed = *given, *(*NIGHTS, SEED)[len(given) :]
    Path(folder).mkdir(parents=True, exist_ok=True)
    draw(Path(folder), tuple(counts), seed)
    fit, calibrate, judge = (read(Path(folder), name, seed) for name in SETS)
    compare(fit, calibrate, judge, read(Path(folder), SETS[-1], seed, others=True), seed)


if __name__ == "__main__":
    main(*sys.argv[1:])
