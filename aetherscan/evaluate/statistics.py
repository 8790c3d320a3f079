"""The numbers of an evaluation, each with what was counted and its interval at 95%.

A share has Wilson's interval, a count of rare events its limit, a percentile the values between the ranks that Wilson's
bounds point at.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from aetherscan.evaluate.matching import Reported, Search, Tone
from aetherscan.evaluate.scenarios import SNRS

Z = 1.959964
"""Of a 95% interval."""
SERVED, SWAPPED, EVERY_ROW, AGAIN, OTHER_BLOCK = "served", "swapped", "every row", "again", "other block"
BASELINES = ("matched_filter", "windows", "turbo_seti")
DRIFTS, WIDTHS, CURVATURES = (0, 0.1, 0.5, 1, 2, 4), (2, 5, 12, 50), (0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
SAME, HALF = "lists the same to the last bit", "alarms of all either way round, side lobes aside"
SHARES = ("recall", "share reported", SAME, HALF)
CUTS = (
    (), ("bright",), ("snr",), ("bright", "near"), ("bright", "drift"), ("bright", "width"), ("bright", "curvature"),
    ("bright", "ons"), ("snr", "near"), ("snr", "drift"), ("snr", "width"), ("snr", "drift", "width"),
)  # fmt: skip
"""By what recall is told."""
BRIGHT = "SNR >= 10"
THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
TARGETS: tuple[tuple[str, str, str, str, dict[str, str], str, float], ...] = (
    # what, cell, finder, measure, of what, at least or at most, how much
    ("recall at SNR >= 10 in the zoo", "tones", SERVED, "recall", {"bright": BRIGHT}, ">=", 0.95),
    ("recall at SNR 8 in the zoo", "tones", SERVED, "recall", {"snr": "8"}, ">=", 0.80),
    ("alarms per 100 MHz of the zoo", "zoo", SERVED, "alarms per 100 MHz", {}, "<=", 1),
    ("the same, ON and OFF swapped", "zoo", SWAPPED, "alarms per 100 MHz", {}, "<=", 1),
    ("alarms per 100 MHz of clean noise with bursts", "noise", SERVED, "alarms per 100 MHz", {}, "<=", 0),
    ("the same list when searched again", "tones", AGAIN, SAME, {}, ">=", 1),
    ("the same list from other blocks", "tones", OTHER_BLOCK, SAME, {}, ">=", 1),
    ("rows per signal", "tones", SERVED, "rows per tone", {}, "<=", 1),
    ("frequency error at SNR >= 10, median, Hz", "tones", SERVED, "median of frequency_error_hz",
     {"bright": BRIGHT}, "<=", 2.8),
    ("drift error at SNR >= 10, 95th percentile, Hz/s", "tones", SERVED, "95th percentile of drift_error_hz_s",
     {"bright": BRIGHT}, "<=", 0.05),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of the report: k of n as a share, k in n as a rate, or another value of n things."""

    cell: str
    finder: str
    measure: str
    of: dict[str, str]
    k: int | None = None
    n: float
    unit: str  # of n
    value: float
    low: float | None = None
    high: float | None = None


