"""An evaluation as one page that stands alone: tables, and pictures in the page itself."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from aetherscan.evaluate.statistics import SAME, SHARES
from aetherscan.plotting.html import picture, table, write_html
from aetherscan.plotting.style import INK, QUIET, SIGNAL, TRACK

FINDERS = {
    "served": SIGNAL, "matched_filter": TRACK, "windows": "#7a5195", "turbo_seti": QUIET,
}  # fmt: skip
NAMED = {"snr": "SNR ", "drift": "|drift| ", "width": "width ", "curvature": "curvature ", "kind": "from "}
SECTIONS: tuple[tuple[str, str, tuple[tuple[str, ...], ...]], ...] = (
    # title, part of the measure, what it is told by
    ("Recall", "recall", (("bright",), ("bright", "near"), ("bright", "curvature"))),
    ("Tones in some of the ONs", "share reported", (("bright", "ons"),)),
    ("Alarms", "alarms", ((), ("kind",), ("each of",))),
    ("Errors", "_error", (("bright",),)),
    ("Rows", "rows per tone", ((),)),
    ("Repeated", SAME, ((),)),
)
Found = dict[str, Any]


def write_page(path: Path, evaluation: Found) -> None:
    """Write `evaluation`, as the JSON file holds it, as HTML without a link to anywhere, and `recall.png` beside it."""
    numbers = evaluation["figures"]
    release = escape(f"{evaluation['release']['name']} ({evaluation['release']['sha256'][:12]})")
    parts = [
        f"<h1>Evaluation of {release}</h1>",
        f"<p>Seed {evaluation['seed']}, {evaluation['made']}, {evaluation['seconds']} s; intervals at 95%.</p>",
        "<h2>What was to be reached</h2>",
        table(("", "goal", "found", "interval", "counted"), [_target(one) for one in evaluation["targets"]]),
        picture("Recall", 2, lambda axes: _draw_recall(axes, numbers), path.with_name("recall.png")),
        picture("Tones in the zoo, by drift and width", 2, lambda axes: _draw_cross(axes, numbers)),
        picture("Probability and threshold", 2, lambda axes: _draw_odds(axes, evaluation)),
        picture("Cost", 1, lambda axes: _draw_costs(axes, numbers)),
    ]
    for title, measures, cuts in SECTIONS:
        rows = [_row(one) for one in numbers if measures in one["measure"] and tuple(one["of"]) in cuts]
        parts += [
            f"<h2>{escape(title)}</h2>",
            table(("cell", "searched by", "measure", "of", "value", "interval", "counted"), rows),
        ]
    for title, texts in (
        ("Cells", {cell["name"]: cell["what"] for cell in evaluation["cells"]}),
        ("What counts as what", evaluation["rules"]),
        ("Settings", evaluation["settings"]),
    ):
        listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in texts.items())
        parts.append(f"<h2>{title}</h2><dl>{listed}</dl>")
    write_html(path, release, parts)


def add_to_card(card: Path, title: str, reached: Iterable[Found]) -> None:
    """Put what was reached into a release's CARD.md, a section of its own, in the place of one with that title."""
    rows = [[one["what"], one["goal"], *_cells(one["figure"])] for one in reached]
    head = ["", "goal", "found", "interval", "counted"]
    lines = [f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows)]
    kept = re.sub(
        rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", "", card.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    card.write_text(f"{kept.rstrip()}\n\n## {title}\n\n{''.join(lines)}", encoding="utf-8")


def _target(one: Found) -> list[str]:
    value, *rest = _cells(one["figure"])
    return [
        escape(one["what"]),
        escape(one["goal"]),
        f'<b class="{"met" if one["met"] else "missed"}">{value}</b>',
        *rest,
    ]


def _row(one: Found) -> list[str]:
    of = ", ".join(f"{NAMED.get(name, '')}{value}" for name, value in one["of"].items())
    return [*(escape(text) for text in (one["cell"], one["finder"], one["measure"], of)), *_cells(one)]


def _cells(one: Found) -> list[str]:
    """Return a figure's value, its interval, and what was counted."""
    share = one["measure"] in SHARES
    value, *bounds = (
        f"{v:.1%}" if share else f"{v:.3g}" for v in (one["value"], one["low"], one["high"]) if v is not None
    )
    counted = "" if one["k"] is None else f"{one['k']} {'of' if share else 'in'} "
    return [value, " to ".join(bounds), f"{counted}{one['n']:.4g} {one['unit']}"]


def select(numbers: Iterable[Found], **wanted: Any) -> list[Found]:
    """Return the figures whose every named entry is as wanted."""
    return [one for one in numbers if all(one[name] == value for name, value in wanted.items())]


def _draw_recall(panels: Sequence[Axes], numbers: Sequence[Found]) -> bool:
    recall = [one for one in numbers if one["measure"] == "recall" and set(one["of"]) == {"snr"}]
    for finder, color in FINDERS.items():
        _curve(panels[0], select(recall, cell="tones", finder=finder), finder, color)
    for i, cell in enumerate(dict.fromkeys(one["cell"] for one in recall if one["cell"] not in {"tones", "zoo"})):
        _curve(panels[1], select(recall, cell=cell, finder="served"), cell, f"C{i}")
    for axes, title in zip(panels, ("in the zoo, by who searched", "elsewhere, as served"), strict=True):
        axes.set(xlabel="SNR in each ON", ylabel="recall", ylim=(-0.03, 1.03), title=title)
        axes.grid(color="#eee")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower right")
    return bool(recall)


def _curve(axes: Axes, points: Sequence[Found], label: str, color: str) -> None:
    points = sorted(points, key=lambda one: float(one["of"]["snr"]))
    at, values = [float(one["of"]["snr"]) for one in points], [one["value"] for one in points]
    if points:
        axes.errorbar(
            at, values, yerr=_spans(points, "value"), label=label, color=color, marker="o", ms=4, capsize=2, lw=1.2
        )


def _spans(points: Sequence[Found], name: str) -> list[list[float]]:
    return [[one[name] - one["low"] for one in points], [one["high"] - one[name] for one in points]]


def _draw_cross(panels: Sequence[Axes], numbers: Sequence[Found]) -> bool:
    mine = select(numbers, cell="tones", finder="served", measure="recall")
    for axes, other in zip(panels, ("drift", "width"), strict=True):
        points = [one for one in mine if set(one["of"]) == {"snr", other}]
        snrs = sorted({one["of"]["snr"] for one in points}, key=float)
        kinds = sorted({one["of"][other] for one in points}, key=lambda text: float(text.split("-")[0]))
        tiles = np.full((len(kinds), len(snrs)), np.nan)
        for one in points:
            row, column = kinds.index(one["of"][other]), snrs.index(one["of"]["snr"])
            tiles[row, column] = one["value"]
            color = "white" if one["value"] > 0.6 else INK
            axes.text(column, row, f"{one['k']}/{one['n']}", ha="center", va="center", fontsize=8, color=color)
        if points:
            axes.imshow(tiles, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set(xlabel="SNR in each ON", title=f"found, by {other}")
        axes.set_xticks(range(len(snrs)), snrs)
        axes.set_yticks(range(len(kinds)), kinds)
    return bool(mine)


def _draw_odds(panels: Sequence[Axes], evaluation: Found) -> bool:
    bins, points = evaluation["calibration"], evaluation["trade"]
    panels[0].plot([0, 1], [0, 1], ":", color=QUIET)
    panels[0].errorbar(
        [one["mean"] for one in bins], [one["share"] for one in bins], yerr=_spans(bins, "share"), fmt="o", color=SIGNAL
    )
    for one in bins:
        panels[0].annotate(f"{one['n']}", (one["mean"], one["share"]), (4, 4), textcoords="offset points", fontsize=7)
    panels[0].set(xlabel="probability", ylabel="share of rows that is true", xlim=(0, 1.02), ylim=(-0.03, 1.03))
    for name, label, color in (("recall_snr_10", "SNR >= 10", SIGNAL), ("recall_snr_8", "SNR 8", TRACK)):
        panels[1].plot([one["alarms_per_100_mhz"] for one in points], [one[name] for one in points], ".-",
                       color=color, label=label)  # fmt: skip
    panels[1].set(
        xlabel="alarms per 100 MHz of zoo", ylabel="recall", ylim=(-0.03, 1.03), xscale="symlog", xlim=(0, None)
    )
    panels[1].legend(fontsize=8, loc="lower right")
    return bool(bins)


def _draw_costs(panels: Sequence[Axes], numbers: Sequence[Found]) -> bool:
    costs = select(numbers, measure="seconds per 100 MHz", finder="served")
    totals, places = dict[str, float](), dict[str, int]()
    for one in costs:
        stage = one["of"]["stage"]
        if stage != "search":  # the sum of others
            place = places.setdefault(stage, len(places))
            panels[0].barh(one["cell"], one["value"], left=totals.get(one["cell"], 0), color=f"C{place}", label=stage)
            totals[one["cell"]] = totals.get(one["cell"], 0) + one["value"]
    handles, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    panels[0].legend(named.values(), named.keys(), fontsize=8)
    panels[0].set(xlabel="seconds of work per 100 MHz of a cadence")
    return bool(costs)
