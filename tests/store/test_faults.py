"""The store is away, locked, read-only or damaged: a step waits and continues, or its error names file and cause."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from rows import CANDIDATE, MESSAGE, count, done_once, found, queue, record_candidates, row
from sqlalchemy import exc, select, update
from watched import Folder, headers, land

from sentinel.config import ROOT, Config
from sentinel.errors import BusyError, StoreAwayError, StoreError
from sentinel.ingest.service import expire_leases
from sentinel.monitor.status import other_hosts
from sentinel.notify.outbox import claim_message
from sentinel.programs.program import ProgramLoop
from sentinel.store import queue as stores
from sentinel.store.queue import open_store, retry_while_away
from sentinel.store.schema import cadence, candidate, heartbeat, now, outbox, release
from sentinel.workers.task import search_lease

SHORT_LEASE = Config().model_copy(update={"lease_s": 0.001})


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(stores, "AWAY_S", (0.2,))


def searched_while(store, goes_away, comes_back, away_s=1.0):
    """Search a cadence; the store is away from the middle of the search until its result has waited for a while."""
    lease = (queue(store), store.claim(600))[1]
    back = threading.Timer(away_s, comes_back)

    def search(_claimed, progress):
        goes_away()
        back.start()
        progress(0.5)
        return found()

    began = time.monotonic()
    assert search_lease(store, SHORT_LEASE, lease.cadence_id, lease.token, search) == "done"
    back.join()
    assert time.monotonic() - began > away_s
    done_once(store)


@pytest.mark.fault(35, promise="P2")
def test_a_result_waits_for_a_postgresql_that_restarts_and_is_recorded_once(postgres):
    store = open_store(postgres.database())
    searched_while(store, postgres.stop, postgres.start)
    store.engine.dispose()
    postgres.drop_all()


@pytest.mark.fault(35, promise="P5")
def test_a_postgresql_that_is_away_is_named_and_programs_continue_without_it(postgres, caplog):
    store = open_store(postgres.database())
    loop = ProgramLoop(name="watcher", store=store, period_s=10, state="/s")
    postgres.stop()
    try:
        loop.heartbeat()
        assert "no heartbeat" in caplog.text
        with pytest.raises(StoreAwayError, match=rf"127\.0\.0\.1:{postgres.port}/test\d+: cannot be used now"):
            store.ledger()
    finally:
        postgres.start()
    loop.heartbeat()
    assert row(store, heartbeat).facts["state"] == "/s"
    postgres.stop()
    postgres.start()
    assert store.ledger()["seen"] == 0  # connected again without an error
    store.engine.dispose()
    postgres.drop_all()


@pytest.mark.fault(53, promise="P2")
@pytest.mark.fault(35, promise="P2")
def test_a_result_waits_for_a_postgresql_that_is_read_only_and_is_recorded_once(postgres, caplog):
    store = open_store(postgres.database())

    def writable():
        postgres.set("default_transaction_read_only", "off")

    try:
        searched_while(store, lambda: postgres.set("default_transaction_read_only", "on"), writable)
    finally:
        writable()
    assert "read-only transaction: will retry" in caplog.text
    assert "backup" not in caplog.text
    store.engine.dispose()
    postgres.drop_all()


@pytest.mark.fault(54, promise="P2")
@pytest.mark.fault(35, promise="P2")
def test_a_result_waits_for_a_postgresql_without_free_connections(postgres):
    import psycopg

    store = open_store(postgres.database())
    address = f"postgresql://sentinel@127.0.0.1:{postgres.port}/postgres"
    held = []

    def fill():
        store.engine.dispose()
        with suppress(psycopg.OperationalError):  # too many clients
            while len(held) < 1000:
                held.append(psycopg.connect(address))
        assert len(held) < 1000

    def free():
        while held:
            held.pop().close()

    try:
        searched_while(store, fill, free)
    finally:
        free()
    store.engine.dispose()
    postgres.drop_all()


@pytest.mark.fault(53, promise="P5")
@pytest.mark.fault(35, promise="P5")
def test_programs_continue_while_the_store_is_read_only_or_damaged(postgres, tmp_path, caplog):
    store = open_store(postgres.database())
    loop = ProgramLoop(name="cluster", store=store, period_s=10, state="/s")
    postgres.set("default_transaction_read_only", "on")
    try:
        deadline = time.monotonic() + 10
        while "no heartbeat" not in caplog.text:  # the server reads its settings a moment later
            loop.heartbeat()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        postgres.set("default_transaction_read_only", "off")
    assert "cannot be used now" in caplog.text
    store.engine.dispose()
    postgres.drop_all()
    caplog.clear()
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    store.engine.dispose()
    (tmp_path / "sentinel.db").write_bytes(b"not a database" * 1000)
    ProgramLoop(name="cluster", store=store, period_s=10, state="/s").heartbeat()
    assert "no heartbeat" in caplog.text
    assert "damaged" in caplog.text


class Reported(Exception):  # noqa: N818
    """An error of a database driver, with the code that the database gave it."""

    def __init__(self, sqlstate=None, sqlite_errorcode=None):
        super().__init__("cause")
        self.sqlstate, self.sqlite_errorcode = sqlstate, sqlite_errorcode


@pytest.mark.fault(26, promise="P5")
@pytest.mark.parametrize(
    ("kind", "error", "becomes"),
    [
        (exc.InternalError, Reported("25006"), StoreAwayError),  # read-only
        (exc.InternalError, Reported("25P02"), StoreAwayError),
        (exc.OperationalError, Reported("57P01"), StoreAwayError),  # shut down
        (exc.OperationalError, Reported("53300"), StoreAwayError),  # too many connections
        (exc.OperationalError, Reported("53100"), StoreAwayError),  # disk full
        (exc.OperationalError, Reported(), StoreAwayError),
        (exc.InterfaceError, Reported(), StoreAwayError),
        (exc.ProgrammingError, Reported("42501"), StoreAwayError),  # privileges
        (exc.InternalError, Reported("XX000"), StoreAwayError),
        (exc.InternalError, Reported("XX001"), StoreError),
        (exc.InternalError, Reported("XX002"), StoreError),
        (exc.OperationalError, Reported(sqlite_errorcode=sqlite3.SQLITE_FULL), StoreAwayError),
        (exc.OperationalError, Reported(sqlite_errorcode=sqlite3.SQLITE_READONLY), StoreAwayError),
        (exc.OperationalError, Reported(sqlite_errorcode=sqlite3.SQLITE_IOERR_WRITE), StoreAwayError),
        (exc.OperationalError, Reported(sqlite_errorcode=sqlite3.SQLITE_CANTOPEN), StoreAwayError),
        (exc.DatabaseError, Reported(sqlite_errorcode=sqlite3.SQLITE_CORRUPT), StoreError),
        (exc.DatabaseError, Reported(sqlite_errorcode=sqlite3.SQLITE_CORRUPT_INDEX), StoreError),
        (exc.DatabaseError, Reported(sqlite_errorcode=sqlite3.SQLITE_NOTADB), StoreError),
        (exc.ProgrammingError, Reported("42601"), exc.ProgrammingError),
        (exc.IntegrityError, Reported("23505"), exc.IntegrityError),
        (exc.DataError, Reported("22001"), exc.DataError),
    ],
)
def test_only_damaged_pages_are_reported_as_damage(tmp_path, kind, error, becomes):
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    with pytest.raises(becomes) as raised, store.read():
        raise kind("SELECT", {}, error)
    assert type(raised.value) is becomes
    assert ("restore the last backup" in str(raised.value)) == (becomes is StoreError)
    store.engine.dispose()


@pytest.mark.fault(54, promise="P2")
def test_a_pool_without_a_free_connection_is_waited_for(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    with pytest.raises(StoreAwayError), store.read():
        raise exc.TimeoutError("QueuePool limit")
    store.engine.dispose()


@pytest.mark.fault(55, promise="P2")
@pytest.mark.fault(35, promise="P2")
def test_leases_that_ended_while_the_store_was_away_cost_no_attempt(store):
    queue(store)
    lease = store.claim(60)
    with store.write() as rows:
        rows.execute(update(cadence).values(until=now() - 100))
    assert expire_leases(store, away_at=time.monotonic()) == 0
    store.renew(lease.token, 60, progress=0.5, worker="w")
    assert expire_leases(store, away_at=-1e9) == 0
    with store.write() as rows:
        rows.execute(update(cadence).values(until=now() - 100))
    assert expire_leases(store, away_at=-1e9) == 1


def locked_for(place, seconds, monkeypatch, busy_s):
    monkeypatch.setattr(stores, "BUSY_S", busy_s)
    store = open_store(f"sqlite:///{place}/sentinel.db")
    with closing(store.engine.raw_connection()) as other:
        lock = lambda: other.execute("BEGIN IMMEDIATE")  # noqa: E731
        searched_while(store, lock, lambda: other.execute("ROLLBACK"), seconds)
    store.engine.dispose()


@pytest.mark.fault(26, promise="P2")
def test_a_result_waits_for_a_store_that_is_locked_longer_than_the_busy_timeout(tmp_path, monkeypatch):
    locked_for(tmp_path, 1.0, monkeypatch, busy_s=0.1)


@pytest.mark.slow
@pytest.mark.fault(26, promise="P2")
def test_a_result_waits_for_a_store_that_is_locked_for_a_minute(tmp_path, monkeypatch):
    locked_for(tmp_path, 65.0, monkeypatch, busy_s=stores.BUSY_S)


@pytest.mark.fault(26, promise="P2")
def test_a_store_whose_file_is_away_is_waited_for_and_nothing_is_written_elsewhere(tmp_path):
    state, away = tmp_path / "var", tmp_path / "away"
    store = open_store(f"sqlite:///{state}/sentinel.db")
    searched_while(store, lambda: state.rename(away), lambda: away.rename(state), 0.5)
    state.rename(away)
    for _ in range(2):
        with pytest.raises(StoreAwayError, match=r"expected sentinel\.db in .*, found none"):
            store.claim(60)
        with pytest.raises(StoreAwayError, match="found none"):
            open_store(f"sqlite:///{state}/sentinel.db", create=False)
        assert not (state / "sentinel.db").exists()
        state.mkdir(exist_ok=True)  # the mount point of the disk
    state.rmdir()
    away.rename(state)
    assert store.ledger()["done"] == 1
    store.engine.dispose()


@pytest.mark.fault(26, promise="P2")
def test_another_disk_at_the_state_directory_is_used_at_once(tmp_path):
    for name in ("one", "two"):
        store = open_store(f"sqlite:///{tmp_path}/{name}/sentinel.db")
        if name == "two":
            queue(store)
        store.engine.dispose()
    disk = tmp_path / "var"
    disk.symlink_to("one")
    store = open_store(f"sqlite:///{disk}/sentinel.db")
    assert store.ledger()["seen"] == 0
    disk.unlink()
    disk.symlink_to("two")
    assert store.ledger()["seen"] == 1
    store.engine.dispose()


AWAY = """
import subprocess, sys, threading
sys.path[:0] = ["tests"]
from rows import done_once, found, queue
from sentinel.config import Config
from sentinel.store import queue as stores
from sentinel.store.queue import open_store
from sentinel.workers.task import search_lease
def mount(*options): subprocess.run(["mount", *options, sys.argv[1]], check=True)
mount("-t", "tmpfs", "-o", "size=2m", "none")
stores.AWAY_S = (0.2,)
SHORT_LEASE = Config().model_copy(update={"lease_s": 0.001})
store = open_store(f"sqlite:///{sys.argv[1]}/sentinel.db")
lease = (queue(store), store.claim(600))[1]
def search(claimed, progress):
    store.engine.dispose()  # a file that is open for writing keeps a mount writable
    GOES
    progress(0.5)
    return found()