def wilson(k: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval of a share, k of n."""
    if n <= 0:
        return 0.0, 1.0
    half = Z * float(np.sqrt(k * (n - k) / n + Z * Z / 4))
    low, high = ((k + Z * Z / 2 + side * half) / (n + Z * Z) for side in (-1, 1))
    return max(0.0, min(low, k / n)), min(1.0, max(high, k / n))  # rounding must not leave the share outside


def rare(k: int) -> tuple[float, float]:
    """Return the interval of a count of rare events: Wilson's as n grows without end."""
    half = Z * float(np.sqrt(k + Z * Z / 4))
    return max(0.0, k + Z * Z / 2 - half), k + Z * Z / 2 + half


def _interval(value: float, edges: Sequence[float], unit: str) -> str:
    place = int(np.clip(np.searchsorted(edges, value, side="right"), 1, len(edges) - 1))
    return f"{edges[place - 1]:g}-{edges[place]:g} {unit}"


def labels(tone: Tone) -> dict[str, str]:
    """Return what a tone is called in each of the ways that recall is told by."""
    nominal = min(SNRS, key=lambda snr: abs(snr - tone.snr))
    return {
        "snr": f"{nominal:g}" if abs(nominal - tone.snr) < 0.01 else "other",
        "bright": BRIGHT if tone.snr > 9.99 else "SNR < 10",
        "drift": _interval(abs(tone.drift_hz_s), DRIFTS, "Hz/s"),
        "width": _interval(tone.width_hz, WIDTHS, "Hz"),
        "curvature": _interval(abs(tone.curvature_hz_s2), CURVATURES, "Hz/s2"),
        "near": "near an emitter" if tone.near else "clear of emitters",
        "ons": f"in {tone.ons} ONs",
    }


def figures(searches: Sequence[Search]) -> list[Figure]:
    """Return every number of the report.

    Beside who searched some files only stands the served search of the same files; of who searched again, only whether
    the lists are the same.
    """
    groups = defaultdict[tuple[str, str], list[Search]](list)
    first = {(one.cell, one.cadence): one for one in searches if one.finder == SERVED}
    for one in searches:
        groups[one.cell, one.finder].append(one)
        if one.finder in BASELINES and (one.cell, one.cadence) in first:
            groups[one.cell, f"{SERVED}, files of {one.finder}"].append(first[one.cell, one.cadence])
    found = []
    for (cell, finder), group in groups.items():
        figure = partial(Figure, cell=cell, finder=finder)
        if finder in {AGAIN, OTHER_BLOCK}:
            same = [one.digest == first[one.cell, one.cadence].digest for one in group]
            found.append(_share(figure, SAME, {}, sum(same), len(same), "cadences"))
        elif finder != EVERY_ROW:
            found += [*_alarms(figure, group), *_recall(figure, group), *_errors(figure, group), *_costs(figure, group)]
        if finder == SWAPPED:
            ours, theirs = (_count_alarms(one) for one in (groups.get((cell, SERVED), []), group))
            found.append(_share(figure, HALF, {}, theirs, ours + theirs, "alarms"))
    return found


def _count_alarms(group: Sequence[Search]) -> int:
    return sum(not row.finds and row.kind != "side_lobe" for one in group for row in one.rows)


def _share(figure: Callable[..., Figure], measure: str, of: dict[str, str], k: int, n: int, unit: str) -> Figure:
    low, high = wilson(k, n)
    return figure(measure=measure, of=of, k=k, n=n, unit=unit, value=k / n if n else 0.5, low=low, high=high)


def _alarms(figure: Callable[..., Figure], group: Sequence[Search]) -> Iterator[Figure]:
    mhz = sum(one.mhz for one in group)
    kinds = Counter(row.kind for one in group for row in one.rows if not row.finds)
    total = sum(kinds.values())
    for of, k in ({}, total), *(({"kind": kind}, k) for kind, k in sorted(kinds.items())):
        low, high = (bound * 100 / mhz for bound in rare(k))
        yield figure(
            measure="alarms per 100 MHz", of=of, k=k, n=mhz, unit="MHz", value=k * 100 / mhz, low=low, high=high
        )
    low, high = (bound / len(group) for bound in rare(total))
    of = {"each of": f"{mhz / len(group):.1f} MHz"}
    yield figure(
        measure="alarms per cadence", of=of, k=total, n=len(group), unit="cadences", value=total / len(group), low=low,
        high=high,
    )  # fmt: skip


def _recall(figure: Callable[..., Figure], group: Sequence[Search]) -> Iterator[Figure]:
    tones = [(tone, labels(tone)) for one in group for tone in one.tones]
    for cut in CUTS:
        parts = defaultdict[tuple[str, ...], list[Tone]](list)
        for tone, named in tones:
            parts[tuple(named[key] for key in cut)].append(tone)
        if len(cut) > 1 and len(parts) == len({names[:-1] for names in parts}):
            continue  # its last key tells nothing apart
        for names, part in sorted(parts.items()):
            measure = "recall" if all(tone.ons == 3 for tone in part) else "share reported"
            found = sum(tone.rows > 0 for tone in part)
            yield _share(figure, measure, dict(zip(cut, names, strict=True)), found, len(part), "tones")


def _errors(figure: Callable[..., Figure], group: Sequence[Search]) -> Iterator[Figure]:
    found = [tone for one in group for tone in one.tones if tone.rows]
    rows = sum(tone.rows for tone in found)
    for _ in found[:1]:
        yield figure(measure="rows per tone", of={}, k=rows, n=len(found), unit="tones", value=rows / len(found))
    for bright in sorted({labels(tone)["bright"] for tone in found}):
        part = [tone for tone in found if labels(tone)["bright"] == bright]
        for name in ("frequency_error_hz", "drift_error_hz_s", "snr_error"):
            for called, quantile in (("median", 0.5), ("95th percentile", 0.95)):
                low, high = wilson(quantile * len(part), len(part))
                low, value, high = np.quantile([abs(getattr(tone, name)) for tone in part], [low, quantile, high])
                yield figure(
                    measure=f"{called} of {name}", of={"bright": bright}, n=len(part), unit="tones found",
                    value=float(value), low=float(low), high=float(high),
                )  # fmt: skip


def _costs(figure: Callable[..., Figure], group: Sequence[Search]) -> Iterator[Figure]:
    mhz = sum(one.mhz for one in group)
    costs = Counter[str]()
    for one in group:
        costs.update({"write the files": one.write_s, "search": one.search_s, **one.stage_s})
    for stage, seconds in costs.items():
        value = seconds * 100 / mhz
        yield figure(measure="seconds per 100 MHz", of={"stage": stage}, n=mhz, unit="MHz", value=value)


def calibration(rows: Iterable[Reported]) -> list[dict[str, float]]:
    """Return for ten bins of probability how many rows there are and which share of them is true."""
    bins = [list[Reported]() for _ in range(10)]
    for row in rows:
        bins[min(9, int(row.row.probability * 10))].append(row)
    found = []
    for part in filter(None, bins):
        k = sum(row.true for row in part)
        low, high = wilson(k, len(part))
        mean = float(np.mean([row.row.probability for row in part]))
        found.append({"mean": mean, "n": len(part), "k": k, "share": k / len(part), "low": low, "high": high})
    return found


def trade(searches: Iterable[Search]) -> list[dict[str, float]]:
    """Return what recall and alarms would be at other thresholds, from searches that let every row through."""
    every = [one for one in searches if one.finder == EVERY_ROW]
    mhz = sum(one.mhz for one in every if one.cell == "zoo")
    alarms = [row.row.probability for one in every if one.cell == "zoo" for row in one.rows if not row.finds]
    tones = [tone for one in every if one.cell == "tones" for tone in one.tones]
    bright, faint = ([t for t in tones if labels(t)[by] == name] for by, name in (("bright", BRIGHT), ("snr", "8")))
    if not (mhz and bright and faint):
        return []
    return [
        {
            "threshold": threshold,
            "alarms_per_100_mhz": sum(p >= threshold for p in alarms) * 100 / mhz,
            "recall_snr_10": sum(t.rows > 0 and t.probability >= threshold for t in bright) / len(bright),
            "recall_snr_8": sum(t.rows > 0 and t.probability >= threshold for t in faint) / len(faint),
        }
        for threshold in THRESHOLDS
    ]


def targets(numbers: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return what was to be reached beside what was, as far as it was measured."""
    found = []
    for what, cell, finder, measure, of, sense, goal in TARGETS:
        for one in numbers:
            if (one.cell, one.finder, one.measure, one.of) == (cell, finder, measure, of):
                met = one.value >= goal if sense == ">=" else one.value <= goal
                found.append({"what": what, "goal": f"{sense} {goal:g}", "met": met, "figure": asdict(one)})
    return found
