"""Injected signals in the queue of labels: their numbers, who sees them, and what is known of the people afterwards."""

import csv

import pytest
from judging import inject, looks_like
from rows import count, record_candidates
from sqlalchemy import insert, select, update

from sentinel.commands import candidates
from sentinel.store.filters import parse_filter
from sentinel.store.injected import injected_row, merged, open_injected, put_injected, reviewers, truth
from sentinel.store.labels import put_labels
from sentinel.store.queue import written_file
from sentinel.store.schema import candidate, injected_candidate, injected_label, label
from sentinel.store.tables import write_candidates


def opened(store, person="anna", **terms):
    with store.read() as rows:
        return [number for number, _ in open_injected(rows, parse_filter(terms.items(), sort="-p"), person)]


def test_an_injected_signal_has_a_number_that_no_candidate_has_or_gets(store):
    record_candidates(store, [looks_like(0), looks_like(1)])
    first = inject(store)
    record_candidates(store, [looks_like(2), looks_like(3)])
    numbers = [first, inject(store, "b"), inject(store, "c")]
    record_candidates(store, [looks_like(4)])
    with store.read() as rows:
        real = list(rows.scalars(select(candidate.c.id)))
    assert len({*real, *numbers}) == len(real) + len(numbers) == 8
    assert first == 3


def test_the_filter_and_the_order_of_a_queue_hold_for_injected_signals(store):
    record_candidates(store, [looks_like(i) for i in range(4)])
    low = inject(
        store, frequency_mhz=1420.5, probability=0.55, target="HIP7", telescope="GBT", ra_deg=10.0, dec_deg=5.0
    )
    high = inject(store, "b", frequency_mhz=1500.0, probability=0.95)
    assert opened(store) == [high, low]
    for terms in (
        {"mhz": "1420..1421"}, {"p": "..0.6"}, {"target": "HIP7"}, {"telescope": "GBT"}, {"cone": "10,5,1"},
    ):  # fmt: skip
        assert opened(store, **terms) == [low], terms
    assert opened(store, label="none") == opened(store, label="not-mine") == [high, low]
    for terms in ({"label": "RFI"}, {"label": "mine"}, {"label": "disagreed"}, {"night": "2030-01-01"}):
        assert opened(store, **terms) == [], terms
    with store.read() as rows:
        asked = parse_filter([], sort="mhz")
        real = rows.execute(select(candidate.c.id, candidate.c.frequency_mhz).order_by(candidate.c.frequency_mhz)).all()
        page = merged([tuple(row) for row in real], open_injected(rows, asked, "anna"), "mhz", 200)
    assert page == [1, low, 2, 3, 4, high]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("snr", [1, 9, 2, 3, 4]), ("-snr", [2, 9, 1, 4, 3]), ("-p", [1, 9, 2, 3, 4])],
)
def test_injected_signals_are_among_the_candidates_in_any_order_and_rows_without_a_value_are_last(sort, expected):
    values = {"snr": [(1, 5.0), (2, 8.0), (3, None), (4, None)], "-snr": [(2, 8.0), (1, 5.0), (4, None), (3, None)]}
    real = values.get(sort, [(1, 0.9), (2, 0.5), (3, 0.4), (4, 0.3)])
    assert merged(real, [(9, 6.0 if "snr" in sort else 0.6)], sort, 200) == expected


def test_an_injected_signal_after_the_last_candidate_of_a_page_waits_for_the_next_page():
    assert merged([(1, 0.9), (2, 0.8)], [(9, 0.85), (8, 0.1)], "-p", 2) == [1, 9, 2]
    assert merged([(1, 0.9), (2, 0.8)], [(9, 0.85), (8, 0.1)], "-p", 3) == [1, 9, 2, 8]
    assert merged([], [(9, 0.85)], "-p", 2) == [9]


def test_each_person_labels_an_injected_signal_once_and_the_first_label_counts(store):
    record_candidates(store, [looks_like(0)])
    number = inject(store)
    with store.read() as rows:
        assert truth(rows, number, "anna") is None
    with store.write() as rows:
        assert put_injected(rows, [1, number], "RFI", "anna") == [number]
        put_injected(rows, [number], "candidate", "anna")
    assert (opened(store), opened(store, "ben"), opened(store, "")) == ([], [number], [])
    with store.read() as rows:
        assert truth(rows, number, "anna")["label"] == "RFI"
        assert truth(rows, number, "ben") is None
    assert count(store, injected_label) == 1


def test_an_injected_signal_leaves_the_queue_after_a_week(store):
    record_candidates(store, [looks_like(0)])
    inject(store)
    with store.write() as rows:
        rows.execute(update(injected_candidate).values(made_at=injected_candidate.c.made_at - 8 * 86_400))
    assert opened(store) == []


def test_no_table_list_or_training_label_holds_an_injected_signal(store, tmp_path):
    record_candidates(store, [looks_like(0)])
    number = inject(store)
    with store.write() as rows:
        put_injected(rows, [number], "candidate", "anna")
    assert (count(store, candidate), count(store, label)) == (1, 0)
    write_candidates(store, tmp_path / "a.csv")
    assert [row["id"] for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())] == ["1"]
    assert [line.split()[0] for line in candidates.newest(store, 20, parse_filter([]))] == ["1"]


def test_people_are_measured_by_injected_signals_and_by_interference_that_the_memory_knows(store):
    known = {"seen_of": 24, "seen_cadences": 12, "seen_targets": 2}
    changes = ({}, known, known, {**known, "seen_cadences": 11}, {**known, "seen_targets": 1}, {**known, "seen_of": 3})
    record_candidates(store, [looks_like(i, **values) for i, values in enumerate(changes)])
    numbers = [inject(store, name) for name in "abc"]
    with store.write() as rows:
        for number, word in zip(numbers, ("candidate", "candidate", "RFI"), strict=True):
            put_injected(rows, [number], word, "anna")
        put_injected(rows, numbers[:1], "unsure", "ben")
        put_labels(rows, [1, 3, 4, 5, 6], "candidate", "anna", via="page")
        put_labels(rows, [2], "RFI", "anna", via="page")
    with store.read() as rows:
        anna, ben = reviewers(rows)
    assert (anna["name"], anna["injected"]) == ("anna", {"candidate": 2, "RFI": 1})
    assert anna["interference"] == {"candidate": 1, "RFI": 1}
    assert (ben["name"], ben["injected"], ben["interference"]) == ("ben", {"unsure": 1}, {})


def test_a_number_that_an_earlier_version_gave_to_a_candidate_is_of_the_candidate(store):
    record_candidates(store, [looks_like(0)])
    number = inject(store)
    with store.write() as rows:
        put_injected(rows, [number], "RFI", "anna")
        real = dict(rows.execute(select(candidate)).mappings().one())
        rows.execute(insert(candidate).values({**real, "id": number}))
        assert put_injected(rows, [number], "candidate", "ben") == []
        rows.execute(update(injected_candidate).values(files={"waterfall": ["/a.png", "ab"]}))
        assert (injected_row(rows, number), written_file(rows, number, "waterfall")) == (None, None)
        assert truth(rows, number, "anna") is None
    assert opened(store, "ben") == []
