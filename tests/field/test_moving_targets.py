"""A comet or a spacecraft moves between its ONs; a cadence that waits names the rule that holds it back."""

import json
from dataclasses import replace

import h5py
import pytest
from factories import make_detector, make_header
from watched import STEP_DAYS, Folder, land

from aetherscan.cadence.grouping import find_cadences
from aetherscan.cadence.places import largest_separation_arcmin
from aetherscan.header import gbt_header
from aetherscan.options.cadence import CadenceRules
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands.search import search
from sentinel.config import Search

COMET = ("C/2023_A3", "HIP1", "C/2023_A3", "HIP1", "C/2023_A3", "HIP1")


def scans(names=COMET, *, north_h=0.0, east_h=0.0, step_days=STEP_DAYS, lengths=(16,) * 6, dec=20.0):
    """Return headers whose target moves at a steady rate (arcmin/h); the others point 2 degrees north."""
    headers = []
    for i, (name, rows) in enumerate(zip(names, lengths, strict=True)):
        hours = i * step_days * 24
        away = 0 if name == names[0] else 2
        east = east_h * hours / 60 / 15 / 0.9396926 * (not away)  # cos 20 degrees
        headers.append(
            make_header(
                source_name=name,
                src_raj=(23.9999 + east) % 24,
                src_dej=dec + away + north_h * hours / 60 * (not away),
                tstart=59103.0 + i * step_days,
                ntime=rows,
            )
        )
    return headers


@pytest.mark.parametrize(
    ("north_h", "east_h"), [(0.0, 0.0), (3.0, 0.0), (0.0, -3.0), (6.0, 6.0), (0.0, 33.0), (-40.0, 40.0)]
)
def test_the_target_that_moves_steadily_is_the_on(north_h, east_h):
    headers = scans(north_h=north_h, east_h=east_h)
    (cadence,) = find_cadences(headers).cadences
    assert (cadence.target, cadence.on, cadence.pattern) == ("C/2023_A3", (0, 2, 4), "ABABAB")
    ons = [headers[i] for i in cadence.on]
    apart = (north_h**2 + east_h**2) ** 0.5 * 4 * STEP_DAYS * 24
    assert largest_separation_arcmin(ons) == pytest.approx(apart, rel=1e-3, abs=1e-9)


def test_the_moving_target_may_come_second():
    headers = scans(("HIP1", COMET[0], "HIP2", COMET[0], "HIP3", COMET[0]))
    moved = [replace(h, src_dej=h.src_dej + i / 30) if h.source_name == COMET[0] else h for i, h in enumerate(headers)]
    assert [(c.target, c.on) for c in find_cadences(moved).cadences] == [("C/2023_A3", (1, 3, 5))]


def test_a_target_faster_than_the_limit_or_unsteady_or_renamed_is_not_one_place():
    assert all(cadence.on != (0, 2, 4) for cadence in find_cadences(scans(north_h=90.0)).cadences)
    comet = scans(north_h=20.0)
    slow = CadenceRules(max_motion_arcmin_h=3)
    assert not find_cadences(comet, slow).cadences
    jumped = [*comet[:2], replace(comet[2], src_dej=comet[2].src_dej + 0.05), *comet[3:]]
    assert not find_cadences(jumped).cadences
    renamed = [*comet[:2], replace(comet[2], source_name="HIP7"), *comet[3:]]
    assert all(cadence.target != "C/2023_A3" for cadence in find_cadences(renamed).cadences)


def test_six_scans_of_a_moving_target_are_no_cadence_without_an_off():
    assert not find_cadences(scans((COMET[0],) * 6, north_h=30.0)).cadences


def test_offs_a_few_arcminutes_away_that_bear_the_targets_name_are_offs():
    headers = scans(("A",) * 6)
    nodding = [replace(header, src_dej=20 + (i % 2) * 5 / 60) for i, header in enumerate(headers)]
    assert [cadence.pattern for cadence in find_cadences(nodding).cadences] == ["ABABAB"]


def reason(headers, rules=None):
    grouping = find_cadences(headers, rules)
    assert not grouping.cadences
    return grouping.ungrouped[0].reason


def test_long_ons_with_short_offs_wait_for_the_rules_on_spacing_and_length_and_those_can_be_changed():
    headers = []
    for i in range(6):
        start = 59103.0 + (i // 2 * 2400 + (i % 2) * 1830) / 86_400
        place = {"source_name": "OFF" if i % 2 else "Proxima", "src_dej": -62.0 + i % 2}
        headers.append(make_header(tstart=start, ntime=16 if i % 2 else 98, **place))
    why = reason(headers)
    assert "spacing: OFF at MJD 59103.0212 starts 1830 s after Proxima at MJD 59103.0000, over 600 s" in why
    assert "unequal length: OFF at MJD 59103.0212 is 292 s long and Proxima at MJD 59103.0000 1789 s" in why
    assert "position" not in why
    only_length = reason(headers, CadenceRules(max_step_s=2000))
    assert "unequal length" in only_length
    assert "spacing" not in only_length
    (cadence,) = find_cadences(headers, CadenceRules(max_step_s=2000, min_length_ratio=0.1)).cadences
    assert (cadence.target, cadence.on) == ("Proxima", (0, 2, 4))


def test_scans_that_start_too_far_apart_wait_for_the_rule_on_spacing():
    assert "over 600 s" in reason(scans(step_days=700 / 86_400))
    assert find_cadences(scans(step_days=700 / 86_400), CadenceRules(max_step_s=800)).cadences


def test_a_scan_at_another_place_than_the_ons_is_named_with_its_distance():
    headers = scans()
    strayed = [*headers[:4], replace(headers[4], src_dej=20.2), headers[5]]
    why = reason(strayed)
    assert "place: C/2023_A3 at MJD 59103.0158 does not point where an ON would (12.0' from the first ON" in why


def test_a_missing_scan_is_still_named_by_its_position():
    headers = scans()
    assert "waiting for position 3 of ABACAD: the OFF after C/2023_A3" in reason([*headers[:3], *headers[4:]])


def test_the_rules_of_the_configuration_reach_the_service(tmp_path, store):
    folder = Folder(tmp_path / "in", store)
    land(folder, scans(step_days=700 / 86_400))
    assert folder.passes() == ["forming"] * len(folder.states())
    assert any("over 600 s" in why for why in folder.whys())
    other = Folder(tmp_path / "in2", store)
    other.rules = CadenceRules(max_step_s=800)
    land(other, scans(step_days=700 / 86_400, dec=30.0))
    assert "ready" in other.passes()


def test_a_bright_tone_of_a_comet_is_found_and_its_row_names_the_comet_and_its_motion(tmp_path):
    header = gbt_header(4096, source_name="C")
    tone = Emitter(frequency_mhz=header.frequency(1200), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
    star = ("HIP1",) * 3
    files = write_cadence(tmp_path, Sky(header=header, emitters=(tone,), off_names=star), 1)
    for i, path in enumerate(files):
        with h5py.File(path, "r+") as file:
            file["data"].attrs["src_dej"] = 40.0 if i % 2 else 20.0 + i * 3 * STEP_DAYS * 24 / 60
    search(files, tmp_path / "found", detect=make_detector, search=Search(threads=1), table="json", tell=lambda _: None)
    (row,) = json.loads((tmp_path / "found" / "candidates.json").read_text())
    assert row["target"] == "C"
    assert row["on_separation_arcmin"] == pytest.approx(3 * 4 * STEP_DAYS * 24, rel=1e-3)
