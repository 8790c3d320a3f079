"""Recorded cadences are searched again as one more attempt, and earlier candidates are kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from rows import CANDIDATE, count, found, queue, row
from sqlalchemy import select, update

from sentinel.cli import main
from sentinel.commands.candidates import export, newest, put_label
from sentinel.commands.requeue import requeue
from sentinel.errors import Cause, StoreError
from sentinel.monitor import latency
from sentinel.notify.messages import message_text
from sentinel.notify.outbox import deliver_all, resume_uploads
from sentinel.notify.slack import SlackPoster
from sentinel.store.schema import artefact, attempt, cadence, cadence_file, candidate, file, labeled, now, outbox


def search(store, frequencies, pictures=()):
    """Record the next cadence with a candidate at each frequency."""
    rows = [{**CANDIDATE, "frequency_mhz": mhz} for mhz in frequencies]

    def message(recorded):
        text = message_text("T", (1, 2), 59000.0, "r1", recorded)
        fields = {"posters": ["slack"], "state": "pending", "sequence": "6 T", "pictures": list(pictures)}
        return {**fields, "text": text}

    lease = store.claim(60)
    result = replace(found(), candidates=rows, pictures=list(enumerate(pictures)), message=message if rows else None)
    store.complete(lease.token, result)
    return lease


def deliver(store, slack):
    with store.write() as rows:
        rows.execute(update(outbox).values(posted_at=outbox.c.posted_at - 10, edited_at=outbox.c.edited_at - 10))
    return deliver_all(store, SlackPoster("C1", slack.url, "xoxb-test"), "slack", 0)


def path_of(store, cadence_id, position=0):
    with store.read() as rows:
        members = select(file.c.path).join(cadence_file, cadence_file.c.observation == file.c.observation)
        members = members.where(cadence_file.c.cadence_id == cadence_id, cadence_file.c.position == position)
        return Path(rows.scalars(members).one())


def current(store):
    with store.read() as rows:
        return {row.frequency_mhz: row.superseded for row in rows.execute(labeled().order_by(candidate.c.id))}


def test_cadences_are_chosen_by_file_target_or_period(store):
    ids = [queue(store, 59000.0 + day) for day in range(3)]
    for _ in ids:
        search(store, [1400.0])
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.id == ids[1]).values(target="U"))
        rows.execute(update(cadence).where(cadence.c.id == ids[2]).values(ended_at=now() - 1e6))
    assert requeue(store, [path_of(store, ids[0], 3), path_of(store, ids[0])], None, None)[-1] == (
        "1 of 1 cadences queued again"
    )
    assert row(store, cadence, id=ids[0]).state == "ready"
    assert requeue(store, [], "U", None)[-1].startswith("1 of 1")
    assert requeue(store, [], "T", 0.0)[-1].startswith("1 of 1")  # the first is queued already
    assert store.ledger()["waiting"] == 3
    assert {store.claim(60).attempt for _ in ids} == {1}


@pytest.mark.fault(58, promise="P5")
def test_unknown_files_or_targets_queue_nothing_and_are_named(store):
    made = queue(store)
    search(store, [1400.0])
    with pytest.raises(StoreError, match=r"expected files that the watcher has seen, found /nowhere\.h5"):
        requeue(store, [path_of(store, made), Path("/nowhere.h5")], None, None)
    for conditions in ((None, 4e9), ("V", None)):
        with pytest.raises(StoreError, match="no cadence meets these conditions"):
            requeue(store, [], *conditions)
    assert row(store, cadence).state == "done"
    with store.write() as rows:
        rows.execute(update(file).where(file.c.path == str(path_of(store, made))).values(present=False))
    lines = requeue(store, [], "T", None)
    assert "not queued: its files are missing" in lines[0]
    assert lines[-1] == "0 of 1 cadences queued again"
    assert row(store, cadence).state == "done"


@pytest.mark.fault(58, promise="P3")
def test_earlier_candidates_stay_and_are_marked_and_the_message_is_edited_and_not_repeated(store, slack, tmp_path):
    queue(store)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"PNG")
    search(store, [1400.0, 1500.0], [str(tmp_path / "a.png")])
    deliver(store, slack)
    put_label(store, 1, "RFI", "a person")
    deliver(store, slack)
    requeue(store, [], "T", None)
    assert current(store) == {1400.0: False, 1500.0: False}  # until the new search is recorded
    search(store, [1400.000001, 1600.0], [str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    assert current(store) == {1400.0: True, 1500.0: True, 1400.000001: False, 1600.0: False}
    assert row(store, candidate, id=3).seen_before == 0
    with store.write() as rows:
        resume_uploads(rows, 1)  # as when the pictures are drawn
    deliver(store, slack)
    deliver(store, slack)
    (only,) = slack.messages
    assert slack.calls.count("chat.postMessage") == 1
    assert "*2 candidates*" in only["text"]
    assert "1600.0" in only["text"]
    assert "1500.0" not in only["text"]
    assert len(slack.files) == 2  # the picture at the path of an earlier one is not sent twice
    lines = newest(store, 10)
    assert ["superseded" in line for line in lines] == [False, False, True, True]
    assert ["labeled RFI" in line for line in lines] == [False, True, False, True]
    export(store, tmp_path / "all.csv")
    assert "superseded" in (tmp_path / "all.csv").read_text().splitlines()[0].split(",")
    with store.read() as rows:
        assert list(rows.scalars(select(attempt.c.outcome).order_by(attempt.c.id))) == ["done", "done"]
        assert len(set(rows.scalars(select(artefact.c.path)))) == count(store, artefact) == 2


@pytest.mark.fault(58, promise="P3")
def test_a_second_search_without_candidates_edits_the_message(store, slack):
    queue(store)
    search(store, [1400.0])
    deliver(store, slack)
    requeue(store, [], "T", None)
    search(store, [])
    deliver(store, slack)
    assert "*0 candidates*" in slack.messages[0]["text"]
    assert "1400.0" not in slack.messages[0]["text"]
    assert current(store) == {1400.0: True}


@pytest.mark.fault(58, promise="P3")
def test_a_candidate_found_only_by_the_second_search_is_announced(store, slack):
    queue(store)
    search(store, [])
    requeue(store, [], "T", None)
    search(store, [1400.0])
    assert deliver(store, slack) == 1
    assert "*1 candidate*" in slack.messages[0]["text"]


def test_latencies_of_a_second_search_count_from_its_request(store):
    queue(store)
    search(store, [1400.0])
    with store.write() as rows:
        rows.execute(update(cadence).values(stable_at=now() - 1e6, landed_at=now() - 1e6))
    requeue(store, [], "T", None)
    search(store, [1400.0])
    with store.read() as rows:
        figures = latency.percentiles(rows, Path("/canary"))
    assert figures["stable_to_recorded"]["of"] == 1
    assert figures["stable_to_recorded"]["p99"] < 60


def test_a_quarantined_cadence_is_queued_again_without_its_cause_and_with_new_times(store):
    made = queue(store)
    store.fail(store.claim(60).token, "not HDF5", Cause.FILE, max_attempts=3, retry_after_s=1)
    with store.write() as rows:
        rows.execute(update(cadence).values(stable_at=now() - 1e6, landed_at=now() - 1e6))
    assert store.requeue([made]) == 1
    again = row(store, cadence)
    assert (again.state, again.attempts, again.why, again.ended_at) == ("ready", 0, None, None)
    assert [again.landed_at, again.stable_at] == pytest.approx([again.ready_at] * 2, abs=60)


def test_a_quarantined_cadence_of_a_target_is_queued_again(store):
    queue(store)
    store.fail(store.claim(60).token, "not HDF5", Cause.FILE, max_attempts=3, retry_after_s=1)
    assert requeue(store, [], "T", None)[-1].startswith("1 of 1")
    assert row(store, cadence).why is None
    queue(store, state="skipped")
    assert any("it is skipped" in line for line in requeue(store, [], "T", None))


def test_the_command_requires_a_condition(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text(f"state_dir: {tmp_path}/state\n")
    assert main(["requeue"]) == 2
    assert main(["requeue", "--since", "yesterday"]) == 2
    assert main(["requeue", "--target", "T"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "requeue: expected files, --target or --since, found none of them"
