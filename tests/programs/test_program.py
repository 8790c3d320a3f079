"""The heartbeats of a program follow the name of its host."""

import socket

import pytest
from sqlalchemy import select

from sentinel.programs.program import ProgramLoop
from sentinel.store.schema import heartbeat


@pytest.mark.parametrize("restarted", [False, True])
def test_the_heartbeats_of_the_earlier_name_of_a_host_are_deleted(store, tmp_path, monkeypatch, restarted):
    def beat(loop, host):
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        loop.heartbeat()

    def program(name):
        (tmp_path / name / "run").mkdir(parents=True, exist_ok=True)
        return ProgramLoop(name="watcher", store=store, period_s=10, state=str(tmp_path / name))

    other, loop = program("other"), program("own")
    beat(loop, "old")
    store.record_heartbeat("worker-0@old", 10, pid=1, host="old")
    beat(program("own") if restarted else loop, "new")
    beat(other, "third")
    beat(loop, "new")
    with store.read() as rows:
        names = set(rows.scalars(select(heartbeat.c.name)))
    assert names == {"watcher@new"} | ({"watcher@third"} if store.engine.dialect.name == "postgresql" else set())


def test_a_program_writes_heartbeats_while_its_state_directory_is_away(store, tmp_path):
    ProgramLoop(name="watcher", store=store, period_s=10, state=str(tmp_path / "away")).heartbeat()
    with store.read() as rows:
        assert len(rows.scalars(select(heartbeat.c.name)).all()) == 1
    assert list(tmp_path.glob("away*")) == []
