"""A search is judged by what it finds in skies that are known, and every number says what was counted."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector

from aetherscan.evaluate import pipeline as evaluation
from aetherscan.evaluate.matching import Reported, judge
from aetherscan.evaluate.pipeline import Finder, evaluate, judge_release
from aetherscan.evaluate.report import add_to_card
from aetherscan.evaluate.scenarios import CELLS, Cell, cadence_headers, cadence_seeds, draw_sky, write_sky
from aetherscan.evaluate.searchers import Answer, Row, on_alone
from aetherscan.evaluate.statistics import SERVED, SWAPPED, calibration, figures, rare, wilson
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.io import open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import OFF_POSITIONS
from aetherscan.simulate.noise import BURST_NOISE, NOISE
from aetherscan.simulate.sky import LEVEL, Sky

HEADER = gbt_header(2**15)
SEED = np.random.SeedSequence(1)
SLICE = Path(__file__).parents[1] / "data" / "ddo210_coarse469_slice.npz"
CROWD = Cell(name="crowd", what="", quick_mhz=0.18, full_mhz=0.36, zoo_per_mhz=60, tones_per_mhz=40)
TONE = Emitter(frequency_mhz=HEADER.frequency(16000), drift_hz_s=0.8, width_hz=5.0, snr=(20.0, 0, 20.0, 0, 20.0, 0))


def row(emitter: Emitter = TONE, off_hz: float = 0.0, off_hz_s: float = 0.0, at_s: float = 0.0) -> Row:
    mhz = float(emitter.track_mhz(np.array([at_s]))[0]) + off_hz * 1e-6
    return Row(frequency_mhz=mhz, drift_hz_s=emitter.drift_hz_s + off_hz_s, snr=max(emitter.snr))


def judged(*rows: Row, emitters=(TONE,), on=(0, 2, 4)):
    return judge(rows, Sky(header=HEADER, emitters=emitters), on)


def knows_all(cell: Cell, seed: int):
    """A search that was told what is in the files."""
    headers = enumerate(cadence_headers(cell, cell.full_mhz, 2**16))
    skies = (draw_sky(cell, header, cadence_seeds(cell, seed, number)[0]) for number, header in headers)
    return lambda paths, on: Answer(rows=tuple(row(one) for one in next(skies).emitters if one.kind == "tone"))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1), (0, 0, 0, 1)]
)
def test_a_share_has_wilsons_interval(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("k", [0, 1, 20])
def test_a_count_of_rare_events_has_the_interval_that_wilsons_tends_to(k):
    assert np.array(wilson(k, 10**8)) * 10**8 == pytest.approx(rare(k), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("off_hz", "off_hz_s", "finds"),
    [(19, 0, True), (-19, 0.09, True), (24, 0, False), (0, 0.11, False), (0, -0.11, False)],
)
def test_a_row_finds_a_tone_within_twenty_hertz_and_a_tenth_of_a_hertz_per_second(off_hz, off_hz_s, finds):
    (tone,), (reported,) = judged(row(off_hz=off_hz, off_hz_s=off_hz_s))
    assert (tone.rows > 0, reported.finds, reported.true) == (finds,) * 3
    assert reported.kind == "tone"
    assert tone.frequency_error_hz == (pytest.approx(off_hz) if finds else None)


def test_a_curved_tone_is_found_by_the_straight_line_that_fits_it():
    curved = replace(TONE, curvature_hz_s2=1e-4)
    (tone,), _ = judged(emitters=(curved,))
    chord = Row(frequency_mhz=tone.frequency_mhz, drift_hz_s=tone.drift_hz_s, snr=20.0)
    assert tone.drift_hz_s - 0.8 == pytest.approx(1e-4 * (4 * SCAN_STEP_S + HEADER.duration_s) / 2, rel=0.02)
    assert judged(chord, emitters=(curved,))[0][0].rows == 1


def test_an_alarm_is_laid_to_the_emitter_whose_track_it_meets():
    rfi = replace(TONE, frequency_mhz=HEADER.frequency(5000), snr=(50.0,) * 6, kind="curved")
    _, rows = judged(row(rfi), row(rfi, off_hz=5000), row(off_hz_s=1.0), emitters=(TONE, rfi))
    assert [(one.kind, one.finds) for one in rows] == [("curved", False), ("noise", False), ("tone", False)]


def test_a_tone_that_an_emitter_crosses_is_called_near_and_is_counted():
    crossing = replace(TONE, drift_hz_s=-0.8, snr=(50.0,) * 6, kind="drifting")
    assert [judged(emitters=(TONE, *others))[0][0].near for others in ((), (crossing,))] == [False, True]


def test_searched_the_other_way_round_what_is_in_the_offs_alone_is_a_tone():
    swapped = replace(TONE, snr=(0, 20.0, 0, 20.0, 0, 20.0), kind="off_only")
    assert judged(emitters=(swapped,))[0] == ()
    (tone,), (reported,) = judged(row(swapped, at_s=SCAN_STEP_S), emitters=(swapped,), on=OFF_POSITIONS)
    assert (tone.ons, tone.rows, reported.true) == (3, 1, True)


@pytest.mark.parametrize("knowing", [True, False])
def test_who_knows_all_finds_all_and_who_is_blind_finds_nothing_and_neither_raises_an_alarm(knowing):
    find = knows_all(CROWD, 3) if knowing else lambda paths, on: Answer(rows=())
    searches = evaluate([CROWD], [Finder(name=SERVED, find=find)], seed=3, full=True, chans=2**16)
    numbers = {one.measure: one for one in figures(searches) if set(one.of) <= {"each of"}}
    assert (numbers["recall"].value, numbers["recall"].n) == (float(knowing), 14)
    assert numbers["alarms per 100 MHz"].k == 0
    assert numbers["alarms per 100 MHz"].n == pytest.approx(0.366, abs=1e-3)
    assert ("rows per tone" in numbers) == knowing


def test_an_answer_that_is_the_same_either_way_agrees_with_itself():
    def noisy(paths, on):
        return Answer(rows=(Row(frequency_mhz=HEADER.frequency(100), drift_hz_s=3.9, snr=9.0),))

    finders = [Finder(name=SERVED, find=noisy), Finder(name=SWAPPED, find=noisy, on=OFF_POSITIONS)]
    numbers = figures(evaluate([replace(CROWD, zoo_per_mhz=0)], finders, seed=1, chans=2**16))
    served, swapped = (
        [(o.k, o.low, o.high) for o in numbers if o.finder == f and o.unit == "MHz"] for f in (SERVED, SWAPPED)
    )
    assert served == swapped


@pytest.mark.parametrize("real", [False, True])
def test_a_tone_has_its_snr_whatever_a_burst_does_to_some_rows(tmp_path, real):
    power = np.load(SLICE)["data"] if real else None
    header = gbt_header(2**14)
    tone = replace(TONE, frequency_mhz=header.frequency(9000))
    sky = Sky(header=header, emitters=(tone,), bursts=() if real else ((0, 3, 5.0), (0, 4, 5.0)), spike=0)
    cell = replace(CROWD, real=real)
    lit, dark = [], []
    for emitters, into in (((tone,), lit), ((), dark)):
        path = write_sky(tmp_path, cell, replace(sky, emitters=emitters), SEED, power)[0]
        with open_observation(path) as observation:
            into.append(observation.read(0, header.nchans).astype(float))
    sigma = np.full(16, NOISE * LEVEL)
    sigma[3:5] *= 5 * BURST_NOISE
    if power is not None:
        sigma = 1.4826 * np.median(np.abs(power - np.median(power, axis=1)[:, None]), axis=1)
    signal = (lit[0] - dark[0]) / sigma[:, None]
    assert np.sqrt((signal**2).sum()) == pytest.approx(20.0, rel=0.02)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_tones_of_every_cell_lie_in_the_band_and_apart(cell):
    header = gbt_header(2**14 if cell.real else 2**21)
    tones = [one for one in draw_sky(cell, header, cadence_seeds(cell, 5, 0)[0]).emitters if one.kind == "tone"]
    assert bool(tones) == bool(cell.tones_per_mhz or cell.place)
    ends = np.sort([one.track_mhz(np.array([0.0, 5 * SCAN_STEP_S + 292.0])) for one in tones], axis=0)
    assert ends.size == 0 or header.band_mhz[0] < ends.min() <= ends.max() < header.band_mhz[1]
    assert (np.diff(ends, axis=0) > 500e-6).all()
    assert {tuple(snr > 0 for snr in one.snr) for one in tones} <= {(True, False) * 3} or cell.some_ons


def test_no_two_cadences_of_any_scenario_and_seed_share_noise_or_emitters(tmp_path):
    quiet, crowded, keys = gbt_header(64), gbt_header(2**21), itertools.product(CELLS, (4, 5), (0, 1))
    values, noise = [], []
    for number, (cell, seed, cadence) in enumerate(keys):
        emitter_seed, noise_seed = cadence_seeds(cell, seed, cadence)
        sky = draw_sky(cell, crowded, emitter_seed)
        values += [*sky.gains, *(times for *_, times in sky.bursts[:1]), *(one.width_hz for one in sky.emitters)]
        if not cell.real:
            (folder := tmp_path / str(number)).mkdir()
            for path in write_sky(folder, cell, Sky(header=quiet), noise_seed):
                with open_observation(path) as observation:
                    noise.append(observation.read(0, quiet.nchans)[:, 0].tobytes())
    assert len(noise) == len(set(noise)) == 12 * 2 * 2 * 6
    assert len(values) == len(set(values)) > 1000


def test_an_evaluation_shares_no_stream_with_a_training_of_the_same_seed():
    training = [
        np.random.SeedSequence([5, *more]) for n in (0, 1, 2, 3) for more in itertools.product(range(5), repeat=n)
    ]
    ours = [
        child
        for cell in CELLS
        for number in range(5)
        for seed in cadence_seeds(cell, 5, number)
        for child in (
            seed,
            *(np.random.SeedSequence(5, spawn_key=(*seed.spawn_key, position, 0)) for position in range(6)),
        )
    ]
    states = [{seed.generate_state(4).tobytes() for seed in seeds} for seeds in (training, ours)]
    assert states[0].isdisjoint(states[1])
    assert len(states[1]) == len(ours)


def test_the_fields_rule_wants_a_hit_in_every_on_and_none_near_in_an_off(tmp_path):
    paths = write_sky(tmp_path, CROWD, Sky(header=gbt_header(2**10)), SEED)
    at = [np.array([[1500.0 + 0.5 * SCAN_STEP_S * i * 1e-6, 0.5, 30.0]]) for i in range(6)]
    nothing = np.empty((0, 3))
    clear = [hits if i % 2 == 0 else nothing for i, hits in enumerate(at)]
    assert [one.frequency_mhz for one in on_alone(clear, paths, (0, 2, 4)).rows] == [1500.0]
    assert on_alone([*clear[:3], at[3] + [1e-3, 0, 0], *clear[4:]], paths, (0, 2, 4)).rows == ()
    assert on_alone([*clear[:4], nothing, nothing], paths, (0, 2, 4)).rows == ()


def test_calibration_counts_every_row_in_the_bin_of_its_probability():
    rows = [
        Reported(row=replace(row(), probability=p), kind="", finds=t, true=t)
        for p, t in ((0.96, True), (1.0, False), (0.2, False))
    ]
    assert [(one["n"], one["k"]) for one in calibration(rows)] == [(1, 0), (2, 1)]


def test_a_report_is_complete_and_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "load_detector", make_detector)
    told = []
    judge_release(
        Path("models/any"), tmp_path, settings=SearchSettings(), seed=2, cells=["slice", "slice_tones"], band_mhz=0.09,
        real=SLICE, tell=told.append,
    )  # fmt: skip
    held = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"seed", "release", "settings", "rules", "cells", "targets", "figures", "calibration", "searches"} <= set(
        held
    )
    assert [one["cadence"] for one in held["searches"] if one["finder"] == SERVED] == [
        0,
        0,
        1,
    ]  # a real slice without tones is searched once
    shares = [one for one in held["figures"] if one["unit"] == "tones" and one["k"] is not None]
    assert all(one["low"] <= one["value"] <= one["high"] for one in shares if one["low"] is not None)
    assert told[-1].startswith("slice_tones: 0.1 MHz, ")
    page = (tmp_path / "evaluation.html").read_text()
    assert "http" not in re.sub(r'"data:image/png;base64,[^"]*"', "", page)
    assert re.findall(r"<(?:link|script|iframe)", page) == []


def test_what_was_reached_stands_in_the_card_once(tmp_path):
    (card := tmp_path / "CARD.md").write_text("# any\n\n## mine `a.b`\n\nold\n\n## other\n\nkept\n")
    figure = {"measure": "recall", "value": 0.5, "low": 0.4, "high": 0.6, "k": 5, "n": 10, "unit": "tones"}
    reached = [{"what": "recall of all", "goal": ">= 0.4", "figure": figure, "met": True}]
    for _ in range(2):
        add_to_card(card, "mine `a.b`", reached)
        assert card.read_text() == (
            "# any\n\n## other\n\nkept\n\n## mine `a.b`\n\n|  | goal | found | interval | counted |\n"
            "| --- | --- | --- | --- | --- |\n| recall of all | >= 0.4 | 50.0% | 40.0% to 60.0% | 5 of 10 tones |\n"
        )
