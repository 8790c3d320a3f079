"""With a running watcher and web program, faults of the machine appear in the status and disappear again."""

import socket
import threading
import time
import urllib.request

import pytest
from rows import status_of

from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.ingest import service
from sentinel.monitor.checks import CRITICAL, OK, WARNING
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Store, open_store
from sentinel.web import server

PATIENCE_S = 30.0
RUNNING = dict.fromkeys(("watcher", "web"), "RUNNING")


@pytest.fixture
def running(tmp_path, monkeypatch):
    """Run a watcher and a web program, whose port is taken; return their configuration, and a wait for a level."""
    root = tmp_path / "roots" / "a"
    root.mkdir(parents=True)
    taken = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(server, "PERIOD_S", 0.2)
    config = Config(
        state_dir=tmp_path / "var",
        picture_dir=tmp_path / "pictures",
        watch={"roots": [root], "scan_s": 0.2},
        web={"port": taken.getsockname()[1]},
        injections={"canary_s": 0},
    )
    config.state_dir.mkdir()
    store = open_store(config.store_url)
    loops = {name: ProgramLoop(name=name, store=store, period_s=1.0, state=str(config.state_dir)) for name in RUNNING}
    threads = [
        threading.Thread(target=program.run, args=(config, store, loops[name]), daemon=True)
        for name, program in (("watcher", service), ("web", server))
    ]
    for thread in threads:
        thread.start()

    def becomes(check, *levels):
        end = time.monotonic() + PATIENCE_S
        while (seen := status_of(config, store, monkeypatch, RUNNING)).checks[check] not in levels:
            assert time.monotonic() < end, (check, seen.checks, seen.remarks)
            time.sleep(0.1)

    yield config, becomes, taken, loops["watcher"]
    for loop in loops.values():
        loop.stop()
    for thread in threads:
        thread.join(PATIENCE_S)
    taken.close()
    store.engine.dispose()


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


@pytest.mark.fault(41, promise="P5")
@pytest.mark.fault(43, promise="P5")
@pytest.mark.fault(44, promise="P5")
def test_each_fault_appears_in_the_status_and_disappears_with_its_cause(running, monkeypatch):
    config, becomes, taken, watcher = running
    becomes("web", WARNING)
    taken.close()
    becomes("web", OK)
    with urllib.request.urlopen(f"http://127.0.0.1:{config.web.port}/", timeout=10) as reply:
        assert reply.status == 200

    (root,) = config.watch.roots
    becomes("roots", OK)
    root.rename(root.with_name("away"))
    becomes("roots", CRITICAL)
    root.with_name("away").rename(root)
    becomes("roots", OK)

    config.pictures.write_text("a file")
    becomes("pictures", WARNING)
    config.pictures.unlink()
    becomes("pictures", OK)

    with monkeypatch.context() as broken:
        broken.setattr(service, "group", lambda *_: 1 / 0)
        becomes("errors", CRITICAL)
    becomes("errors", OK)

    with monkeypatch.context() as broken:
        broken.setattr(Store, "record_heartbeat", raising(StoreError("damaged")))
        broken.setattr(service.Searchers, "capacity", raising(ConnectionError("the scheduler was lost")))
        becomes("watcher", WARNING, CRITICAL)
    becomes("watcher", OK)  # it goes on

    watcher.stop()
    becomes("watcher", CRITICAL)
