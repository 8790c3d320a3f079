"""A backup has everything that the store holds, on each database, and a restore brings back exactly that."""

import os
import sqlite3
from pathlib import Path

import pytest
from postgres import programs
from rows import queue
from sqlalchemy import delete, select

from sentinel import cli
from sentinel.errors import StoreError
from sentinel.store.backup import backup, contents, restore
from sentinel.store.migrations import NEWEST
from sentinel.store.queue import open_store
from sentinel.store.schema import cadence, candidate, heartbeat, meta

STORES = Path(__file__).parents[1] / "data" / "stores"


@pytest.fixture(autouse=True)
def programs_of_postgresql(monkeypatch):
    if folder := programs():
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def url_of(store):
    return store.engine.url.render_as_string(hide_password=False)


def test_a_restore_brings_back_what_was_backed_up_and_keeps_what_was_there(store, tmp_path):
    queue(store)
    assert backup(store, tmp_path / "one.backup") == f"{tmp_path}/one.backup: 1 cadences, 0 candidates, 0 messages"
    assert (tmp_path / "one.backup").stat().st_mode & 0o077 == 0
    with store.read() as rows:
        before = rows.execute(select(cadence)).mappings().all()
    queue(store)
    store.engine.dispose()
    former, found = restore(url_of(store), tmp_path / "one.backup")
    assert found == "1 cadences, 0 candidates, 0 messages"
    with store.read() as rows:
        assert rows.execute(select(cadence)).mappings().all() == before
        assert rows.scalar(select(meta.c.value).where(meta.c.key == "schema_version")) == str(NEWEST)
    queue(store)  # its keys continue
    again, found = restore(url_of(store), former)
    assert found == "2 cadences, 0 candidates, 0 messages"
    assert again != former
    assert former.exists()


def test_an_earlier_backup_is_not_replaced(store, tmp_path):
    (tmp_path / "there").write_text("precious")
    with pytest.raises(StoreError, match="there: expected a new file"):
        backup(store, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "precious"
    with pytest.raises(StoreError, match=r"none/b: the store was not backed up|pg_dump"):
        backup(store, tmp_path / "none" / "b")


def test_a_store_in_use_elsewhere_and_a_file_that_is_no_backup_are_refused_and_nothing_changes(store, tmp_path):
    queue(store)
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    backup(store, tmp_path / "one.backup")
    with pytest.raises(StoreError, match=r"expected a backup of an SQLite store|pg_restore: "):
        restore(url_of(store), tmp_path / "junk")
    assert contents(store) == "1 cadences, 0 candidates, 0 messages"
    if store.engine.dialect.name == "sqlite":
        return  # other hosts do not use it
    store.record_heartbeat("watcher@other", 10, pid=1, host="other")
    with pytest.raises(StoreError, match="still used by watcher@other"):
        restore(url_of(store), tmp_path / "one.backup")
    assert contents(store) == "1 cadences, 0 candidates, 0 messages"
    with store.write() as rows:
        rows.execute(delete(heartbeat))
    store.record_heartbeat("watcher@here", 10, pid=1, host=os.uname().nodename)  # of before `down`
    assert restore(url_of(store), tmp_path / "one.backup")[1] == "1 cadences, 0 candidates, 0 messages"


def test_a_backup_of_an_earlier_release_is_upgraded_when_the_store_opens(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text("state_dir: var\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    with sqlite3.connect(tmp_path / "old.backup") as old:
        old.executescript((STORES / "sqlite-8.sql").read_text())
        counted = old.execute("SELECT count(*) FROM candidate").fetchone()[0]
    old.close()
    assert cli.main(["store", "restore", str(tmp_path / "old.backup")]) == 0
    assert f"{counted} candidates" in capsys.readouterr().out
    store = open_store(f"sqlite:///{tmp_path}/var/sentinel.db", create=False)
    with store.read() as rows:
        assert rows.scalar(select(meta.c.value).where(meta.c.key == "schema_version")) == str(NEWEST)
        assert len(rows.execute(select(candidate)).all()) == counted > 0
    assert cli.main(["store", "backup", str(tmp_path / "new.backup")]) == 0
    store.engine.dispose()


def test_a_backup_of_a_newer_release_is_refused(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    backup(store, tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer") as newer:
        newer.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    newer.close()
    with pytest.raises(StoreError, match=f"expected schema version {NEWEST} or older, found 99"):
        restore(url_of(store), tmp_path / "newer")
    store.engine.dispose()


def test_a_damaged_sqlite_store_is_replaced_and_kept(tmp_path):
    url = f"sqlite:///{tmp_path}/sentinel.db"
    store = open_store(url)
    queue(store)
    backup(store, tmp_path / "good")
    store.engine.dispose()
    (tmp_path / "sentinel.db").write_bytes(b"damaged" * 1000)
    former, found = restore(url, tmp_path / "good")
    assert (found, former.read_bytes()) == ("1 cadences, 0 candidates, 0 messages", b"damaged" * 1000)
