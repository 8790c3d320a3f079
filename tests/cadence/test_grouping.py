"""Which observations are grouped into cadences, and the reason given for the others."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from aetherscan.cadence.grouping import CALIBRATORS, Cadence, find_cadences
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, Header

MJD = 59103.99  # a quarter of an hour before a UT midnight


def observed(names, *, start=MJD, step_s=SCAN_STEP_S, fch1=1501.0, **same):
    """Return headers of one slice, one scan every `step_s`; an empty name stands for a missing file."""
    fields = {
        "telescope_id": 6, "machine_id": 20, "src_raj": 0.0, "src_dej": 0.0, "tsamp": 18.253611008, "fch1": fch1,
        "foff": -2.7939677238464355e-06, "nchans": 2**26, "nifs": 1, "ntime": 16, "nbits": 32,
    }  # fmt: skip
    return [
        Header(**(fields | same), source_name=name, tstart=start + i * step_s / SECONDS_PER_DAY)
        for i, name in enumerate(names.split("|"))
        if name
    ]


def target_names(headers, cadence):
    return "|".join(headers[i].source_name for i in cadence.members)


def only(headers) -> Cadence:
    (cadence,) = find_cadences(headers).cadences
    return cadence


def test_six_scans_of_a_target_and_three_others_are_a_cadence_across_midnight():
    headers = observed("A|B|A|C|A|D")
    assert int(headers[0].tstart) < int(headers[5].tstart)
    assert only(headers) == Cadence(members=(0, 1, 2, 3, 4, 5), target="A", pattern="ABACAD", on=(0, 2, 4))


def test_every_pattern_that_observers_use_is_a_cadence():
    patterns = {"A|B|A|B|A|B": "ABABAB", "A|B|A|C|A|B": "ABACAB", "A|B|A|B|A|C": "ABABAC", "B|A|C|A|D|A": "BACADA"}
    assert {scans: only(observed(scans)).pattern for scans in patterns} == patterns


def test_the_target_comes_second_if_the_first_scan_is_named_as_its_off():
    cadence = only(observed("A_OFF|A|A_OFF|A|A_OFF|A"))
    assert (cadence.target, cadence.on, cadence.pattern) == ("A", (1, 3, 5), "BABABA")


def test_an_off_before_a_complete_cadence_makes_no_second_cadence():
    assert [cadence.members[0] for cadence in find_cadences(observed("X|A|B|A|C|A|D")).cadences] == [1]
    assert not find_cadences(observed("X|Y|A|B|A|C|A")).cadences  # the OFF that follows has not landed yet


def test_twelve_scans_of_one_target_give_four_overlapping_cadences():
    headers = observed("A|B|A|C|A|D|A|E|A|F|A|G")
    assert [cadence.members[0] for cadence in find_cadences(headers).cadences] == [0, 2, 4, 6]


def test_a_star_that_was_an_off_three_times_is_also_a_target():
    cadences = find_cadences(observed("A|B|A|B|A|B|C")).cadences
    assert [(cadence.target, cadence.pattern) for cadence in cadences] == [("A", "ABABAB"), ("B", "ABABAC")]


def test_calibrators_are_never_targets_and_may_be_offs():
    for calibrator in sorted(CALIBRATORS):
        assert not find_cadences(observed(f"{calibrator}|B|{calibrator}|C|{calibrator}|D")).cadences
        assert only(observed(f"A|B|A|C|A|{calibrator}")).target == "A"


def test_a_long_track_on_one_source_is_no_cadence():
    assert not find_cadences(observed("A|A|A|A|A|A")).cadences


def test_six_scans_all_named_voyager_alternate_from_the_first():
    run = "|".join(["VOYAGER-1"] * 6)
    headers = observed("VOYAGER-1", start=MJD - 1) + observed(run)
    assert only(headers) == Cadence(members=(1, 2, 3, 4, 5, 6), target="VOYAGER-1", pattern="ABABAB", on=(0, 2, 4))


def test_coordinates_decide_where_names_disagree():
    places = (10.0, 20.0, 10.0, 30.0, 10.0, 40.0)
    alike = [replace(h, src_raj=1.0, src_dej=d) for h, d in zip(observed("A|A|A|A|A|A"), places, strict=True)]
    assert only(alike).pattern == "ABACAD"
    renamed = [replace(h, src_raj=1.0, src_dej=d) for h, d in zip(observed("A|B|a*|C|A|D"), places, strict=True)]
    assert only(renamed).target == "A"
    moved = [replace(h, src_raj=1.0, src_dej=20.0 + i) for i, h in enumerate(observed("A|B|A|C|A|D"))]
    assert not find_cadences(moved).cadences


def test_a_scan_named_off_is_an_off_even_with_the_coordinates_of_its_target():
    assert only(observed("A|A_OFF|A|A_OFF|A|A_OFF", src_raj=3.0, src_dej=-5.0)).target == "A"


def test_a_sixth_file_from_another_day_is_not_grouped():
    headers = observed("A|B|A|C|A") + observed("D|E", start=MJD + 1)
    grouping = find_cadences(headers)
    assert not grouping.cadences
    assert "position 5 of ABACAD: the OFF after A" in grouping.ungrouped[0].reason


def test_a_rest_of_up_to_ninety_minutes_between_ons_is_allowed():
    rested = observed("A|B|A") + observed("C|A|D", start=MJD + 2000 / SECONDS_PER_DAY)
    assert only(rested).pattern == "ABACAD"
    too_long = observed("A|B|A") + observed("C|A|D", start=MJD + 8000 / SECONDS_PER_DAY)
    assert not find_cadences(too_long).cadences


def test_a_gap_is_no_rest_if_another_slice_has_a_scan_in_it():
    run = "A|B|A|C|A|D|A|E"
    whole, holed = observed(run), observed("A|B|||A|D|A|E", fch1=1688.5)
    assert [cadence.members[0] for cadence in find_cadences(holed).cadences] == [0]
    cadences = find_cadences(whole + holed).cadences
    assert [cadence.members[0] for cadence in cadences] == [0, 2]


def test_the_last_off_may_follow_a_rest_unless_it_is_the_first_on_of_the_next_target():
    late = MJD + 2500 / SECONDS_PER_DAY
    closed_late = observed("A|B|A|C|A") + observed("D||E|F|E", start=late)
    assert target_names(closed_late, only(closed_late)) == "A|B|A|C|A|D"
    assert only(observed("A|B|A|C|A") + observed("E|F|E|G|E|H", start=late)).target == "E"
    assert not find_cadences(observed("A|B|A|C|A") + observed("D", start=late)).cadences  # later scans may return to D


def test_the_eight_node_files_of_a_pointing_sequence_are_eight_cadences():
    bands = [observed("A|B|A|C|A|D", start=MJD + node / SECONDS_PER_DAY, fch1=1900 - 187.5 * node) for node in range(8)]
    headers = [header for band in bands for header in band]
    cadences = find_cadences(headers).cadences
    assert sorted(cadence.members for cadence in cadences) == [tuple(range(6 * n, 6 * n + 6)) for n in range(8)]


def test_a_cadence_has_one_product_one_telescope_and_one_band():
    headers = observed("A|B|A|C|A|D")
    for other in (
        {"tsamp": 17.986224},
        {"telescope_id": 4},
        {"fch1": 1501.1},
        {"foff": -2.8355e-06},
        {"nchans": 2**25},
    ):
        assert not find_cadences([*headers[:5], replace(headers[5], **other)]).cadences


def test_half_a_channel_and_a_rounded_channel_width_are_the_same_slice():
    headers = observed("A|B|A|C|A|D")
    shifted = replace(headers[3], fch1=headers[3].fch1 + headers[3].foff / 2, foff=-2.79396772e-06, tsamp=18.2536)
    assert only([*headers[:3], shifted, *headers[4:]]).pattern == "ABACAD"


def test_a_second_copy_of_a_file_changes_nothing():
    headers = observed("A|B|A|C|A|D")
    grouping = find_cadences([*headers, *headers])
    assert ([c.members for c in grouping.cadences], grouping.ungrouped) == ([(0, 1, 2, 3, 4, 5)], ())


def test_the_longer_of_two_files_of_a_scan_is_used():
    headers = observed("A|B|A|C|A|D")
    grouping = find_cadences([*headers, replace(headers[2], ntime=9)])
    assert grouping.cadences[0].members == (0, 1, 2, 3, 4, 5)
    assert grouping.ungrouped[0].members == (6,)


def test_a_scan_that_was_aborted_and_restarted_counts_once():
    headers = observed("A|B") + observed("A|C|A|D", start=MJD + 800 / SECONDS_PER_DAY)
    stub = replace(headers[2], tstart=MJD + 2 * SCAN_STEP_S / SECONDS_PER_DAY, ntime=5)
    grouping = find_cadences([*headers, stub])
    assert (grouping.cadences[0].members, grouping.ungrouped[0].members) == ((0, 1, 2, 3, 4, 5), (6,))


def test_an_aborted_scan_does_not_complete_a_cadence():
    headers = observed("A|B|A|C|A|D")
    grouping = find_cadences([*headers[:5], replace(headers[5], ntime=5)])
    assert not grouping.cadences
    assert "unequal length" in grouping.ungrouped[0].reason


def test_a_missing_scan_is_described_by_position_time_and_slice():
    (ungrouped,) = find_cadences(observed("A|B|A||A|D")).ungrouped
    at = MJD + 2 * SCAN_STEP_S / SECONDS_PER_DAY
    assert ungrouped.reason == f"waiting for position 3 of ABACAD: the OFF after A at MJD {at:.4f} (fch1 1501.0000 MHz)"
    assert (ungrouped.members, ungrouped.target) == ((0, 1, 2, 3, 4), "A")


def test_a_file_missing_on_one_node_is_described_by_the_files_of_the_others():
    delay = 15 / SECONDS_PER_DAY
    whole, holed = observed("A|B|A|C|A|D"), observed("|B|A|C|A|D", start=MJD + delay, fch1=1688.5)
    (ungrouped,) = find_cadences(whole + holed).ungrouped
    assert "position 0 of ABACAD: the ON A at MJD 59103.9900, which other slices have (fch1 1688.5" in ungrouped.reason


SKIES = st.lists(st.sampled_from(["A", "B", "C", "A_OFF", "3C286", "VOYAGER-1", ""]), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(SKIES, SKIES, st.randoms(use_true_random=False))
def test_the_grouping_is_the_same_in_any_order_and_includes_every_observation(low, high, random):
    headers = [*observed("|".join(low)), *observed("|".join(high), fch1=1688.5)]
    shuffled = random.sample(headers, len(headers))
    answers = []
    for order in (headers, shuffled):
        grouping = find_cadences(order)
        placed = {i for group in (*grouping.cadences, *grouping.ungrouped) for i in group.members}
        assert placed == set(range(len(order)))
        cadences = [([order[i].identity for i in c.members], c.target, c.pattern, c.on) for c in grouping.cadences]
        answers.append((cadences, [([order[i].identity for i in w.members], w.reason) for w in grouping.ungrouped]))
    assert answers[0] == answers[1]
