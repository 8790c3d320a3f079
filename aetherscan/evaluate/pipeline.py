"""Judge a search: known skies go to disk as files, the code that serves searches them, every row is accounted for."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.detector.detector import load_detector
from aetherscan.evaluate.matching import RULES, Search, judge
from aetherscan.evaluate.report import write_page
from aetherscan.evaluate.scenarios import (
    CADENCE_CHANS,
    CELLS,
    Cell,
    cadence_headers,
    cadence_seeds,
    draw_sky,
    write_sky,
)
from aetherscan.evaluate.searchers import Find, matched_filter, served, turbo_seti
from aetherscan.evaluate.statistics import (
    AGAIN,
    EVERY_ROW,
    OTHER_BLOCK,
    SERVED,
    SWAPPED,
    calibration,
    figures,
    targets,
    trade,
)
from aetherscan.options.search import SearchSettings
from aetherscan.simulate.interference import OFF_POSITIONS, ON_POSITIONS

TELL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finder:
    """Who searches, and what: every cell and every cadence unless said otherwise."""

    name: str
    find: Find
    cells: tuple[str, ...] = ()
    most: int | None = None  # cadences of each cell
    on: tuple[int, ...] = ON_POSITIONS


def evaluate(
    cells: Iterable[Cell],
    finders: Sequence[Finder],
    *,
    seed: int,
    full: bool = False,
    band_mhz: float | None = None,
    chans: int = CADENCE_CHANS,
    real: Float32[np.ndarray, "time freq"] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Search]:
    """Draw, write, search and judge every cadence of `cells`; files live in a temporary folder while they are searched.

    Args:
        cells: of `skies.CELLS`.
        finders: who searches.
        seed: of everything.
        full: each cell's full band, not its quick one.
        band_mhz: of each cell, instead of either.
        chans: of a cadence.
        real: power that cells on real sky are put on; without it they are left out.
        tell: called with a line on how it goes, every so often and after every cell.
    """
    done, told = list[Search](), time.monotonic()
    for cell in cells:
        if cell.real and real is None:
            continue
        width = real.shape[1] if cell.real and real is not None else chans
        band = band_mhz or (cell.full_mhz if full else cell.quick_mhz)
        for number, header in enumerate(cadence_headers(cell, band, width)):
            if number and time.monotonic() - told > TELL_S:
                told = time.monotonic()
                tell(_so_far(done, cell))
            emitter_seed, noise_seed = cadence_seeds(cell, seed, number)
            sky = draw_sky(cell, header, emitter_seed)
            with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
                began = time.perf_counter()
                paths = write_sky(Path(folder), cell, sky, noise_seed, real)
                write_s = time.perf_counter() - began
                size = sum(path.stat().st_size for path in paths)
                for finder in finders:
                    if (finder.cells and cell.name not in finder.cells) or number >= (finder.most or number + 1):
                        continue
                    began = time.perf_counter()
                    answer = finder.find(paths, finder.on)
                    search_s = time.perf_counter() - began
                    tones, rows = judge(answer.rows, sky, finder.on)
                    done.append(
                        Search(
                            cell=cell.name, finder=finder.name, cadence=number, file_bytes=size, write_s=write_s,
                            mhz=header.band_mhz[1] - header.band_mhz[0], search_s=search_s, stage_s=answer.stage_s,
                            counts=answer.counts, digest=answer.digest, tones=tones, rows=rows,
                        )
                    )  # fmt: skip
        tell(_so_far(done, cell))
    return done


def _so_far(done: Sequence[Search], cell: Cell) -> str:
    mine = [one for one in done if (one.cell, one.finder) == (cell.name, SERVED)]
    found = [tone.rows > 0 for one in mine for tone in one.tones]
    alarms = sum(not row.finds for one in mine for row in one.rows)
    return f"{cell.name}: {sum(one.mhz for one in mine):.1f} MHz, {sum(found)} of {len(found)} tones, {alarms} alarms"


def judge_release(
    release: Path,
    output: Path,
    *,
    settings: SearchSettings,
    seed: int,
    cells: Sequence[str] = (),
    baselines: Sequence[str] = (),
    full: bool = False,
    band_mhz: float | None = None,
    real: Path | None = None,
    tell: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Evaluate a release, write `evaluation.json` and `evaluation.html` into `output`, return targets and outcomes.

    Baselines search the first cadence of the zoo and of the tones in it, or of other cells where only those are chosen.
    """
    if "turbo_seti" in baselines and not shutil.which("turboSETI"):
        raise FileNotFoundError("baseline turbo_seti: expected the command turboSETI on the PATH, found none")
    detector = load_detector(release)
    search = partial(served, detector)
    chosen = [cell for cell in CELLS if not cells or cell.name in cells]
    some = tuple(cell.name for cell in chosen if cell.name in {"zoo", "tones"}) or tuple(cell.name for cell in chosen)
    finders = [
        Finder(name=SERVED, find=search(settings)),
        Finder(name=SWAPPED, find=search(settings), cells=("zoo",), on=OFF_POSITIONS),
        Finder(name=EVERY_ROW, find=search(replace(settings, threshold=0.0)), cells=("zoo", "tones")),
        Finder(name=AGAIN, find=search(settings), cells=some, most=1),
        Finder(name=OTHER_BLOCK, find=search(replace(settings, block_channels=300_000)), cells=some, most=1),
    ]
    others: dict[str, Find] = {"matched_filter": matched_filter, "turbo_seti": turbo_seti}
    others["windows"] = search(replace(settings, mode="windows"))
    finders += [Finder(name=name, find=others[name], cells=some, most=1) for name in baselines]
    power = np.load(real)["data"].astype(np.float32) if real else None
    began = time.time()
    searches = evaluate(chosen, finders, seed=seed, full=full, band_mhz=band_mhz, real=power, tell=tell)
    numbers = figures(searches)
    evaluation: dict[str, Any] = {
        "release": {"name": detector.release.name, "sha256": detector.release.sha256},
        "settings": asdict(settings),
        "seed": seed,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began),
        "rules": {name: " ".join(rule.split()) for name, rule in RULES.items()},
        "cells": [asdict(cell) for cell in chosen],
        "targets": targets(numbers),
        "figures": [asdict(figure) for figure in numbers],
        "calibration": calibration(row for one in searches if one.finder == EVERY_ROW for row in one.rows),
        "trade": trade(searches),
        "searches": [asdict(one) for one in searches],
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    write_page(output / "evaluation.html", evaluation)
    return evaluation["targets"]
