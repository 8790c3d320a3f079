"""Write an evaluation as JSON, as one HTML page with its figures embedded, and as a table of a release's card."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from aetherscan.evaluate.matching import ScoredSearch
from aetherscan.evaluate.scenarios import SCENARIOS, Scenario
from aetherscan.evaluate.sensitivity import DISTANCES_PC, SEFD_JY, eirp_w, flux_w_m2
from aetherscan.evaluate.statistics import FRACTIONS, IDENTICAL, RELEASED, Statistic, TargetResult
from aetherscan.io.outputs import write_whole
from aetherscan.plotting.evaluation import (
    draw_calibration,
    draw_costs,
    draw_recall,
    draw_recall_grid,
    draw_sensitivity,
    draw_threshold_curve,
)
from aetherscan.plotting.html import definitions, heading, picture, table, write_html

FEWEST_DRAWN = 5
"""Tones of a point in a curve of recall."""
LABELS = {
    "snr": "SNR ",
    "drift": "|drift| ",
    "width": "width ",
    "curvature": "curvature ",
    "density": "interferers ",
    "kind": "from ",
}
"""What a table prints before the value of a label."""
SECTIONS: tuple[tuple[str, str, tuple[tuple[str, ...], ...]], ...] = (
    # title, part of the measure's name, labels
    ("Recall", "recall", (("bright",), ("bright", "near"), ("bright", "curvature"), ("bright", "density"))),
    ("Tones in some of the ONs", "fraction reported", (("bright", "ons"),)),
    ("Alarms", "alarms", ((), ("kind",), ("density",), ("each of",))),
    ("Errors", "_error", (("bright",),)),
    ("Detections", "detections per tone", ((),)),
    ("Repeated searches", IDENTICAL, ((),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that `evaluation.json` holds."""

    release: dict[str, str]
    settings: dict[str, Any]
    seed: int
    made: str
    seconds: int
    definitions: dict[str, str]
    scenarios: Sequence[Scenario]
    targets: Sequence[TargetResult]
    statistics: Sequence[Statistic]
    calibration: Sequence[dict[str, float]]
    threshold_curve: Sequence[dict[str, float]]
    searches: Sequence[ScoredSearch]


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json`, `evaluation.html` (one page without links) and two of its pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "evaluation.json", json.dumps(asdict(evaluation), indent=1) + "\n")
    found = evaluation.statistics
    title = f"{evaluation.release['name']} ({evaluation.release['sha256'][:12]})"
    targets = [(target.description, target.goal, "yes" if target.met else "NO", *_cells(target.statistic))
               for target in evaluation.targets]  # fmt: skip
    parts = [
        heading(f"Evaluation of {title}", 1),
        f"<p>Seed {evaluation.seed}, {evaluation.made}, {evaluation.seconds} s; intervals at 95%.</p>",
        heading("Targets"),
        table(("target", "goal", "met", "measured", "interval", "counted"), targets),
        picture("Recall by SNR", 2, lambda axes: draw_recall(axes, _tones_curve(found), _other_curves(found)),
                folder / "recall.png"),
        picture("Recall by power of the transmitter", 2, lambda axes: draw_sensitivity(axes, _by_power(found)),
                folder / "sensitivity.png"),
        picture("Recall in the zoo by drift rate and by width", 2,
                lambda axes: draw_recall_grid(axes, {label: _grid(found, label) for label in ("drift", "width")})),
        picture("Probability and threshold", 2, lambda axes: _draw_probability(axes, evaluation)),
        picture("Cost", 1, lambda axes: draw_costs(axes[0], _costs(found))),
    ]  # fmt: skip
    for section, part, groups in SECTIONS:
        rows = [_row(stat) for stat in found if part in stat.measure and tuple(stat.group) in groups]
        columns = ("scenario", "searched by", "measure", "group", "value", "interval", "counted")
        parts += [heading(section), table(columns, rows)] if rows else []
    for section, texts in (
        ("Scenarios", {scenario.name: scenario.description for scenario in evaluation.scenarios}),
        ("Definitions", evaluation.definitions),
        ("Settings", evaluation.settings),
    ):
        parts += [heading(section), definitions(texts)]
    write_html(folder / "evaluation.html", title, parts)


def add_to_card(card: Path, title: str, targets: Iterable[TargetResult]) -> None:
    """Write a section of target results into a release's CARD.md, in place of a section with the same title."""
    head = ["target", "goal", "measured", "interval", "counted"]
    rows = [[target.description, target.goal, *_cells(target.statistic)] for target in targets]
    lines = [f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows)]
    put_section(card, title, "".join(lines))


def put_section(card: Path, title: str, text: str) -> None:
    """Write a section into a release's CARD.md, in place of a section with the same title."""
    section = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    others = section.sub("", card.read_text(encoding="utf-8")).rstrip()
    write_whole(card, f"{others}\n\n## {title}\n\n{text}")


def _row(stat: Statistic) -> tuple[str, ...]:
    group = ", ".join(f"{LABELS.get(label, '')}{value}" for label, value in stat.group.items())
    return (stat.scenario, stat.searcher, stat.measure, group, *_cells(stat))


def _cells(stat: Statistic) -> tuple[str, str, str]:
    """Return a statistic's value, its interval, and what was counted."""
    fraction = stat.measure in FRACTIONS
    value, *bounds = (
        f"{v:.1%}" if fraction else f"{v:.3g}" for v in (stat.value, stat.low, stat.high) if v is not None
    )
    counted = "" if stat.k is None else f"{stat.k} {'of' if fraction else 'in'} "
    return value, " to ".join(bounds), f"{counted}{stat.n:.4g} {stat.unit}"


def _recall(found: Iterable[Statistic], *labels: str) -> list[Statistic]:
    return [
        stat for stat in found if stat.measure == "recall" and stat.searcher == RELEASED and tuple(stat.group) == labels
    ]


def _curve(points: Iterable[Statistic]) -> Float64[np.ndarray, "_ 4"]:
    """Return SNR, recall and the interval's bounds, by rising SNR, where there are at least `FEWEST_DRAWN` tones."""
    enough = (stat for stat in points if stat.n >= FEWEST_DRAWN)
    rows = sorted((float(stat.group["snr"]), stat.value, stat.low, stat.high) for stat in enough)
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _tones_curve(found: Sequence[Statistic]) -> Float64[np.ndarray, "_ 4"]:
    return _curve(stat for stat in _recall(found, "snr") if stat.scenario == "tones")


def _other_curves(found: Sequence[Statistic]) -> dict[str, Float64[np.ndarray, "_ 4"]]:
    apart = {"tones", "zoo", *(scenario.name for scenario in SCENARIOS if scenario.occupancy)}
    recall = [stat for stat in _recall(found, "snr") if stat.scenario not in apart]
    names = dict.fromkeys(stat.scenario for stat in recall)
    return {name: _curve(stat for stat in recall if stat.scenario == name) for name in names}


def _by_power(found: Sequence[Statistic]) -> dict[str, dict[str, Float64[np.ndarray, "_ 4"]]]:
    """Return recall against EIRP in W by telescope and distance, of tones in the zoo."""
    curves = dict[str, dict[str, Float64[np.ndarray, "_ 4"]]]()
    for telescope, sefd_jy in SEFD_JY.items():
        for distance_pc in DISTANCES_PC:
            curve = _tones_curve(found).copy()
            curve[:, 0] *= eirp_w(flux_w_m2(1.0, sefd_jy), distance_pc)
            curves.setdefault(telescope, {})[f"{distance_pc:g} pc"] = curve
    return curves


def _grid(found: Sequence[Statistic], label: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return tones found and tones in the zoo by SNR and by another label."""
    recall = [stat for stat in _recall(found, "snr", label) if stat.scenario == "tones"]
    return {(stat.group["snr"], stat.group[label]): (stat.k or 0, int(stat.n)) for stat in recall}


def _draw_probability(axes: Sequence[Any], evaluation: Evaluation) -> bool:
    draw_calibration(axes[0], *_columns(evaluation.calibration, "mean", "share", "low", "high", "n"))
    columns = _columns(evaluation.threshold_curve, "alarms_per_100_mhz", "recall_snr_10", "recall_snr_8")
    draw_threshold_curve(axes[1], *columns)
    return bool(evaluation.calibration and evaluation.threshold_curve)


def _columns(rows: Sequence[dict[str, float]], *names: str) -> list[Float64[np.ndarray, " rows"]]:
    return [np.array([row[name] for row in rows], dtype=np.float64) for name in names]


def _costs(found: Iterable[Statistic]) -> dict[str, dict[str, float]]:
    """Return seconds per 100 MHz by scenario and stage."""
    costs = dict[str, dict[str, float]]()
    for stat in found:
        if (stat.measure, stat.searcher) == ("seconds per 100 MHz", RELEASED):
            costs.setdefault(stat.scenario, {})[stat.group["stage"]] = stat.value
    return {scenario: {stage: s for stage, s in stages.items() if stage != "search"}  # search: the sum of its stages
            for scenario, stages in costs.items()}  # fmt: skip
