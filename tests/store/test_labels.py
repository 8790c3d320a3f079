"""Labels: the last of each person counts, the majority is in force, and every row is kept."""

import threading
from dataclasses import replace

import pytest
from rows import CANDIDATE, count, found, record, record_candidates, row
from sqlalchemy import insert, select, update

from sentinel.errors import StoreError
from sentinel.store.labels import count_earlier_labels, disagreed, in_force, put_labels, undo_labels
from sentinel.store.queue import open_store
from sentinel.store.schema import candidate, label, labeled, now, outbox


def put(store, word, by, ids=(1,), **about):
    with store.write() as rows:
        return put_labels(rows, ids, word, by, via="page", **about)


def word_of(store, number=1):
    return row(store, candidate, id=number).label_in_force


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["RFI"], "RFI"),
        (["RFI", "candidate"], "unsure"),
        (["RFI", "candidate", "candidate"], "candidate"),
        (["RFI", "candidate", "unsure"], "unsure"),
        (["RFI", "RFI", "candidate", "candidate", "unsure"], "unsure"),
    ],
)
def test_the_majority_of_persons_is_in_force_and_a_tie_is_unsure(words, expected):
    assert in_force(words) == expected


def test_the_last_label_of_each_person_counts(store):
    record(store)
    for word, by in (("RFI", "ann"), ("candidate", "ann"), ("candidate", "bob"), ("RFI", "cleo")):
        put(store, word, by)
    assert word_of(store) == "candidate"
    assert count(store, label) == 4


def test_an_undone_label_gives_way_to_the_earlier_one_of_that_person(store):
    record(store)
    (first,), (second,) = put(store, "RFI", "ann"), put(store, "candidate", "ann")
    with store.write() as rows:
        assert undo_labels(rows, [second], "ann") == [second]
        assert undo_labels(rows, [second], "ann") == []
    assert word_of(store) == "RFI"
    with store.write() as rows:
        assert undo_labels(rows, [first], "ann") == [first]
    assert word_of(store) is None
    assert count(store, label) == 2


def test_nobody_undoes_the_label_of_another(store):
    record(store)
    (given,) = put(store, "RFI", "ann")
    with store.write() as rows:
        assert undo_labels(rows, [given], "bob") == []
    assert word_of(store) == "RFI"


def test_several_candidates_are_labeled_at_once_or_not_at_all(store):
    record(store, count=2)
    put(store, "RFI", "ann", ids=(1, 2), reason="satellite", note="Iridium", blind=True)
    assert [word_of(store, number) for number in (1, 2)] == ["RFI", "RFI"]
    given = row(store, label, candidate_id=2)
    assert (given.reason, given.note, given.via, given.blind) == ("satellite", "Iridium", "page", True)
    with pytest.raises(StoreError, match="candidate 9: no such row"):
        put(store, "candidate", "ann", ids=(1, 9))
    with pytest.raises(StoreError, match="expected a label of candidate, RFI, unsure, found signal"):
        put(store, "signal", "ann")
    assert (word_of(store), count(store, label)) == ("RFI", 2)


def test_a_label_marks_the_message_to_be_edited_and_its_undoing_too(store):
    record(store)
    (given,) = put(store, "RFI", "ann")
    assert row(store, outbox).stale_at
    with store.write() as rows:
        rows.execute(update(outbox).values(stale_at=None))
        undo_labels(rows, [given], "ann")
    assert row(store, outbox).stale_at


def test_candidates_that_people_label_differently_are_known(store):
    record(store, count=3)
    for number, words in ((1, ("RFI", "RFI")), (2, ("RFI", "unsure")), (3, ("RFI",))):
        for by, word in zip(("ann", "bob"), words, strict=False):
            put(store, word, by, ids=(number,))
    with store.read() as rows:
        assert list(rows.scalars(disagreed())) == [2]


def test_labels_of_every_person_are_kept_when_a_cadence_is_searched_again(store):
    record_candidates(store, [CANDIDATE])
    for word, by in (("RFI", "ann"), ("candidate", "ann"), ("candidate", "bob"), ("RFI", "cleo")):
        put(store, word, by, reason="comb")
    with store.write() as rows:
        rows.exec_driver_sql("UPDATE cadence SET state = 'ready'")
    again = {**CANDIDATE, "frequency_mhz": CANDIDATE["frequency_mhz"] + 1e-6}
    store.complete(store.claim(60).token, replace(found(), candidates=[again], pictures=[]))
    with store.read() as rows:
        copied = rows.execute(select(label).where(label.c.candidate_id == 2).order_by(label.c.by)).all()
        assert {line.candidate_id: line.via for line in copied} == {2: "search"}
        assert [(line.by, line.label, line.reason) for line in copied] == [
            ("ann", "candidate", "comb"),
            ("bob", "candidate", "comb"),
            ("cleo", "RFI", "comb"),
        ]
    assert word_of(store, 2) == "candidate"


def test_a_label_that_a_service_of_an_earlier_version_wrote_is_counted(store):
    record(store)
    put(store, "RFI", "ann")
    with store.write() as rows:
        rows.execute(insert(label).values(candidate_id=1, label="candidate", by="ann", at=now()))
    again = open_store(store.engine.url.render_as_string(hide_password=False))
    again.engine.dispose()
    assert word_of(store) == "candidate"
    with store.write() as rows:
        count_earlier_labels(rows)
        assert list(rows.scalars(select(label.c.via).order_by(label.c.id))) == ["page", "earlier"]


def test_of_two_persons_who_label_at_the_same_moment_both_count(store):
    record(store)
    together = threading.Barrier(2)

    def give(word, by):
        together.wait()
        put(store, word, by)

    for word in ("RFI", "candidate") * 3:  # in each round both give the same label
        people = [threading.Thread(target=give, args=(word, by)) for by in ("ann", "bob")]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert word_of(store) == word


def test_hostile_names_and_notes_are_stored_as_they_are(store):
    record(store)
    text = "'; DROP TABLE label; -- \u202e<script>" * 200
    put(store, "RFI", text, note=text)
    assert (row(store, label).by, row(store, label).note) == (text, text)
    with store.read() as rows:
        assert rows.execute(labeled()).one().label == "RFI"
