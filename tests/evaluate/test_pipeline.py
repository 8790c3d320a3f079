"""An evaluation counts what a search reports of known skies, and writes a complete report."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector
from matplotlib.figure import Figure

from aetherscan.cadence.geometry import OFF_POSITIONS, ON_POSITIONS
from aetherscan.detector.release import read_release
from aetherscan.errors import FormatError
from aetherscan.evaluate import pipeline, report
from aetherscan.evaluate.pipeline import evaluate, evaluate_release, set_alarms
from aetherscan.evaluate.report import add_to_card
from aetherscan.evaluate.scenarios import Scenario, cadence_headers, cadence_seeds, draw_sky
from aetherscan.evaluate.searchers import Detection, Searcher, SearchOutput, release_search
from aetherscan.evaluate.statistics import RELEASED, SWAPPED, Statistic, TargetResult, summarize
from aetherscan.header import gbt_header
from aetherscan.options.search import SearchSettings
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence

SHIPPED = Path(__file__).parents[2] / "models" / "equinox"
SLICE = Path(__file__).parents[1] / "data" / "ddo210_coarse469_slice.npz"
CROWD = Scenario(name="crowd", description="", quick_mhz=0.18, full_mhz=0.36, zoo_per_mhz=60, tones_per_mhz=40)


def perfect_search(scenario, seed):
    """Return a search that knows the emitters of every cadence and reports the tones."""
    headers = enumerate(cadence_headers(scenario, scenario.full_mhz, 2**16))
    skies = (draw_sky(scenario, header, cadence_seeds(scenario, seed, number)[0]) for number, header in headers)

    def search(paths, on):
        tones = (emitter for emitter in next(skies).emitters if emitter.kind == "tone")
        return SearchOutput(
            detections=tuple(
                Detection(frequency_mhz=tone.frequency_mhz, drift_hz_s=tone.drift_hz_s, snr=max(tone.snr))
                for tone in tones
            )
        )

    return search


@pytest.mark.parametrize("perfect", [True, False])
def test_a_perfect_search_finds_every_tone_an_empty_one_none_and_neither_raises_an_alarm(perfect):
    search = perfect_search(CROWD, 3) if perfect else lambda paths, on: SearchOutput(detections=())
    searches = evaluate([CROWD], [Searcher(name=RELEASED, search=search)], seed=3, full=True, chans=2**16)
    statistics = {one.measure: one for one in summarize(searches) if set(one.group) <= {"each of"}}
    assert (statistics["recall"].value, statistics["recall"].n) == (float(perfect), 14)
    assert statistics["alarms per 100 MHz"].k == 0
    assert statistics["alarms per 100 MHz"].n == pytest.approx(0.366, abs=1e-3)
    assert ("detections per tone" in statistics) == perfect


def test_a_search_that_ignores_the_roles_has_the_same_alarms_with_on_and_off_swapped():
    mhz = gbt_header(2**15).frequency(100)

    def search(paths, on):
        return SearchOutput(detections=(Detection(frequency_mhz=mhz, drift_hz_s=3.9, snr=9.0),))

    searchers = [
        Searcher(name=RELEASED, search=search),
        Searcher(name=SWAPPED, search=search, on=OFF_POSITIONS),
    ]
    statistics = summarize(evaluate([replace(CROWD, zoo_per_mhz=0)], searchers, seed=1, chans=2**16))
    released, swapped = (
        [(one.k, one.low, one.high) for one in statistics if one.searcher == name and one.unit == "MHz"]
        for name in (RELEASED, SWAPPED)
    )
    assert released == swapped
    assert released[0][0] == 1


def test_the_search_of_a_release_reports_the_line_its_cost_and_the_same_table_again(tmp_path):
    header = gbt_header(2**14)
    tone = Emitter(frequency_mhz=header.frequency(9000), drift_hz_s=0.8, width_hz=5.0, snr=(30.0, 0.0) * 3)
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(tone,)), 1, suffix=".fil")
    search = release_search(make_detector(), SearchSettings())
    first, again, swapped = search(paths, ON_POSITIONS), search(paths, ON_POSITIONS), search(paths, OFF_POSITIONS)
    (detection,) = first.detections
    assert abs(detection.frequency_mhz - tone.frequency_mhz) * 1e6 < 6
    assert (detection.drift_hz_s, detection.snr) == (pytest.approx(0.8, abs=0.02), pytest.approx(30, rel=0.2))
    assert detection.probability == 1
    assert sum(first.stage_s.values()) > 0
    assert first.digest == again.digest != swapped.digest
    assert swapped.detections == ()


def test_a_report_holds_every_part_and_its_page_has_no_links(tmp_path, monkeypatch):
    detection = Detection(frequency_mhz=1500.0, drift_hz_s=0.0, snr=9.0)
    output = SearchOutput(detections=(detection,), stage_s={"read": 1.0}, counts={"hits": 1}, digest="0" * 64)
    monkeypatch.setattr(pipeline, "load_detector", make_detector)
    monkeypatch.setattr(pipeline, "release_search", lambda detector, settings: lambda paths, on: output)
    lines = []
    evaluate_release(
        Path("models/any"), tmp_path, settings=SearchSettings(), seed=2, scenarios=["slice", "slice_tones"],
        band_mhz=0.09, real=SLICE, progress=lines.append,
    )  # fmt: skip
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    parts = "seed release settings definitions scenarios targets statistics calibration threshold_curve searches"
    assert set(parts.split()) <= set(evaluation)
    searches = [one for one in evaluation["searches"] if one["searcher"] == RELEASED]
    assert [(one["scenario"], one["cadence"]) for one in searches] == [
        ("slice", 0), ("slice_tones", 0), ("slice_tones", 1),
    ]  # fmt: skip
    fractions = [one for one in evaluation["statistics"] if one["unit"] == "tones" and one["low"] is not None]
    assert fractions
    assert all(one["low"] <= one["value"] <= one["high"] for one in fractions)
    assert lines[-1].startswith("slice_tones: 0.1 MHz, ")
    page = (tmp_path / "evaluation.html").read_text()
    assert page.count("data:image/png") >= 2
    assert "http" not in re.sub(r'"data:image/png;base64,[^"]*"', "", page)
    assert re.findall(r"<(?:link|script|iframe)", page) == []
    assert "Alarms</h2>" in page
    assert "Tones in some of the ONs" not in page  # none was drawn


@pytest.mark.parametrize("tones", [True, False])
def test_thresholds_are_drawn_only_where_there_are_tones(tones):
    point = {"mean": 0.5, "share": 0.5, "low": 0.2, "high": 0.8, "n": 4}
    curve = [{"alarms_per_100_mhz": 1.0, "recall_snr_10": 0.9, "recall_snr_8": 0.8}] if tones else []
    evaluation = report.Evaluation(
        release={}, settings={}, seed=1, made="", seconds=0, definitions={}, scenarios=[], targets=[], statistics=[],
        calibration=[point], threshold_curve=curve, searches=[],
    )  # fmt: skip
    assert report._draw_probability(list(Figure().subplots(1, 2)), evaluation) == tones


def test_an_interrupted_evaluation_continues_where_it_ended(tmp_path, monkeypatch):
    searched = []

    def search(paths, on):
        searched.append(on)
        if len(searched) == 3:
            raise KeyboardInterrupt
        return SearchOutput(detections=(Detection(frequency_mhz=1500.0, drift_hz_s=0.0, snr=9.0),), digest="0" * 64)

    monkeypatch.setattr(pipeline, "load_detector", make_detector)
    monkeypatch.setattr(pipeline, "release_search", lambda detector, settings: search)
    how = {"settings": SearchSettings(), "scenarios": ["slice_tones"], "band_mhz": 0.09, "real": SLICE}

    def run(seed):
        evaluate_release(Path("models/any"), tmp_path, seed=seed, progress=lambda _: None, **how)
        return json.loads((tmp_path / "evaluation.json").read_text())["searches"]

    with pytest.raises(KeyboardInterrupt):
        run(seed=2)
    (journal,) = tmp_path.glob("unfinished-*.jsonl")
    with journal.open("a") as file:
        file.write('{"scenario": "cut')
    run(seed=3)  # another evaluation neither uses nor removes what that one finished
    assert journal.exists()
    searches = run(seed=2)
    assert (len(searches), len(searched)) == (4, 3 + 4 + 2)
    assert not list(tmp_path.glob("unfinished-*"))
    whole = run(seed=2)
    keys = ("scenario", "cadence", "searcher", "tones", "detections", "digest")
    assert [[one[key] for key in keys] for one in searches] == [[one[key] for key in keys] for one in whole]


@pytest.mark.parametrize("shape", [(16,), (15, 64), (16, 0), (1, 16, 64)])
def test_a_real_slice_of_another_shape_is_refused_before_anything_is_evaluated(tmp_path, shape):
    np.savez(tmp_path / "slice.npz", data=np.ones(shape, np.float32))
    expected = rf"slice.npz: expected `data` \(time, freq\) of 16 rows, found shape {re.escape(str(shape))}"
    with pytest.raises(FormatError, match=expected):
        evaluate_release(Path("models/any"), tmp_path, settings=SearchSettings(), seed=1, real=tmp_path / "slice.npz")


def test_target_results_are_written_into_the_card_once(tmp_path):
    (card := tmp_path / "CARD.md").write_text("# any\n\n## mine `a.b`\n\nold\n\n## other\n\nkept\n")
    statistic = Statistic(
        scenario="tones", searcher=RELEASED, measure="recall", group={}, value=0.5, low=0.4, high=0.6, k=5, n=10,
        unit="tones",
    )  # fmt: skip
    results = [TargetResult(description="recall of all", goal=">= 0.4", met=True, statistic=statistic)]
    for _ in range(2):
        add_to_card(card, "mine `a.b`", results)
        assert card.read_text() == (
            "# any\n\n## other\n\nkept\n\n## mine `a.b`\n\n| target | goal | measured | interval | counted |\n"
            "| --- | --- | --- | --- | --- |\n| recall of all | >= 0.4 | 50.0% | 40.0% to 60.0% | 5 of 10 tones |\n"
        )


def test_alarms_of_the_zoo_set_the_threshold_of_a_release_and_change_nothing_else(tmp_path, monkeypatch):
    folder, before = tmp_path / "equinox", read_release(SHIPPED)
    shutil.copytree(SHIPPED, folder)
    header = gbt_header(2**16)

    def without_threshold(_, settings):
        assert settings.threshold == 0
        lines = tuple(
            Detection(frequency_mhz=header.frequency(i), drift_hz_s=9.0, snr=10, probability=(i // 1000) / 100)
            for i in range(2000, 62_000, 1000)
        )
        return lambda paths, on: SearchOutput(detections=lines)

    monkeypatch.setattr(pipeline, "release_search", without_threshold)
    chosen = {"settings": SearchSettings(), "seed": 5, "band_mhz": 0.366, "chans": 2**16}
    mhz = 2 * 2**16 * abs(header.foff)
    for _ in range(2):
        changed = set_alarms(folder, tmp_path / "judged", allowed=10.5 * 100 / mhz, **chosen)
    tracks, unchanged = changed.modes["tracks"], replace(before.modes["tracks"], threshold=0, alarms=None)
    assert 0.56 < tracks.threshold < 0.5601  # ten lines are above, two each of 0.61, 0.60, 0.59, 0.58 and 0.57
    assert replace(tracks, threshold=0, alarms=None) == unchanged
    assert changed.card["sha256"] == before.card["sha256"]
    assert (tracks.alarms["mhz"], tracks.alarms["seed"]) == (round(mhz, 1), 5)
    assert (folder / "CARD.md").read_text().count("## Alarms") == 1
    assert not list((tmp_path / "judged").iterdir())
    with pytest.raises(FormatError, match=r"expected at least 600 MHz to count 0\.5 alarms per 100 MHz, found 12"):
        set_alarms(folder, tmp_path, allowed=0.5, settings=SearchSettings(), seed=5, band_mhz=12)
