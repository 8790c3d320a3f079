"""Messages lead to the pages of their candidates where an address is configured."""

from dataclasses import replace
from types import SimpleNamespace

from rows import CANDIDATE, found, queue, row
from sqlalchemy import update

from sentinel.config import Config
from sentinel.notify.outbox import claim_message
from sentinel.store.labels import put_labels
from sentinel.store.schema import outbox
from sentinel.workers.search import build_message

HEADER = SimpleNamespace(band_mhz=(8400.0, 8420.0), tstart=59103.0, telescope_id=6)


def announce(store, **web):
    """Record a cadence with two candidates and its message."""
    queue(store)
    config = Config(web=web)
    rows = [CANDIDATE, {**CANDIDATE, "frequency_mhz": 8419.5, "probability": 0.9}]
    record = found()
    lease = store.claim(60)

    def message(recorded):
        made = build_message(config, HEADER, lease.cadence_id, [], recorded)
        return {**made, "posters": ["slack"], "state": "pending"}

    store.complete(lease.token, replace(record, candidates=rows, pictures=[], message=message))


def test_a_message_and_its_edit_link_to_each_candidate_and_to_all(store):
    announce(store, url="https://desk.example")
    first, second = (
        f"<https://desk.example/candidates/{n}|{mhz} MHz>" for n, mhz in ((1, "8419.319700"), (2, "8419.500000"))
    )
    links = f"look at {first}, {second}"
    every = "<https://desk.example/cadences/1|all candidates>"
    assert row(store, outbox).text.splitlines()[-2:] == [links, every]
    with store.write() as rows:
        rows.execute(update(outbox).values(state="sent", posted_at=0, sent_at=0, ts="1"))
        put_labels(rows, [1], "RFI", "anna", via="page")
    edit = claim_message(store, "slack", 0, link="https://desk.example")
    assert links in edit.text.splitlines()
    assert "labeled RFI" in edit.text


def test_a_message_has_no_link_without_an_address(store):
    announce(store)
    assert "look at" not in row(store, outbox).text