assert search_lease(store, SHORT_LEASE, lease.cadence_id, lease.token, search) == "done"
done_once(store)
"""


READ_ONLY = """mount("-o", "remount,ro")
    threading.Timer(1.0, mount, ("-o", "remount,rw")).start()"""
FULL = """filler = open(sys.argv[1] + "/filler", "wb", buffering=0)
    try:
        while filler.write(b"x" * 512):
            pass
    except OSError:
        pass
    threading.Timer(1.0, filler.truncate, (0,)).start()"""


@pytest.mark.fault(25, promise="P2")
@pytest.mark.fault(26, promise="P2")
@pytest.mark.parametrize("goes", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_a_result_waits_while_the_state_disk_is_read_only_or_full(tmp_path, goes):
    unshare = ("unshare", "--map-root-user", "--mount")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("expected unshare with mounts of its own, found no right to it")
    command = [*unshare, sys.executable, "-P", "-c", AWAY.replace("GOES", goes), str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0, ran.stderr
    assert "sentinel.db: cannot be used now" in ran.stderr


CLOSED = """
import sys
from pathlib import Path
from sentinel.errors import StoreAwayError
from sentinel.store.queue import open_store
place = Path(sys.argv[1])
files = [place, Path(f"{place}-wal"), Path(f"{place}-shm")]
store = open_store(f"sqlite:///{place}", upgrade=False)
for file in files:
    try:
        store.record_heartbeat("watcher", 1, pid=1, host="h")
    except StoreAwayError as error:
        print(error)
    file.chmod(0o644)
