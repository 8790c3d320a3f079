"""The line for the observer names everything that is needed, or what is missing, and then no number."""

import re
import time
from dataclasses import replace

import pytest
from rows import CANDIDATE, record
from sqlalchemy import update

from aetherscan.cadence.roles import roles_of
from aetherscan.header import SCAN_STEP_S, gbt_header
from sentinel.commands.candidates import follow, put_label
from sentinel.errors import StoreError
from sentinel.notify import followup
from sentinel.notify.followup import follow_lines, observer_line
from sentinel.notify.outbox import claim_message, deliver_all
from sentinel.notify.slack import SlackPoster
from sentinel.store.schema import cadence, candidate

HEADER = gbt_header(4096)
START_S = (HEADER.tstart - 40_587) * 86_400


def run_of(tstart=HEADER.tstart):
    headers = [replace(HEADER, tstart=tstart + i * SCAN_STEP_S / 86_400) for i in range(6)]
    return {"roles": roles_of(headers, (0, 2, 4))}


ROW = {
    **CANDIDATE, "tstart_mjd": HEADER.tstart, "ra_deg": 302.74, "dec_deg": 77.24, "telescope": "GBT",
    "curvature_hz_s2": None, "on_separation_arcmin": 0.0,
}  # fmt: skip


def test_the_line_has_target_place_telescope_frequency_with_uncertainty_drift_and_altitude():
    line = observer_line(ROW, run_of(), START_S + 2400)
    assert re.fullmatch(
        r"follow up: HIP99427, RA 20:10:57.6 Dec \+77:14:24 \(J2000\), GBT: 8419\.32\d{4} MHz "
        r"\+/- [\d.]+ Hz at 01:12 UTC, \+0\.\d{3} Hz/s; altitude 5\d deg, does not set within a day",
        line,
    )


def test_a_target_that_sets_or_has_set_says_when():
    south = {**ROW, "ra_deg": 120.0, "dec_deg": 10.0}
    assert re.search(
        r"altitude -\d+ deg, rises \d\d:\d\d UTC \(in [\d.]+ h\)$", observer_line(south, run_of(), START_S)
    )
    assert re.search(r"deg, sets \d\d:\d\d UTC \(in [\d.]+ h\)$", observer_line(south, run_of(), START_S + 40_000))


@pytest.mark.parametrize(
    ("changes", "run", "missing"),
    [
        ({"telescope": None}, run_of(), "the header names no telescope of known place"),
        ({"telescope": "Allen"}, run_of(), "the header names no telescope of known place"),
        ({"ra_deg": None}, run_of(), "the header has no coordinates of the target"),
        ({}, {}, "the start of its scans is not recorded"),
    ],
)
def test_what_is_not_known_is_named_and_there_is_no_number(changes, run, missing):
    (line,) = follow_lines({**ROW, **changes}, run, START_S)
    assert line == f"follow up: no prediction, because {missing}"


def test_after_days_no_frequency_is_predicted():
    lines = follow_lines(ROW, run_of(), START_S + 40 * 86_400)
    assert len(lines) == 1
    assert "no frequency is predicted, because the cadence is 40 days old" in lines[0]
    assert "altitude" in lines[0]


def test_a_moving_target_is_marked_and_a_hostile_name_is_escaped():
    line = observer_line({**ROW, "target": "<!channel>\n`x`", "on_separation_arcmin": 9.0}, run_of(), START_S)
    assert "&lt;!channel&gt; 'x'" in line
    assert "a target that moves" in line
    assert "\n" not in line


def test_an_error_of_the_prediction_costs_no_message(monkeypatch):
    monkeypatch.setattr(followup, "known_track", lambda *_: 1 / 0)
    assert observer_line(ROW, run_of(), START_S).endswith("because of an error: see the log")


def test_the_table_has_a_line_for_each_of_the_next_hours():
    lines = follow_lines(ROW, run_of(), START_S + 2400)
    assert [line.split()[1] for line in lines if line.startswith("20")] == ["01:12", "02:12", "03:12", "05:12"]


def test_a_message_that_is_edited_has_the_prediction_of_its_best_candidate_that_is_no_interference(store, slack):
    made = record(store, count=2)
    with store.write() as rows:
        mjd = 40_587 + time.time() / 86_400
        place = {"ra_deg": 302.74, "dec_deg": 77.24, "telescope": "GBT", "tstart_mjd": mjd}
        rows.execute(update(candidate).values(**place))
        rows.execute(update(candidate).where(candidate.c.id == 2).values(frequency_mhz=1420.0, probability=0.1))
        rows.execute(update(cadence).where(cadence.c.id == made).values(run=run_of(mjd)))
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    deliver_all(store, poster, "slack", 0)
    for number, mhz in ((1, 1420), (2, None)):
        put_label(store, number, "RFI", "a person")
        deliver_all(store, poster, "slack", 0)
        line = [line for line in slack.messages[0]["text"].splitlines() if line.startswith("follow up")]
        assert [round(float(re.search(r"GBT: ([\d.]+) MHz", each)[1])) for each in line] == ([mhz] if mhz else [])
    assert follow(store, 2, time.time())[0].startswith("follow up: HIP99427, RA 20:10:57.6")
    with pytest.raises(StoreError, match="candidate 9: no such row"):
        follow(store, 9, time.time())
    assert claim_message(store, "slack", 0) is None
