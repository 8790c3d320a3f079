"""Back the store up into one file, also while the service runs, and put a backup back.

SQLite copies itself with `VACUUM INTO`, in one transaction. PostgreSQL has `pg_dump` and `pg_restore`, with the
password of `PGPASSWORD` or `PGPASSFILE`. A backup has the schema version of the code that wrote the store; a newer code
upgrades it when it opens the store.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL, MetaData, func, make_url, select

from sentinel.errors import StoreError
from sentinel.store.migrations import ALIVE_S, NEWEST
from sentinel.store.queue import SIDE_FILES, Store, open_store
from sentinel.store.schema import cadence, candidate, heartbeat, in_last, outbox

COUNTED = {"cadences": cadence, "candidates": candidate, "messages": outbox}


def backup(store: Store, file: Path) -> str:
    """Write the store into `file`, which must not exist, and return a line that says what is in it.

    Raises:
        StoreError: the file exists or cannot be written, or `pg_dump` is missing or fails.
    """
    if file.exists():
        raise StoreError(f"{file}: expected a new file for the backup, found one: an earlier backup is not replaced")
    part = file.with_name(f".{file.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)  # it holds what the store holds
        if store.engine.dialect.name == "sqlite":
            with closing(sqlite3.connect(str(store.engine.url.database))) as connection:
                connection.execute("VACUUM INTO ?", (str(part),))
        else:
            _run("pg_dump", store.engine.url, "--format=custom", f"--file={part}")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(file)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{file}: the store was not backed up: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return f"{file}: {contents(store)}"


def restore(url: str, file: Path) -> tuple[Path, str]:
    """Replace the store by a backup and upgrade it; return where the former store is, and what is in the new one.

    No program may use the store. That of SQLite may be damaged or missing.

    Raises:
        StoreError: a program of another host uses the store, the file is no backup of a store of this kind, or it
            cannot be put back; the store is then as before, or the error names the file that has its content.
    """
    address, now = make_url(url), f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"  # two within a second keep both
    if address.get_backend_name() == "sqlite":
        former = _restore_sqlite(Path(address.database or ""), file, now)
    else:
        former = file.with_name(f"before-restore-{now}{file.suffix}")
        _restore_dump(open_store(url, upgrade=False), file, former)
    store = open_store(url)
    try:
        return former, contents(store)
    finally:
        store.engine.dispose()


def contents(store: Store) -> str:
    """Return a line with the numbers of cadences, candidates and messages."""
    with store.read() as rows:
        counts = {name: rows.scalar(select(func.count()).select_from(table)) for name, table in COUNTED.items()}
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _check_unused(store: Store) -> None:
    elsewhere = in_last(heartbeat.c.at, ALIVE_S) & (
        heartbeat.c.host != socket.gethostname()
    )  # here, processes are seen
    recent = select(heartbeat.c.name).where(elsewhere).order_by(heartbeat.c.name)
    with store.read() as rows:
        if alive := list(rows.scalars(recent)):
            raise StoreError(f"still used by {', '.join(alive)}: stop them, and retry after {ALIVE_S:.0f} s")


def _check_sqlite(file: Path) -> None:
    """Raise a StoreError unless the file is a whole SQLite store that this code can open."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{file}: expected a backup of an SQLite store, found {error}") from error
    if verdict != "ok" or version is None:
        raise StoreError(f"{file}: expected a whole backup, found a damaged one: {verdict}")
    if int(version[0]) > NEWEST:
        raise StoreError(f"{file}: expected schema version {NEWEST} or older, found {version[0]}: use the newer code")


def _check_dump(file: Path) -> None:
    listed = _run("pg_restore", None, "--list", str(file))
    if " TABLE DATA public meta " not in listed:
        raise StoreError(f"{file}: expected a backup of a store, found a dump without its table `meta`")


def _restore_sqlite(database: Path, file: Path, now: str) -> Path:
    """Rename the database and the files beside it, and put a copy of the backup in its place; return its new path."""
    _check_sqlite(file)
    former = database.with_name(f"before-restore-{now}-{database.name}")
    part = database.with_name(f".{database.name}.part")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, part)
        part.chmod(0o600)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        for suffix in ("", *SIDE_FILES):
            if (path := Path(f"{database}{suffix}")).exists():
                path.rename(f"{former}{suffix}")
        part.rename(database)
    except OSError as error:
        raise StoreError(f"{file}: not restored: {error}. The former store is in {former}") from error
    return former


def _restore_dump(store: Store, file: Path, former: Path) -> None:
    """Back the database up, drop the tables, also those that the backup lacks, and let pg_restore make them again."""
    try:
        _check_dump(file)
        with store.read() as rows:
            present = MetaData()
            present.reflect(rows)
        if present.tables:
            _check_unused(store)
            backup(store, former)
        with store.engine.begin() as rows:
            present.drop_all(rows)
        _run("pg_restore", store.engine.url, "--single-transaction", "--exit-on-error", "--no-owner", str(file))
    except StoreError as error:
        kept = f". The former store is in {former}" if former.exists() else ""
        raise StoreError(f"{file}: not restored: {error}{kept}") from error
    finally:
        store.engine.dispose()


def _run(program: str, url: URL | None, *arguments: str) -> str:
    """Run a program of PostgreSQL on a database and return its output.

    Raises:
        StoreError: it is missing or fails.
    """
    if not shutil.which(program):
        raise StoreError(f"expected {program} on the path, found none: install the client programs of PostgreSQL")
    given = ["--no-password", f"--dbname={_libpq(url)}"] if url else []
    ran = subprocess.run([program, *given, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise StoreError(f"{program}: {' '.join(ran.stderr.split()) or f'exit status {ran.returncode}'}")
    return ran.stdout


def _libpq(url: URL) -> str:
    """Return the URL as the programs of PostgreSQL read it: without the name of the driver."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
