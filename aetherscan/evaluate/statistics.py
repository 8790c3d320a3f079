"""The statistics of an evaluation, each with its counts and its 95% interval.

A fraction has Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953), a count of alarms the exact Poisson
interval (Garwood 1936, doi:10.1093/biomet/28.3-4.437), a percentile the interval between order statistics.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import binomtest, chi2, quantile_test

from aetherscan.evaluate.matching import MatchedDetection, ScoredSearch, ToneOutcome
from aetherscan.evaluate.scenarios import SNRS

RELEASED, SWAPPED, ALL_DETECTIONS = "release", "swapped", "release without threshold"
AGAIN, OTHER_BLOCKS = "again", "other blocks"
"""Names of the searchers of an evaluation."""
DRIFTS, WIDTHS, CURVATURES = (0, 0.1, 0.5, 1, 2, 4), (2, 5, 12, 50), (0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
"""Edges of the bins of drift rate (Hz/s), width (Hz) and curvature (Hz/s^2)."""
DENSITIES = (0, 1, 15, 100, 300)
"""Edges of the bins of interferers per MHz."""
IDENTICAL, SWAPPED_SHARE = "identical candidate tables", "fraction of alarms in the swapped search, without side lobes"
FRACTIONS = ("recall", "fraction reported", IDENTICAL, SWAPPED_SHARE)
"""Measures that are fractions."""
GROUPINGS = (
    (), ("bright",), ("snr",), ("bright", "near"), ("bright", "drift"), ("bright", "width"), ("bright", "curvature"),
    ("bright", "density"), ("bright", "ons"), ("snr", "near"), ("snr", "drift"), ("snr", "width"),
    ("snr", "drift", "width"),
)  # fmt: skip
"""Labels of tones by which recall is split."""
BRIGHT = "SNR >= 10"
THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
TARGETS: tuple[tuple[str, str, str, str, dict[str, str], str, float], ...] = (
    # description, scenario, searcher, measure, group, at least or at most, goal
    *(
        (f"recall at SNR {snr} {place}", scenario, RELEASED, "recall", {"snr": snr}, ">=", goal)
        for scenario, place, goals in (
            ("tones_alone", "in noise with bursts", {"5": 0.85, "6": 0.96, "8": 0.98}),
            ("tones", "in the zoo", {"5": 0.80, "6": 0.92, "8": 0.96}),
            ("pulsed", "of pulsed tones", {"8": 0.85}),
        )
        for snr, goal in goals.items()
    ),
    ("recall at SNR >= 10 in noise with bursts", "tones_alone", RELEASED, "recall", {"bright": BRIGHT}, ">=", 0.99),
    ("recall at SNR >= 10 in the zoo", "tones", RELEASED, "recall", {"bright": BRIGHT}, ">=", 0.98),
    ("recall at SNR >= 10 of pulsed tones", "pulsed", RELEASED, "recall", {"bright": BRIGHT}, ">=", 0.98),
    *(
        (f"recall at SNR >= 10 of tones curved by {bend}", "curved", RELEASED, "recall",
         {"bright": BRIGHT, "curvature": bend}, ">=", goal)
        for bend, goal in {"0.0001-0.0003 Hz/s2": 0.95, "0.0003-0.001 Hz/s2": 0.75}.items()
    ),
    ("alarms per 100 MHz of the zoo", "zoo", RELEASED, "alarms per 100 MHz", {}, "<=", 0.5),
    ("the same with ON and OFF swapped", "zoo", SWAPPED, "alarms per 100 MHz", {}, "<=", 0.5),
    ("alarms per 100 MHz of noise with bursts", "noise", RELEASED, "alarms per 100 MHz", {}, "<=", 0),
    ("identical tables when searched again", "tones", AGAIN, IDENTICAL, {}, ">=", 1),
    ("identical tables with other blocks", "tones", OTHER_BLOCKS, IDENTICAL, {}, ">=", 1),
    ("detections per tone found", "tones", RELEASED, "detections per tone", {}, "<=", 1),
    ("median frequency error at SNR >= 10, Hz", "tones", RELEASED, "median of frequency_error_hz",
     {"bright": BRIGHT}, "<=", 2.8),
    ("95th percentile of the drift error at SNR >= 10, Hz/s", "tones", RELEASED, "95th percentile of drift_error_hz_s",
     {"bright": BRIGHT}, "<=", 0.05),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One number of the report: k of n as a fraction, k in n as a rate, or another value from n things."""

    scenario: str
    searcher: str
    measure: str
    group: dict[str, str]  # labels that the tones or alarms share
    k: int | None = None
    n: float
    unit: str  # of n
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """A target of the evaluation and the statistic that was measured for it."""

    description: str
    goal: str
    met: bool
    statistic: Statistic


