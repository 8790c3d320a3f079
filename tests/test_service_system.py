"""The whole service, for real: a cadence lands, processes are killed, it is done once, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from sqlalchemy import func, select

from sentinel.config import ROOT, load_config
from sentinel.schema import attempt, cadence, candidate, heartbeat, injection, outbox
from sentinel.store import open_store
from sentinel.supervise import left, programs

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


class Service:
    """A service of its own: state and watched folder in a temporary place, messages to a Slack on loopback.

    Its commands are run behind `prefix`, and `settings` of the configuration win over what is usual here.
    """

    def __init__(self, place, slack, prefix=(), **settings):
        place.mkdir(exist_ok=True)
        self.prefix = prefix
        shipped = load_config(ROOT / "config.yaml")
        usual = {
            "state_dir": "var",
            "release": str(shipped.release),
            "search": shipped.search.model_dump(),
            "lease_s": 20,
            "retry_after_s": 1,
            "watch": {"roots": ["incoming"], "scan_s": 1, "settle_s": 1},
            "slack": {"api_url": slack.url, "per_second": 20, "per_hour": 1000},
            "web": {"port": 0},
            "injections": {"canary_s": 0, "blind_share": 0},
        }
        (place / "config.yaml").write_text(yaml.safe_dump(usual | settings))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SENTINEL")},
            "SENTINEL_CONFIG": str(place / "config.yaml"),
            "SLACK_BOT_TOKEN": "xoxb-test",
            "SLACK_CHANNEL": "C1",
        }
        self.config = load_config(place / "config.yaml")
        self.store = None

    def run(self, *arguments, check=True, **environment):
        command = [*self.prefix, sys.executable, "-P", "-m", "sentinel.cli", *arguments]
        paths = {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            command, env=self.environment | paths | environment, capture_output=True, text=True, check=False
        )
        assert not check or ran.returncode == 0, (
            f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}\n{self.logs()}"
        )
        return ran

    def start(self, *arguments):
        """Run a command beside the test."""
        command = [*self.prefix, sys.executable, "-P", "-m", "sentinel.cli", *arguments]
        return subprocess.Popen(
            command,
            env=self.environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def logs(self):
        return "\n".join(
            "\n".join([path.name, *path.read_text(errors="replace").splitlines()[-25:]])
            for path in sorted((self.config.state_dir / "log").glob("*.log"))
        )

    def rows(self, statement):
        self.store = self.store or open_store(self.config.store_url)
        with self.store.read() as rows:
            return rows.execute(statement).all()

    def worker_pid(self):
        found = self.rows(select(heartbeat.c.pid).where(heartbeat.c.name.like("worker%")))
        return found[0].pid

    def until(self, holds, seconds=240):
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)
        return found


def done(service):
    return service.rows(select(cadence.c.id).where(cadence.c.state == "done"))


def searching(service):
    """Return whether a worker has begun a search and not ended it."""
    return service.rows(select(attempt.c.id).where(attempt.c.worker.is_not(None), attempt.c.outcome.is_(None)))


def once(service, slack, cadences):
    """Hold that every cadence was recorded and announced once."""
    assert len(done(service)) == cadences
    twice = select(candidate.c.frequency_mhz).group_by(candidate.c.cadence_id, candidate.c.frequency_mhz)
    assert service.rows(twice.having(func.count() > 1)) == []
    told = service.until(lambda: len(slack.messages) >= cadences and slack.messages)
    assert len({one["metadata"]["event_payload"]["uid"] for one in told}) == len(told) == cadences
    ledger = json.loads(service.run("status", "--json", check=False).stdout)["ledger"]
    assert ledger == {"seen": cadences, "done": cadences, "quarantined": 0, "skipped": 0, "waiting": 0}


@pytest.mark.fault(37, promise="P5")
@pytest.mark.fault(13, promise="P1")
def test_a_tone_that_lands_is_found_pictured_and_announced_and_down_leaves_no_process(service, slack):
    service.run("up")
    for options in (("--seed", "1"), ("--seed", "2", "--suffix", ".fil"), ("--seed", "3", "--slow", "4")):
        shown = service.run("demo", *options).stdout
        assert "found" in shown
        picture = next(line.split("picture ")[1] for line in shown.splitlines() if "picture" in line)
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    once(service, slack, 3)
    service.until(lambda: all(one.state == "sent" for one in service.rows(select(outbox.c.state))))
    assert slack.files
    service.run("status")
    service.run("down")
    assert left(service.config) == []


@pytest.mark.fault(1, promise="P1")
@pytest.mark.fault(2, promise="P2")
def test_a_worker_and_a_watcher_killed_in_mid_search_lose_and_repeat_nothing(service, slack):
    service.run("up", SENTINEL_FAILPOINT="mid-read:sleep=3")
    first = service.start("demo", "--seed", "11")
    service.until(lambda: searching(service))
    os.kill(service.worker_pid(), signal.SIGKILL)
    assert first.wait(timeout=300) == 0, first.stdout.read() + service.logs()
    first.stdout.close()
    second = service.start("demo", "--seed", "12")
    service.until(lambda: searching(service))
    os.kill(programs(service.config)["watcher"]["pid"], signal.SIGKILL)
    assert second.wait(timeout=300) == 0, second.stdout.read() + service.logs()
    second.stdout.close()
    once(service, slack, 2)
    outcomes = [one.outcome for one in service.rows(select(attempt.c.outcome).order_by(attempt.c.id))]
    assert outcomes.count("done") == 2
    assert len(outcomes) >= 3


@pytest.mark.fault(5, promise="P1")
def test_supervisord_killed_takes_its_programs_along_and_up_starts_afresh(service, slack):
    service.run("up")
    pid = int((service.config.state_dir / "run" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    service.until(lambda: left(service.config) == [], 60)
    service.run("up")
    service.run("demo", "--seed", "21")
    once(service, slack, 1)


def listening(pids):
    """Return the addresses, as the kernel writes them, on which any of these processes listens."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            sockets |= {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return [one[1].split(":")[0] for one in lines if one[3] == "0A" and f"socket:[{one[9]}]" in sockets]


@pytest.mark.fault(6, promise="P1")
def test_a_canary_goes_the_whole_way_unannounced_and_a_killed_web_comes_back(service, slack):
    service.run("up", SENTINEL__INJECTIONS__CANARY_S="600")
    (back,) = service.until(lambda: service.rows(select(injection).where(injection.c.recovered.is_not(None))))
    assert (back.kind, back.recovered) == ("canary", True)
    assert service.rows(select(cadence.c.id)) == service.rows(select(candidate.c.id)) == slack.messages == []
    assert len(open_ports := listening(left(service.config))) >= 3  # scheduler, worker, web
    assert set(open_ports) == {"0100007F"}
    before = programs(service.config)["web"]["pid"]
    assert int(Path(f"/proc/{before}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") < 150e6
    os.kill(before, signal.SIGKILL)
    service.until(lambda: programs(service.config)["web"]["pid"] not in (0, before))

    def ready():
        facts = service.rows(select(heartbeat.c.facts).where(heartbeat.c.name.like("web%"), heartbeat.c.pid != before))
        with suppress(OSError, IndexError), urllib.request.urlopen(f"{facts[0].facts['web']}/readyz") as reply:
            return reply.status

    assert service.until(ready, 60) == 200
    status = service.run("status").stdout
    assert "canary 1 of 1 recovered" in status
    assert "0 seen" in status
