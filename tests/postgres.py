"""A PostgreSQL server of the system, run by an ordinary user in a temporary folder, on loopback."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
"""Settings without durability: no test cuts the power."""


def programs():
    """Return the folder of initdb and pg_ctl, or None."""
    beside = [Path(found).resolve().parent] if (found := shutil.which("pg_ctl")) else []
    folders = [*beside, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server:
    """One server; `database` makes an empty database and returns its URL."""

    def __init__(self, *settings):
        if (folder := programs()) is None:
            pytest.skip("no PostgreSQL here: apt install postgresql")
        pytest.importorskip("psycopg")
        self.bin, self.place = folder, Path(tempfile.mkdtemp(prefix="pg"))
        self.names, self.made = itertools.count(1), []
        self.user = None
        if os.getuid() == 0:  # PostgreSQL refuses to be run by root
            self.user = pwd.getpwnam("nobody").pw_uid
            os.chown(self.place, self.user, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-A", "trust", "-U", "sentinel", "-N", "-E", "UTF8", "--locale=C")
        network = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.place}
        lines = [*settings, *(f"{name}='{value}'" for name, value in network.items())]
        with (self.place / "data" / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")
        self.start()

    def _run(self, program, *arguments):
        command = [self.bin / program, "-D", self.place / "data", *arguments]
        done = subprocess.run(command, user=self.user, cwd=self.place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self):
        # Its output goes to a file: the server would keep a pipe open for ever.
        self._run("pg_ctl", "-w", "-l", self.place / "log", "start")

    def stop(self):
        self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def database(self):
        """Make an empty database and return its URL."""
        name = f"test{next(self.names)}"
        self._execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        self.made.append(name)
        return f"postgresql+psycopg://sentinel@127.0.0.1:{self.port}/{name}"

    def drop_all(self):
        """Drop every database of this server, also while it is used."""
        while self.made:
            self._execute(f"DROP DATABASE {self.made.pop()} WITH (FORCE)")

    def set(self, name, value):
        """Change a setting of the running server, and wait until it holds: a reload returns before it is done."""
        self._execute(f"ALTER SYSTEM SET {name} = {value}")
        self._execute("SELECT pg_reload_conf()")
        while self._execute(f"SHOW {name}") != value:
            time.sleep(0.05)

    def _execute(self, statement):
        import psycopg

        with psycopg.connect(f"postgresql://sentinel@127.0.0.1:{self.port}/postgres", autocommit=True) as rows:
            ran = rows.execute(statement)
            return ran.fetchone()[0] if ran.description else None

    def close(self):
        self.stop()
        shutil.rmtree(self.place)
