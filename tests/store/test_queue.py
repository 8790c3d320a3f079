"""The store: leases, fencing, attempts, and a ledger that always adds up."""

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rows import CANDIDATE, MESSAGE, claim_all, count, found, open_and_close, queue, record_candidates, row
from sqlalchemy import LargeBinary, create_engine, inspect, literal, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from sentinel.config import Config
from sentinel.errors import Cause, LeaseLostError, StoreError
from sentinel.store.filesystem import file_system
from sentinel.store.labels import put_labels, undo_labels
from sentinel.store.migrations import NEWEST, OLDEST, migrate
from sentinel.store.queue import Store, open_store
from sentinel.store.releases import read_active_release
from sentinel.store.schema import attempt, cadence, candidate, file, label, labeled, latents_of, meta, now, outbox

PATIENT = {"max_attempts": 3, "retry_after_s": 1000.0}


@pytest.mark.fault(22, promise="P1")
def test_the_newest_cadence_is_searched_first(store):
    queue(store, 59000.0)
    newest = queue(store, 59002.0)
    queue(store, 59001.0)
    assert store.claim(60).cadence_id == newest


def test_a_cadence_is_leased_to_one_attempt_at_a_time(store):
    queue(store)
    assert store.claim(60).attempt == 1
    assert store.claim(60) is None
    assert store.leased_count() == 1


@pytest.mark.fault(24, promise="P1")
def test_a_cadence_whose_files_are_away_is_left_until_they_are_back(store):
    queue(store, present=False)
    assert store.claim(60) is None
    with store.write() as rows:
        rows.execute(update(file).values(present=True))
    assert store.claim(60)


def test_candidates_pictures_message_and_done_are_recorded_together(store):
    lease = (queue(store), store.claim(60))[1]
    store.complete(lease.token, found(2, MESSAGE))
    assert row(store, cadence).state == "done"
    assert row(store, attempt).outcome == "done"
    assert count(store, candidate) == 2
    assert row(store, outbox).state == "pending"
    assert row(store, candidate, id=1).frequency_mhz == 8419.3197


@pytest.mark.fault(2, promise="P2")
def test_a_record_that_fails_half_way_leaves_nothing_behind(store):
    lease = (queue(store), store.claim(60))[1]
    broken = found(1, {**MESSAGE, "text": None})
    with pytest.raises(IntegrityError):
        store.complete(lease.token, broken)
    assert (count(store, candidate), row(store, cadence).state) == (0, "leased")


