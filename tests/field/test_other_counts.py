"""Cadences of three to twelve scans are searched, not only those of six."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector, make_header, observe, write_observation
from rows import row
from watched import Folder

from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import CadenceError, OptionsError
from aetherscan.options.cadence import CadenceRules
from aetherscan.options.search import SearchSettings
from aetherscan.search.explain import trace
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from sentinel import cli
from sentinel.commands import search as searching
from sentinel.commands.candidates import export, newest
from sentinel.config import Config
from sentinel.store.queue import open_store
from sentinel.store.schema import cadence, candidate
from sentinel.workers.search import on_positions, search_files
from sentinel.workers.task import search_lease

HEADER = make_header(nchans=4096, nfpc=4096)
PATTERNS = ("ABA", "AAB", "ABAB", "BABA", "AABB", "ABABA", "ABBBBA", "ABABABAB", "ABACADAEAF", "ABABABABABAB")


def tone(snr, channel=1500, **changes):
    values = {"drift_hz_s": 0.11, "width_hz": 4.0, "frequency_mhz": HEADER.frequency(channel)}
    return Emitter(**(values | changes), snr=tuple(snr))


def in_ons(pattern, on, off=0.0):
    return [on if letter == "A" else off for letter in pattern]


def found(observations, pattern, **settings):
    on = on_positions(pattern)
    return search_cadence(observations, make_detector(), SearchSettings(**settings), on=on)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_tone_in_the_ons_is_found_and_interference_is_not(pattern):
    everywhere = tone(in_ons(pattern, 20.0, 20.0), 700)
    once = tone([20.0 if letter == "A" or i == pattern.index("B") else 0.0 for i, letter in enumerate(pattern)], 2300)
    weak = tone([20.0 if letter == "A" and i != pattern.rindex("A") else 0.0 for i, letter in enumerate(pattern)], 3100)
    signal = tone(in_ons(pattern, 15.0))
    (candidate,) = found(observe(pattern, signal, everywhere, once, weak, header=HEADER), pattern).candidates
    first = 341.0 * pattern.index("A")
    assert candidate.frequency_mhz == pytest.approx(signal.track_mhz(np.array([first]))[0], abs=6e-6)
    assert candidate.drift_rate_hz_s == pytest.approx(0.11, abs=0.02)
    assert [snr > 10 for snr in candidate.snr] == [letter == "A" for letter in pattern]
    assert (candidate.probability, candidate.scored_by, candidate.latents, candidate.note) == (None, "gates", (), "")
    assert len(candidate.valid) == len(pattern)


@pytest.mark.parametrize(("pattern", "scored_by"), [("ABACAD", "forest"), ("AABBAB", "forest"), ("ABBABB", "gates")])
def test_the_forest_scores_three_ons_and_three_offs_in_any_order(pattern, scored_by):
    (candidate,) = found(observe(pattern, tone(in_ons(pattern, 20.0)), header=HEADER), pattern).candidates
    assert (candidate.scored_by, candidate.probability) == (scored_by, 1.0 if scored_by == "forest" else None)


def test_a_tone_in_the_offs_alone_is_no_candidate():
    assert found(observe("ABAB", tone(in_ons("ABAB", 0.0, 30.0)), header=HEADER), "ABAB").candidates == ()


@pytest.mark.parametrize("beams", [2, 7, 12])
def test_a_tone_in_one_beam_and_not_in_the_others_at_the_same_time_is_found(beams):
    pattern = "A" + "B" * (beams - 1)
    lines = [
        tone(in_ons(pattern, 15.0)),
        tone(in_ons(pattern, 20.0, 20.0), 700),
        tone([20.0, 20.0] + [0.0] * (beams - 2), 2300),
        tone(in_ons(pattern, 6.0), 3100),
    ]
    together = observe(pattern, *lines, header=HEADER, start_s=[0.0] * beams)
    for beam, observation in enumerate(together):
        observation.header = replace(observation.header, ibeam=beam)
    (candidate,) = found(together, pattern).candidates
    assert candidate.frequency_mhz == pytest.approx(HEADER.frequency(1500), abs=6e-6)
    assert candidate.drift_rate_hz_s == pytest.approx(0.11, abs=0.05)
    assert (candidate.probability, len(candidate.snr)) == (None, beams)


def test_the_trace_says_that_no_forest_scored_it_and_the_windows_mode_that_it_needs_one():
    observations = observe("ABAB", tone(in_ons("ABAB", 20.0)), header=HEADER)
    story = "\n".join(trace(observations, make_detector(), SearchSettings(), HEADER.frequency(1500), on=(0, 2)))
    assert "score: none, as the forest reads three ONs and three OFFs of 16 rows" in story
    with pytest.raises(CadenceError, match=r"--mode windows: expected three ONs and three OFFs .* found 2 and 2"):
        found(observations, "ABAB", mode="windows")


@pytest.mark.parametrize(
    ("pattern", "message"), [("AA", "found 2 and 0"), ("ABB", "found 1 and 2"), ("AB" * 7, "at most 12 .* found 14")]
)
def test_too_few_or_too_many_scans_are_refused_with_what_was_found(pattern, message):
    with pytest.raises(CadenceError, match=message):
        found(observe(pattern, header=HEADER), pattern)


LONG, SHORT = 96, 16
"""Rows of half an hour and of five minutes."""


def on_and_short_off(*tones):
    starts_s = [0.0, 1800.0, 2200.0, 4000.0]
    return observe("ABAB", *tones, header=HEADER, rows=[LONG, SHORT, LONG, SHORT], start_s=starts_s)


def test_half_an_hour_on_source_and_five_minutes_off_source_is_searched_in_all_rows():
    (candidate,) = found(on_and_short_off(tone(in_ons("ABAB", 20.0))), "ABAB").candidates
    assert min(candidate.snr[::2]) == pytest.approx(18, abs=3)  # of all 96 rows: in 16 it would be 8
    assert candidate.valid == (1.0,) * 4


@pytest.mark.parametrize("brightness", [7.0, 9.0, 12.0, 30.0])
def test_interference_too_faint_for_five_minutes_is_not_taken_for_a_signal(brightness):
    off = brightness * (SHORT / LONG) ** 0.5
    channels = range(200, 4000, 300)
    lines = [tone(in_ons("ABAB", brightness, off), channel, drift_hz_s=0.01) for channel in channels]
    assert len(found(on_and_short_off(*lines), "ABAB").candidates) <= len(channels) // 6


def names(pattern):
    return ["HIP1" if letter == "A" else f"HIP1{letter}_OFF" for letter in pattern]


def headers(pattern, step_s=341.0):
    return [
        replace(HEADER, source_name=name, tstart=HEADER.tstart + i * step_s / 86_400, src_raj=0.0, src_dej=0.0)
        for i, name in enumerate(names(pattern))
    ]


@pytest.mark.parametrize("pattern", ["ABA", "ABAB", "BABA", "ABACAD", "ABABABAB", "ABACABAC", "ABABABABAB"])
def test_scans_that_alternate_are_a_cadence_of_the_configured_count(pattern):
    (cadence_,) = find_cadences(headers(pattern), CadenceRules(scans=len(pattern))).cadences
    assert (cadence_.pattern, cadence_.target) == (pattern, "HIP1")


def test_the_first_four_scans_of_six_wait_for_the_others():
    grouping = find_cadences(headers("ABAC"))
    assert grouping.cadences == ()
    (waiting,) = grouping.ungrouped
    assert waiting.reason.startswith("waiting for position 4, 5 of ABACAD")
    assert "a cadence has 6 scans: `cadence.scans`" in waiting.reason


def test_a_scan_that_is_missing_among_eight_is_named():
    eight = headers("ABACADAE")
    (waiting,) = find_cadences([*eight[:3], *eight[4:]], CadenceRules(scans=8)).ungrouped
    assert waiting.reason.startswith("waiting for position 3 of ABACADAE: the OFF after HIP1")
    assert waiting.pattern == "ABA.ADAE"


def test_fewer_than_three_and_more_than_twelve_scans_are_refused():
    for scans in (2, 13):
        with pytest.raises(OptionsError, match="scans: expected at least 3 and at most 12"):
            CadenceRules(scans=scans)


@pytest.fixture
def files(tmp_path):
    """Files of an ABAB cadence with a tone, named as an observer would."""
    folder = tmp_path / "in"
    folder.mkdir()
    paths = []
    for i, observation in enumerate(observe("ABAB", tone(in_ons("ABAB", 20.0)), header=HEADER)):
        paths.append(folder / f"{i}.h5")
        header = observation.header
        write_observation(paths[-1], header, observation.read(0, header.nchans))
    return paths


def test_search_takes_a_pattern_of_four_and_its_table_has_four_snr_columns(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setattr(searching, "detector_of", lambda *_: make_detector())
    assert cli.main(["search", "--cadence", "ABAB", "--output", str(tmp_path / "found"), *map(str, files)]) == 0
    with (tmp_path / "found" / "candidates.csv").open() as table:
        (line,) = csv.DictReader(table)
    assert [name for name in line if name.startswith("snr_")] == ["snr_0", "snr_1", "snr_2", "snr_3"]
    assert (line["probability"], line["scored_by"]) == ("", "gates")
    assert "ON 1 3  OFF 2 4" in capsys.readouterr().out
    assert json.loads((tmp_path / "found" / "run.json").read_text())["cadences"][0]["pattern"] == "ABAB"


@pytest.mark.parametrize("announced", [True, False])
def test_the_service_searches_records_draws_and_announces_it(files, tmp_path, monkeypatch, announced):
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test")
    monkeypatch.setenv("SLACK_CHANNEL", "C1")
    settings = {"cadence": {"scans": 4}, "search": {"announce_unscored": announced}}
    config = Config(state_dir=tmp_path, picture_dir=tmp_path / "pictures", **settings)
    folder = Folder(files[0].parent, open_store(f"sqlite:///{tmp_path}/sentinel.db"))
    folder.rules = config.cadence_rules
    assert folder.passes() == ["ready"]
    lease = folder.store.claim(600)

    def search(claimed, progress):
        return search_files(claimed.paths, claimed.pattern, progress, config, make_detector(), lease.cadence_id)

    search_lease(folder.store, config, lease.cadence_id, lease.token, search)
    recorded = row(folder.store, candidate)
    assert (recorded.probability, recorded.scored_by, len(recorded.snr)) == (None, "gates", 4)
    assert bool(recorded.note) != announced
    assert Path(recorded.picture).stat().st_size > 10_000
    assert row(folder.store, cadence).pattern == "ABAB"
    with folder.store.read() as rows:
        assert rows.exec_driver_sql("select count(*) from outbox where text like '%not scored%'").scalar() == announced
    assert "not scored" in newest(folder.store, 1)[0]
    export(folder.store, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as table:
        (line,) = csv.DictReader(table)
    assert "snr_3" in line
    assert "snr_4" not in line
    folder.store.engine.dispose()