store.record_heartbeat("watcher", 1, pid=1, host="h")
"""


@pytest.mark.fault(26, promise="P5")
def test_a_store_without_the_right_to_write_names_each_file_that_needs_it(tmp_path):
    place = tmp_path / "sentinel.db"
    user = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    files = [place, Path(f"{place}-wal"), Path(f"{place}-shm")]
    store = open_store(f"sqlite:///{place}")
    with store.engine.connect():  # keeps the files beside the database, as a service that runs
        for file in files:
            file.chmod(0o444)
        command = [*user, sys.executable, "-P", "-c", CLOSED, str(place)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    store.engine.dispose()
    assert ran.returncode == 0, ran.stderr
    closed = [", ".join(map(str, files[number:])) for number in range(3)]
    wanted = f": expected to write {closed[0]} and in {tmp_path}; found no right to write "
    assert [line.partition(wanted)[2] for line in ran.stdout.splitlines()] == closed


@pytest.mark.fault(26, promise="P1")
def test_connections_that_were_made_while_the_store_was_read_only_are_not_kept(store):
    read_only = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    with store.engine.connect() as rows:  # stays in the pool, as one that SQLite could open for reading only
        rows.exec_driver_sql("PRAGMA query_only=ON" if rows.dialect.name == "sqlite" else read_only)
        rows.commit()
    with pytest.raises(StoreAwayError, match="read"):
        store.expire()
    store.expire()


@pytest.mark.fault(26, promise="P5")
def test_a_store_with_damaged_pages_says_which_file_and_what_to_do_and_is_not_waited_for(tmp_path):
    place = tmp_path / "sentinel.db"
    store = open_store(f"sqlite:///{place}")
    for day in range(20):
        record_candidates(store, [{**CANDIDATE, "tstart_mjd": 59000.0 + day}])
    store.engine.dispose()
    whole = place.read_bytes()
    place.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"sentinel\.db: cannot be used: .*restore the last backup") as raised:
        retry_while_away(store.ledger)
    assert not isinstance(raised.value, StoreAwayError)
    store.engine.dispose()
    with pytest.raises(StoreError, match=r"sentinel\.db: cannot be used"):
        open_store(f"sqlite:///{place}").claim(60)


def at_once(count, step):
    """Take a step in several threads at the same moment; return their results."""
    barrier, results = threading.Barrier(count), []

    def one():
        barrier.wait()
        results.append(step())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


@pytest.mark.fault(36, promise="P3")
def test_two_posters_on_one_store_never_hold_the_same_message(store):
    for text in range(10):
        record_candidates(
            store, [CANDIDATE], lambda _, text=text: {**MESSAGE, "text": str(text), "sequence": str(text)}
        )
    for text in range(10):
        held = [message for message in at_once(3, lambda: claim_message(store, "slack", 0)) if message]
        assert [message.text for message in held] == [str(text)]
        with store.write() as rows:
            rows.execute(update(outbox).where(outbox.c.state == "sending").values(state="sent", sent_at=now() - 1))


@pytest.mark.fault(36, promise="P2")
def test_services_that_claim_record_and_expire_at_the_same_moment_do_so_once_for_each_cadence(store):
    ids = [queue(store) for _ in range(9)]
    leases = [lease for _ in range(3) for lease in at_once(3, lambda: store.claim(600, "b")) if lease]
    assert sorted(lease.cadence_id for lease in leases) == ids
    assert (store.leased_count("b"), store.leased_count("a")) == (9, 0)
    waiting = iter(leases[:6])
    for _ in range(2):  # first with a release that nobody has used before
        at_once(3, lambda: store.complete(next(waiting).token, found(1, {**MESSAGE, "sequence": "6 T"})))
    assert (count(store, candidate), count(store, release)) == (6, 1)
    with store.read() as rows:
        assert list(rows.scalars(select(outbox.c.parent_id).order_by(outbox.c.id))) == [None, 1, 1, 1, 1, 1]
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.state == "leased").values(until=now() - 1))
    assert sum(at_once(3, store.expire)) == 3
    assert store.ledger() == {"seen": 9, "done": 6, "quarantined": 0, "skipped": 0, "waiting": 3}


@pytest.mark.fault(36, promise="P2")
def test_two_watchers_of_one_folder_make_a_cadence_ready_once(tmp_path, store):
    folder = Folder(tmp_path / "incoming", store)
    for day in range(4):
        land(folder, headers(59103.0 + day))
        at_once(3, lambda: folder.passes(3))
        assert folder.passes() == ["done"] * day + ["ready"]
        lease = folder.store.claim(60)
        at_once(2, folder.passes)
        folder.store.complete(lease.token, found())
        assert folder.passes() == ["done"] * (day + 1)


@pytest.mark.fault(36, promise="P5")
def test_a_second_service_on_one_host_is_refused_and_another_host_is_named(store, monkeypatch):
    ProgramLoop(name="watcher", store=store, period_s=10, state="/var/a").heartbeat()
    assert other_hosts(Config(state_dir="/var/a"), store) == []
    with pytest.raises(BusyError, match=r"with its state in /var/a, is on the same store: expected one service a host"):
        other_hosts(Config(state_dir="/var/b"), store)
    here = socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert other_hosts(Config(state_dir="/var/b"), store) == [here]