@pytest.mark.fault(9, promise="P2")
def test_a_worker_whose_lease_has_ended_records_nothing(store):
    queue(store)
    late = store.claim(-1)
    assert store.expire() == 1
    current = store.claim(60)
    for write in (
        lambda: store.claimed(late.token),
        lambda: store.complete(late.token, found()),
        lambda: store.renew(late.token, 60, progress=0.5, worker="w"),
        lambda: store.fail(late.token, "cause", Cause.UNKNOWN, **PATIENT),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert current.token != late.token
    store.complete(current.token, found())
    assert count(store, candidate) == 1


@pytest.mark.fault(2, promise="P2")
def test_a_cadence_recorded_twice_is_recorded_once(store):
    lease = (queue(store), store.claim(60))[1]
    store.complete(lease.token, found())
    with pytest.raises(LeaseLostError):
        store.complete(lease.token, found())
    assert count(store, candidate) == 1


def test_renewing_keeps_a_lease(store):
    queue(store)
    lease = store.claim(-1)
    store.renew(lease.token, 60, progress=0.5, worker="host:1")
    assert store.expire() == 0
    assert row(store, attempt).progress == 0.5


def test_the_lease_of_a_cadence_that_no_worker_has_begun_is_renewed_for_a_limited_time(store):
    queue(store)
    lease = store.claim(-1)
    store.renew_waiting([lease.token], 60, longest_s=100)
    assert store.expire() == 0
    store.renew(lease.token, -1, progress=0.0, worker="host:1")
    store.renew_waiting([lease.token], 60, longest_s=100)
    assert store.expire() == 1
    other = store.claim(-1)
    for token, longest_s in ((lease.token, 100), (other.token, -1)):
        store.renew_waiting([token], 60, longest_s=longest_s)
    assert store.expire() == 1


def test_a_retriable_failure_is_tried_again_after_a_wait_that_doubles(store):
    queue(store)
    waits = []
    for _ in range(2):
        token = store.claim(60).token
        assert store.fail(token, "disk hiccup", Cause.UNKNOWN, **PATIENT) == "retry_at"
        assert store.claim(60) is None
        with store.write() as rows:
            waits.append(rows.scalars(select(cadence.c.retry_at - now())).one())
            rows.execute(update(cadence).values(retry_at=now()))
    assert waits == pytest.approx([1000, 2000], abs=5)
    assert store.fail(store.claim(60).token, "disk hiccup", Cause.UNKNOWN, **PATIENT) == "quarantined"
    assert row(store, cadence).why == "disk hiccup"


def test_a_permanent_failure_is_quarantined_at_once_with_its_cause(store):
    queue(store)
    assert store.fail(store.claim(60).token, "not HDF5", Cause.FILE, **PATIENT) == "quarantined"
    assert store.claim(60) is None


def lose_worker(store, *, reported):
    """Let the worker of a cadence die during the search; return the attempt and the new state of the cadence."""
    lease = store.claim(60)
    store.renew(lease.token, 60 if reported else -1, progress=0.5, worker="host:1")
    if reported:
        store.fail(lease.token, "its worker died", Cause.DEATH, max_attempts=1, retry_after_s=0)
    else:
        assert store.expire() == 1
    return lease.attempt, row(store, cadence).state


@pytest.mark.fault(12, promise="P1")
@pytest.mark.parametrize(
    ("reported", "how"), [((True,) * 5, "died"), ((True, False, False, True, True), "died or stopped reporting")]
)
def test_a_cadence_whose_workers_always_die_is_quarantined(store, reported, how):
    queue(store)
    deaths = [lose_worker(store, reported=each) for each in reported]
    assert deaths == [(1, "retry_at")] * 4 + [(1, "quarantined")]
    assert row(store, cadence).attempts == 0
    assert row(store, cadence).why.startswith(f"its worker process {how} 5 times while searching it; ")
    with store.write() as rows:
        rows.execute(update(attempt).values(started_at=attempt.c.started_at - 1))  # the clock of a test hardly advances
    assert store.requeue() == 1
    assert lose_worker(store, reported=True) == (1, "retry_at")


@pytest.mark.fault(12, promise="P1")
@pytest.mark.parametrize("reported", [True, False])
def test_a_death_before_the_search_began_is_not_counted(store, reported):
    queue(store)
    for _ in range(7):
        lease = store.claim(60 if reported else -1)
        if reported:
            store.fail(lease.token, "its worker died", Cause.DEATH, max_attempts=1, retry_after_s=0)
        else:
            store.expire()
    assert (row(store, cadence).state, row(store, cadence).attempts) == ("retry_at", 0)


@pytest.mark.fault(12, promise="P1")
def test_deaths_do_not_use_up_the_attempts_and_wait_longer_each_time(store):
    queue(store)
    waits = []
    for cause in (Cause.UNKNOWN, Cause.DEATH, Cause.MACHINE, Cause.DEATH, Cause.UNKNOWN, Cause.DEATH):
        lease = store.claim(60)
        store.renew(lease.token, 60, progress=0.5, worker="host:1")
        assert store.fail(lease.token, "cause", cause, max_attempts=3, retry_after_s=30) == "retry_at"
        with store.write() as rows:
            waits.append(round(rows.scalars(select(cadence.c.retry_at - now())).one(), -1))
            rows.execute(update(cadence).values(retry_at=now() - 1))
    assert waits == [30, 30, 30, 60, 60, 120]
    assert row(store, cadence).attempts == 2
    assert store.fail(store.claim(60).token, "cause", Cause.UNKNOWN, **PATIENT) == "quarantined"


@pytest.mark.fault(37, promise="P1")
def test_an_orderly_stop_is_not_counted_as_an_attempt(store):
    queue(store)
    store.release_lease(store.claim(60).token)
    assert store.claim(60).attempt == 1


def test_the_ledger_adds_up_through_every_state(store):
    for state in ("forming", "ready", "leased", "retry_at", "done", "quarantined", "skipped"):
        queue(store, state=state)
    ledger = store.ledger()
    assert ledger == {"seen": 7, "done": 1, "quarantined": 1, "skipped": 1, "waiting": 4}


@pytest.mark.fault(36, promise="P2")
def test_two_processes_share_a_queue_and_claim_no_cadence_twice(store):
    ids = [queue(store, 59000 + i) for i in range(30)]
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    both = [spawn.Process(target=claim_all, args=(str(store.engine.url), barrier, results)) for _ in range(2)]
    for process in both:
        process.start()
    taken = [results.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert sorted(taken[0] + taken[1]) == ids
    assert count(store, candidate) == 30


def test_sqlite_is_written_so_that_a_power_cut_loses_nothing_committed(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    with store.read() as rows:
        pragmas = [rows.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]
    store.engine.dispose()


@pytest.mark.fault(32, promise="P2")
def test_a_lease_that_was_given_before_the_clock_was_set_back_ends_within_its_length(store):
    queue(store)
    lease = store.claim(60 + 3600)
    assert store.expire(60) == 0
    with store.write() as rows:
        left_s = rows.scalar(select(cadence.c.until - now()).where(cadence.c.id == lease.cadence_id))
        assert 59 < left_s <= 60
        rows.execute(update(cadence).values(until=cadence.c.until - 61))
    assert store.expire(60) == 1


def test_the_clock_of_the_store_is_the_time(store):
    import time

    with store.read() as rows:
        assert rows.scalar(select(now())) == pytest.approx(time.time(), abs=2)


@pytest.mark.fault(26, promise="P5")
def test_sqlite_on_a_network_file_system_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("sentinel.store.queue.file_system", lambda _: "nfs4")
    with pytest.raises(StoreError, match="set state_dir to a local disk"):
        open_store(f"sqlite:///{tmp_path}/sentinel.db")


def test_the_kind_of_a_file_system_is_that_of_its_innermost_mount(tmp_path):
    inner = tmp_path / "data"
    mounts = f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:3 / {inner} rw shared:1 - nfs4 host:/d rw\n"
    (tmp_path / "mountinfo").write_text(mounts)
    assert file_system(inner / "x", tmp_path / "mountinfo") == "nfs4"
    assert file_system(tmp_path, tmp_path / "mountinfo") == "ext4"


def test_a_store_of_another_version_is_left_alone(store):
    with store.write() as rows:
        rows.execute(update(meta).values(value="99"))
    with pytest.raises(StoreError, match=f"expected schema version {NEWEST} or older, found 99"):
        open_store(str(store.engine.url))


def test_a_candidate_records_how_often_its_frequency_was_seen_in_other_cadences(store):
    for days, off_hz in ((0, 0.0), (1, 2900.0), (2, 3100.0), (3, 0.0)):
        at = CANDIDATE["frequency_mhz"] + off_hz * 1e-6
        record_candidates(store, [{**CANDIDATE, "tstart_mjd": 59103.02 + days, "frequency_mhz": at}])
    with store.read() as rows:
        assert list(rows.scalars(select(candidate.c.seen_before).order_by(candidate.c.id))) == [0, 1, 1, 2]


def test_candidates_of_the_same_scans_do_not_count_as_seen_before(store):
    record_candidates(store, [CANDIDATE, CANDIDATE])
    record_candidates(store, [{**CANDIDATE, "tstart_mjd": CANDIDATE["tstart_mjd"] + 341 / 86400}])
    with store.read() as rows:
        assert set(rows.scalars(select(candidate.c.seen_before))) == {0}


def test_earlier_candidates_at_a_frequency_are_counted_to_a_hundred(store):
    record_candidates(store, [CANDIDATE] * 101)
    record_candidates(store, [{**CANDIDATE, "tstart_mjd": 59104.0}])
    assert row(store, candidate, id=102).seen_before == 100


def test_a_message_is_written_from_what_was_recorded(store):
    record_candidates(store, [CANDIDATE])
    later = {**CANDIDATE, "tstart_mjd": 59104.0}
    record_candidates(
        store, [later], lambda recorded: {**MESSAGE, "text": f"seen before: {recorded[0]['seen_before']}"}
    )
    assert row(store, outbox).text == "seen before: 1"


LATENTS = text("SELECT CAST(latents AS TEXT) FROM candidate ORDER BY id")
STORES = Path(__file__).parents[1] / "data" / "stores"


def older(url, version):
    """Load at `url` the store that a version of the code wrote: one cadence that is done and one that is ready."""
    script = (STORES / f"{make_url(url).get_backend_name()}-{version}.sql").read_text()
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(engine.url.database)) as rows:
            rows.executescript(script)
    else:
        with engine.begin() as rows:
            rows.exec_driver_sql(script)
    engine.dispose()
    return url


def shape(store):
    """Return every table's columns and indexes, without their order."""
    with store.read() as rows:
        there = inspect(rows)
        return {
            table: (
                {(column["name"], str(column["type"]), column["nullable"]) for column in there.get_columns(table)},
                {(index["name"], *index["column_names"]) for index in there.get_indexes(table)},
            )
            for table in there.get_table_names()
        }


@pytest.mark.fault(39, promise="P1")
@pytest.mark.parametrize("version", range(OLDEST, NEWEST))
def test_an_older_store_keeps_its_rows_and_gets_the_newest_schema(empty, version):
    upgraded, new = open_store(older(empty(), version)), open_store(empty())
    assert row(upgraded, meta).value == str(NEWEST)
    assert row(upgraded, candidate).frequency_mhz == CANDIDATE["frequency_mhz"]
    assert (row(upgraded, candidate).seen_before is None) == (version == 1)
    assert shape(upgraded) == shape(new)
    record_candidates(upgraded, [{**CANDIDATE, "allocations": "DSN X down-link", "tstart_mjd": 59104.0}])
    assert row(upgraded, candidate, id=2).seen_before == 1
    assert upgraded.ledger() == {"seen": 3, "done": 2, "quarantined": 0, "skipped": 0, "waiting": 1}
    for opened in (upgraded, new):
        opened.engine.dispose()


@pytest.mark.fault(39, promise="P1")
@pytest.mark.parametrize("version", range(OLDEST, NEWEST))
def test_a_store_is_downgraded_and_upgraded_with_its_rows(store, empty, version):
    record_candidates(store, [CANDIDATE])
    with store.write() as rows:
        assert migrate(rows, version) == NEWEST
    then = Store(engine=create_engine(older(empty(), version)))
    assert shape(store) == shape(then)
    with store.read() as rows:
        assert rows.scalars(select(candidate.c.frequency_mhz)).one() == CANDIDATE["frequency_mhz"]
    again = open_store(store.engine.url.render_as_string())
    assert row(again, meta).value == str(NEWEST)
    record_candidates(again, [{**CANDIDATE, "tstart_mjd": 59104.0}])
    for opened in (then, again):
        opened.engine.dispose()


def test_latents_and_labels_survive_a_downgrade_and_an_upgrade_but_for_those_undone(store):
    latents = [0.5, -1.25, float(np.float32(0.1))]
    record_candidates(store, [{**CANDIDATE, "latents": [], "latents_f32": latents}, CANDIDATE])
    with store.write() as rows:
        put_labels(rows, [1], "RFI", "ann", via="page")
        undo_labels(rows, put_labels(rows, [1], "candidate", "ann", via="page"), "ann")
        migrate(rows, 9)
        assert [json.loads(text) for (text,) in rows.execute(LATENTS)] == [latents, CANDIDATE["latents"]]
        assert list(rows.scalars(select(label.c.label))) == ["RFI"]
    again = open_store(store.engine.url.render_as_string())
    with again.read() as rows:
        kept = rows.execute(select(candidate).order_by(candidate.c.id)).mappings().all()
    again.engine.dispose()
    assert [latents_of(dict(line)) for line in kept] == [latents, CANDIDATE["latents"]]
    assert [(line["latents"], line["label_in_force"]) for line in kept] == [([], "RFI"), ([], None)]


def test_a_service_of_an_earlier_version_goes_on_in_a_newer_store(store):
    record_candidates(store, [CANDIDATE])  # its rows have latents as JSON and none of the newer columns
    with store.read() as rows:
        found = rows.execute(labeled()).mappings().one()
    assert (latents_of(dict(found)), found["drift_nhz"], found["label"]) == (CANDIDATE["latents"], None, None)


def test_latents_that_are_cut_short_give_those_that_are_whole(store):
    record_candidates(store, [{**CANDIDATE, "latents": [], "latents_f32": [1.0, 2.0, 3.0]}])
    with store.write() as rows:
        rows.execute(update(candidate).values(latents_f32=literal(b"\x00\x00\x80\x3f\x00\x00", LargeBinary)))
    assert row(store, candidate).latents_f32 == [1.0]


@pytest.mark.parametrize("version", [None, OLDEST])
def test_reading_the_active_release_does_not_change_the_store(empty, version):
    url = older(empty(), version) if version else empty()
    config = Config.model_validate({"store": {"url": url}})
    assert read_active_release(config) == config.release
    engine = create_engine(url)
    with engine.connect() as rows:
        assert inspect(rows).has_table(meta.name) == bool(version)
        assert not version or rows.scalar(select(meta.c.value)) == str(version)
    engine.dispose()


def test_a_store_in_use_is_not_downgraded(store):
    store.record_heartbeat("watcher@a", 10, pid=1, host="a")
    with pytest.raises(StoreError, match="still used by watcher@a"), store.write() as rows:
        migrate(rows, OLDEST)
    assert row(store, meta).value == str(NEWEST)


def test_a_store_cannot_be_migrated_to_an_unknown_version(store):
    with pytest.raises(StoreError, match="expected a schema version from 1 to"), store.write() as rows:
        migrate(rows, NEWEST + 1)


@pytest.mark.parametrize("version", [None, OLDEST])
def test_programs_may_open_a_new_or_older_store_at_the_same_time(empty, version):
    url = older(empty(), version) if version else empty()
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    several = [spawn.Process(target=open_and_close, args=(url, barrier)) for _ in range(3)]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0, 0, 0]
    opened = open_store(url)
    assert row(opened, meta).value == str(NEWEST)
    opened.engine.dispose()


@pytest.mark.fault(26, promise="P5")
def test_a_damaged_store_is_named(tmp_path):
    (tmp_path / "sentinel.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"sentinel\.db: cannot be used"):
        open_store(f"sqlite:///{tmp_path}/sentinel.db")


def test_an_attempt_that_failed_for_the_machine_is_not_counted_and_waits_longer_each_time(store):
    queue(store)
    waits, limits = [], {"max_attempts": 1, "retry_after_s": 30}
    for _ in range(6):
        lease = store.claim(60)
        assert lease.attempt == 1
        assert store.fail(lease.token, "OSError: no space", Cause.MACHINE, **limits) == "retry_at"
        with store.write() as rows:
            waits.append(round(rows.scalars(select(cadence.c.retry_at - now())).one(), -1))
            rows.execute(update(cadence).values(retry_at=now() - 1))
    assert waits == [30, 60, 120, 240, 300, 300]
    with store.read() as rows:
        assert set(rows.scalars(select(attempt.c.outcome))) == {"postponed"}
    assert row(store, cadence).attempts == 0
    with pytest.raises(LeaseLostError):
        store.fail("0" * 32, "gone", Cause.MACHINE, **PATIENT)