def fraction_interval(k: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a fraction, k of n; n is at least 1."""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def count_interval(k: int) -> tuple[float, float]:
    """Return the 95% interval of the expected count of rare events of which k were seen."""
    low = float(chi2.ppf(0.025, 2 * k)) / 2 if k else 0.0
    return low, float(chi2.ppf(0.975, 2 * k + 2)) / 2


def _bin(value: float, edges: Sequence[float], unit: str) -> str:
    upper = int(np.clip(np.searchsorted(edges, value, side="right"), 1, len(edges) - 1))
    return f"{edges[upper - 1]:g}-{edges[upper]:g} {unit}"


def labels(tone: ToneOutcome) -> dict[str, str]:
    """Return the labels of a tone by which recall is split."""
    nominal = min(SNRS, key=lambda snr: abs(snr - tone.snr))
    return {
        "snr": f"{nominal:g}" if abs(nominal - tone.snr) < 0.01 else "other",
        "bright": BRIGHT if tone.snr > 9.99 else "SNR < 10",
        "drift": _bin(abs(tone.drift_hz_s), DRIFTS, "Hz/s"),
        "width": _bin(tone.width_hz, WIDTHS, "Hz"),
        "curvature": _bin(abs(tone.curvature_hz_s2), CURVATURES, "Hz/s2"),
        "near": "near an emitter" if tone.near else "clear of emitters",
        "ons": f"in {tone.ons} ONs",
    }


def _density(search: ScoredSearch) -> str:
    return _bin(search.density, DENSITIES, "per MHz")


def summarize(searches: Sequence[ScoredSearch]) -> list[Statistic]:
    """Return every statistic of the report; repeated searches only give the fraction of identical candidate tables."""
    groups = defaultdict[tuple[str, str], list[ScoredSearch]](list)
    released = {(search.scenario, search.cadence): search for search in searches if search.searcher == RELEASED}
    for search in searches:
        groups[search.scenario, search.searcher].append(search)
    found = list[Statistic]()
    for (scenario, searcher), group in groups.items():
        statistic = partial(Statistic, scenario=scenario, searcher=searcher)
        if searcher in {AGAIN, OTHER_BLOCKS}:
            identical = [search.digest == released[scenario, search.cadence].digest for search in group]
            found.append(_fraction(statistic, IDENTICAL, {}, sum(identical), len(identical), "cadences"))
        elif searcher != ALL_DETECTIONS:
            found += [*_alarms(statistic, group), *_recall(statistic, group), *_errors(statistic, group)]
            found += _costs(statistic, group)
        if searcher == SWAPPED:
            ours, theirs = (_alarms_without_side_lobes(part) for part in (groups.get((scenario, RELEASED), []), group))
            if ours + theirs:
                found.append(_fraction(statistic, SWAPPED_SHARE, {}, theirs, ours + theirs, "alarms"))
    return found


def _alarms_without_side_lobes(group: Sequence[ScoredSearch]) -> int:
    return sum(alarm.kind != "side_lobe" for search in group for alarm in search.alarms)


def _fraction(
    statistic: Callable[..., Statistic], measure: str, group: dict[str, str], k: int, n: int, unit: str
) -> Statistic:
    low, high = fraction_interval(k, n)
    return statistic(measure=measure, group=group, k=k, n=n, unit=unit, value=k / n, low=low, high=high)


def _alarms(statistic: Callable[..., Statistic], group: Sequence[ScoredSearch]) -> Iterator[Statistic]:
    mhz = sum(search.mhz for search in group)
    kinds = Counter(alarm.kind for search in group for alarm in search.alarms)
    counted = [({}, kinds.total()), *(({"kind": kind}, k) for kind, k in sorted(kinds.items()))]
    each = {"each of": f"{mhz / len(group):.1f} MHz"}
    by_density = defaultdict[str, list[ScoredSearch]](list)
    for search in group:
        by_density[_density(search)].append(search)
    parts = [] if len(by_density) == 1 else [
        ({"density": density}, sum(len(search.alarms) for search in part), sum(search.mhz for search in part))
        for density, part in sorted(by_density.items())
    ]  # fmt: skip
    for measure, labelled, k, n, unit, per in (
        *(("alarms per 100 MHz", labelled, k, mhz, "MHz", mhz / 100) for labelled, k in counted),
        *(("alarms per 100 MHz", labelled, k, part_mhz, "MHz", part_mhz / 100) for labelled, k, part_mhz in parts),
        ("alarms per cadence of 660 MHz", {}, kinds.total(), mhz, "MHz", mhz / 660),
        ("alarms per cadence", each, kinds.total(), len(group), "cadences", len(group)),
    ):
        low, high = (bound / per for bound in count_interval(k))
        yield statistic(measure=measure, group=labelled, k=k, n=n, unit=unit, value=k / per, low=low, high=high)


def _recall(statistic: Callable[..., Statistic], group: Sequence[ScoredSearch]) -> Iterator[Statistic]:
    tones = [(tone, labels(tone) | {"density": _density(search)}) for search in group for tone in search.tones]
    for grouping in GROUPINGS:
        parts = defaultdict[tuple[str, ...], list[ToneOutcome]](list)
        for tone, labelled in tones:
            parts[tuple(labelled[key] for key in grouping)].append(tone)
        if len(grouping) > 1 and len(parts) == len({names[:-1] for names in parts}):
            continue  # its last label splits nothing
        for names, part in sorted(parts.items()):
            measure = "recall" if all(tone.ons == 3 for tone in part) else "fraction reported"
            found = sum(tone.detections > 0 for tone in part)
            yield _fraction(statistic, measure, dict(zip(grouping, names, strict=True)), found, len(part), "tones")


def _errors(statistic: Callable[..., Statistic], group: Sequence[ScoredSearch]) -> Iterator[Statistic]:
    found = [tone for search in group for tone in search.tones if tone.detections]
    if found:
        k = sum(tone.detections for tone in found)
        yield statistic(measure="detections per tone", group={}, k=k, n=len(found), unit="tones", value=k / len(found))
    for bright in sorted({labels(tone)["bright"] for tone in found}):
        part = [tone for tone in found if labels(tone)["bright"] == bright]
        for name in ("frequency_error_hz", "drift_error_hz_s", "snr_error"):
            errors = np.abs([getattr(tone, name) for tone in part])
            for percentile, p in (("median", 0.5), ("95th percentile", 0.95)):
                interval = quantile_test(errors, p=p).confidence_interval(0.95)
                low, high = (None if np.isnan(bound) else float(bound) for bound in (interval.low, interval.high))
                yield statistic(
                    measure=f"{percentile} of {name}", group={"bright": bright}, n=len(part), unit="tones found",
                    value=float(np.quantile(errors, p)), low=low, high=high,
                )  # fmt: skip


def _costs(statistic: Callable[..., Statistic], group: Sequence[ScoredSearch]) -> Iterator[Statistic]:
    mhz = sum(search.mhz for search in group)
    costs = Counter[str]()
    for search in group:
        costs.update({"write the files": search.write_s, "search": search.search_s, **search.stage_s})
    for stage, seconds in costs.items():
        value = seconds * 100 / mhz
        yield statistic(measure="seconds per 100 MHz", group={"stage": stage}, n=mhz, unit="MHz", value=value)


def calibration(searches: Iterable[ScoredSearch]) -> list[dict[str, float]]:
    """Return for ten bins of probability the number of detections and the fraction of them that are signals."""
    bins = defaultdict[int, list[MatchedDetection]](list)
    for search in searches:
        for matched in search.detections:
            bins[min(9, int(matched.detection.probability * 10))].append(matched)
    rows = []
    for _, part in sorted(bins.items()):
        k = sum(matched.true for matched in part)
        low, high = fraction_interval(k, len(part))
        mean = float(np.mean([matched.detection.probability for matched in part]))
        rows.append({"mean": mean, "n": len(part), "k": k, "share": k / len(part), "low": low, "high": high})
    return rows


def threshold_curve(searches: Sequence[ScoredSearch]) -> list[dict[str, float]]:
    """Return recall and alarms at other thresholds, from searches without a threshold."""
    mhz = sum(search.mhz for search in searches if search.scenario == "zoo")
    alarms = [a.detection.probability for search in searches if search.scenario == "zoo" for a in search.alarms]
    tones = [tone for search in searches if search.scenario == "tones" for tone in search.tones]
    bright, faint = ([t for t in tones if labels(t)[key] == name] for key, name in (("bright", BRIGHT), ("snr", "8")))
    if not (mhz and bright and faint):
        return []
    return [
        {
            "threshold": threshold,
            "alarms_per_100_mhz": sum(p >= threshold for p in alarms) * 100 / mhz,
            "recall_snr_10": sum(t.detections > 0 and t.probability >= threshold for t in bright) / len(bright),
            "recall_snr_8": sum(t.detections > 0 and t.probability >= threshold for t in faint) / len(faint),
        }
        for threshold in THRESHOLDS
    ]


def target_results(statistics: Sequence[Statistic]) -> list[TargetResult]:
    """Return every target whose statistic was measured."""
    results = []
    for description, scenario, searcher, measure, group, sense, goal in TARGETS:
        for stat in statistics:
            if (stat.scenario, stat.searcher, stat.measure, stat.group) == (scenario, searcher, measure, group):
                met = stat.value >= goal if sense == ">=" else stat.value <= goal
                goal_text = f"{sense} {goal:g}"
                results.append(TargetResult(description=description, goal=goal_text, met=met, statistic=stat))
    return results
