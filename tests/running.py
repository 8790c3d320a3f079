"""A whole service for tests: its own state and folder, and a Slack on loopback."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import yaml
from sqlalchemy import func, select

from aetherscan.header import gbt_header
from aetherscan.io import open_observation, write_fil
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import ROOT, load_config
from sentinel.store.queue import open_store
from sentinel.store.schema import attempt, cadence, candidate, heartbeat


class Service:
    """A service with its state and watched folder in a temporary folder, and a fake Slack on loopback.

    Its commands are run with `prefix` before them; `settings` override the configuration of the tests.
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
        """Start a command and do not wait for it."""
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


class Telescope:
    """Lands small cadences: one of `every` holds a tone, the others noise."""

    def __init__(self, root, scratch, nchans=4096, every=5):
        self.root, self.every, self.landed, self.whole = root, every, 0, {}
        root.mkdir(exist_ok=True)
        header = gbt_header(nchans)
        place = {"frequency_mhz": header.frequency(0.3 * nchans), "drift_hz_s": 0.3, "width_hz": 4.0}
        tone = Emitter(**place, snr=(40.0, 0.0) * 3)
        self.skies = []
        for name, emitters in (("noise", ()), ("tone", (tone,))):
            (scratch / name).mkdir()
            six = []
            for path in write_cadence(scratch / name, Sky(header=header, emitters=emitters), 1, suffix=".fil"):
                with open_observation(path) as observation:
                    six.append((observation.header, observation.read(0, nchans).copy()))
            self.skies.append(six)

    def write(self, number, i, path, *, tone):
        """Write file `i` of cadence `number` whole under its final name."""
        header, power = self.skies[tone][i]
        name = f"T{number}" if i % 2 == 0 else header.source_name
        part = path.with_name(f".{path.name}")
        write_fil(part, replace(header, source_name=name, tstart=header.tstart + 0.2 * number), [power])
        part.rename(path)
        self.whole[path] = path.stat().st_mtime_ns

    def land(self, count=1):
        """Land cadences with new targets and times; the first and some later ones have a tone."""
        for _ in range(count):
            number = self.landed = self.landed + 1
            for i in range(6):
                tone = bool(self.every) and (number - 1) % self.every == 0
                self.write(number, i, self.root / f"{number:04d}-{i}.fil", tone=tone)


def done(service):
    return service.rows(select(cadence.c.id).where(cadence.c.state == "done"))


def searching(service):
    """Return whether a worker is searching."""
    return service.rows(select(attempt.c.id).where(attempt.c.worker.is_not(None), attempt.c.outcome.is_(None)))


def once(service, slack, cadences):
    """Check that every cadence was recorded and announced once."""
    assert len(done(service)) == cadences
    twice = select(candidate.c.frequency_mhz).group_by(candidate.c.cadence_id, candidate.c.frequency_mhz)
    assert service.rows(twice.having(func.count() > 1)) == []
    messages = service.until(lambda: len(slack.messages) >= cadences and slack.messages)
    assert len({message["metadata"]["event_payload"]["uid"] for message in messages}) == len(messages) == cadences
    ledger = json.loads(service.run("status", "--json", check=False).stdout)["ledger"]
    assert ledger == {"seen": cadences, "done": cadences, "quarantined": 0, "skipped": 0, "waiting": 0}
