"""Memory of interference: lines that cadences rejected, and how often a candidate's frequency was among them."""

from dataclasses import replace

import numpy as np
import pytest
from rows import CANDIDATE, count, found, queue, row
from sqlalchemy import select, update

from sentinel.store.occupancy import BIN_HZ, Memory, Occupancy, pack_lines, recall, unpack_lines
from sentinel.store.schema import candidate, occupancy

LINE = CANDIDATE["frequency_mhz"]
BAND = (LINE - 90, LINE + 90)


def lines(target="T", tstart=59000.0, at=(LINE,), **changes):
    values = {"telescope_id": 6, "target": target, "tstart": tstart, "band_mhz": BAND, "lines_mhz": np.array(at)}
    return Occupancy(**values | changes)


def complete(store, occupied, candidates=()):
    made = queue(store)
    store.complete(store.claim(60).token, replace(found(), candidates=candidates, pictures=[], occupancy=occupied))
    return made


def seen(store, occupied, mhz=LINE):
    """Record a candidate of one more cadence; return its memory."""
    complete(store, occupied, [{**CANDIDATE, "frequency_mhz": mhz, "tstart_mjd": occupied.tstart}])
    with store.read() as rows:
        last = rows.execute(select(candidate).order_by(candidate.c.id.desc())).first()
    return last.seen_cadences, last.seen_of, last.seen_targets, last.last_seen_mjd


def test_a_histogram_is_read_as_it_was_packed():
    rng = np.random.default_rng(12)
    mhz = rng.uniform(1100, 1300, 3000)
    bins, counts = unpack_lines(pack_lines(mhz))
    expected = np.unique(np.floor(mhz * 1e6 / BIN_HZ), return_counts=True)
    assert (bins.tolist(), counts.tolist()) == tuple(part.tolist() for part in expected)
    assert len(pack_lines(mhz)) < 10_000
    assert [part.size for part in unpack_lines(pack_lines([]))] == [0, 0]
    assert unpack_lines(pack_lines([1100.0] * 300))[1].tolist() == [255]


@pytest.mark.parametrize("damage", [b"", b"x" * 40, pack_lines([1100.0, 1200.0])[:-3]])
def test_damaged_histograms_are_left_out_and_named(store, caplog, damage):
    with pytest.raises(ValueError, match=r"."):
        unpack_lines(damage)
    complete(store, lines("A"))
    with store.write() as rows:
        rows.execute(update(occupancy).values(bins=damage))
    complete(store, lines("B", 59000.2))
    assert seen(store, lines("C", 59000.4)) == (1, 1, 1, 59000.2)
    assert "occupancy of cadence 1: left out, damaged" in caplog.text


def test_a_candidate_knows_in_how_many_cadences_and_targets_lines_were_rejected_there(store):
    places = ("A", LINE), ("B", LINE + 0.5e-3), ("A", LINE), ("T", LINE), ("D", LINE + 0.01)
    for number, (target, at) in enumerate(places):
        complete(store, lines(target, 59000 + number / 10, [at - 20, at]))
    assert seen(store, lines("T", 59001.0, [])) == (4, 5, 2, pytest.approx(59000.3))
    assert seen(store, lines("T", 59000.0, []), LINE + 50)[:3] == (0, 5, 0)  # one began at the same time
    assert seen(store, lines("T", 59001.0, []), BAND[1] + 0.1) == (0, 0, 0, None)


def test_a_line_within_half_a_khz_is_at_the_same_frequency_wherever_the_bins_begin(store):
    near = {0.0: 1, 0.5: 1, -0.5: 1, 1.5: 0, -1.5: 0}
    cases = [(place, away) for place in (0.01, 0.3, 0.7, 0.99) for away in near]
    mhz = [8400 + number + place * 1e-3 for number, (place, _) in enumerate(cases)]
    complete(store, lines("A", 59000.0, [at + away * 1e-3 for at, (_, away) in zip(mhz, cases, strict=True)]))
    with store.read() as rows:
        found = recall(rows, lines("B", 59000.5, []), mhz)
    assert [facts["seen_cadences"] for facts in found] == [near[away] for _, away in cases]


def test_the_first_cadence_remembers_nothing_and_itself_does_not_count(store):
    assert seen(store, lines()) == (0, 0, 0, None)
    with store.write() as rows:
        rows.exec_driver_sql("UPDATE cadence SET state = 'ready'")
    again = replace(found(), candidates=[CANDIDATE], pictures=[], occupancy=lines())
    store.complete(store.claim(60).token, again)
    assert row(store, candidate, id=2).seen_of == 0
    assert count(store, occupancy) == 1


def test_band_slices_of_one_pointing_and_other_telescopes_do_not_count(store):
    complete(store, lines("A", 59000.0))
    complete(store, lines("B", 59000.5, telescope_id=4))
    complete(store, lines("C", 59000.5, band_mhz=(1.0, 2.0)))
    assert seen(store, lines("D", 59000.0 + 20 / 1440, [])) == (0, 0, 0, None)
    assert seen(store, lines("E", 59000.0 + 40 / 1440, [])) == (1, 1, 1, 59000.0)


def test_the_nearest_in_time_count_whichever_were_recorded_first(store):
    memory = Memory(cadences=2)
    for tstart, at in ((59000.9, [LINE]), (59000.1, []), (59000.4, [LINE]), (59000.6, [])):
        complete(store, lines("A", tstart, at))
    assert seen(store, lines("T", 59000.5, [], memory=memory))[:2] == (1, 2)


def test_the_newest_recorded_cadences_are_kept_and_none_if_none_shall_be(store):
    memory = Memory(keep=3)
    for tstart in (59005.0, 59000.0, 59001.0, 58000.0):  # the clock of the recorder was set back at last
        complete(store, lines("A", tstart, memory=memory))
    with store.read() as rows:
        assert list(rows.scalars(select(occupancy.c.tstart).order_by(occupancy.c.id))) == [59000.0, 59001.0, 58000.0]
    assert seen(store, lines("B", 59000.5, memory=Memory(cadences=0, keep=0))) == (0, 0, 0, None)
    assert count(store, occupancy) == 0


def test_a_target_with_a_hostile_name_is_counted_as_one(store):
    name = "'; DROP TABLE occupancy; --" * 200
    for tstart in (59000.0, 59000.1):
        complete(store, lines(name, tstart))
    assert seen(store, lines("B", 59000.5)) == (2, 2, 1, 59000.1)
