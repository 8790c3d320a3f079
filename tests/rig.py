"""An observatory in one process: a folder, a store, workers and a fake Slack, each of which a test can break.

Watcher, grouping, queue, leases, the lease loop of a worker and the outbox are the real ones. The result of a search is
invented. The clock is the rig's own, and SQLite uses it too. The death of a process is
an exception that the service does not catch, raised at a failpoint.
"""

import os
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

from factories import make_header, make_power, write_observation
from rows import CANDIDATE, MESSAGE, found
from sqlalchemy import event, select

import sentinel.failpoint
from aetherscan.io import verify_complete
from sentinel.config import Config
from sentinel.errors import Cause, LeaseLostError
from sentinel.ingest.cadences import group
from sentinel.ingest.service import one_pass
from sentinel.ingest.watcher import open_stable, scan_roots
from sentinel.notify.outbox import deliver_all
from sentinel.notify.slack import SlackPoster
from sentinel.store.queue import open_store
from sentinel.store.schema import attempt, cadence, candidate
from sentinel.workers.task import search_lease

JULIAN_1970 = 2440587.5
STEP_DAYS = 341 / 86_400
AWAY = {1: 2, 3: 4, 5: 6}


class Killed(BaseException):
    """A process was killed."""


def in_child(does, store=None, **environment):
    """Call `does` in a forked process; return its exit code, negative for a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the child uses none of them
        pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 3
    try:
        os.environ.update(environment)
        if store:
            store.engine.dispose(close=False)
        does()
        code = 0
    finally:
        os._exit(code)


def headers(number, **changes):
    """Return the six headers of cadence `number`. No two cadences share a scan."""
    return [
        make_header(
            source_name=f"T{number}" if i not in AWAY else f"OFF{i}",
            src_dej=-12.75 + AWAY.get(i, 0),
            tstart=59103.0 + 0.2 * number + i * STEP_DAYS,
            **{"nchans": 16, "nfpc": 16, "ntime": 4, **changes},
        )
        for i in range(6)
    ]


class Observatory:
    """Folder, store, workers and Slack; `passes` advances the time."""

    def __init__(self, place, slack, monkeypatch=None, **settings):
        (place / "in").mkdir(exist_ok=True)
        self.root, self.slack = place / "in", slack
        watch = {"roots": (self.root,), "settle_s": 5, "look_again_s": 20, **settings.pop("watch", {})}
        self.config = Config(state_dir=place, lease_s=60, retry_after_s=5, watch=watch, **settings)
        self.at, self.full, self.failing = 1.8e9, False, ""
        self.store = open_store(self.config.store_url)
        event.listen(self.store.engine, "connect", self._set_clock)
        event.listen(self.store.engine, "begin", self._fill)
        self.store.engine.dispose()
        self.picture = place / "waterfall.png"
        self.picture.write_bytes(b"PNG")
        self.flights, self.dead, self.stopped, self.workers = [], [], [], 2
        if monkeypatch:
            monkeypatch.setattr("sentinel.workers.task.retry_while_away", lambda step: step())  # it waits in real time
            environ = SimpleNamespace(get=lambda *_: self.failing)
            monkeypatch.setattr(
                sentinel.failpoint, "os", SimpleNamespace(environ=environ, kill=self._die, getpid=os.getpid)
            )

    def _set_clock(self, connection, _):
        connection.execute("PRAGMA synchronous=OFF")  # no test cuts the power
        connection.create_function("julianday", 1, lambda _: JULIAN_1970 + self.at / 86_400)

    def _fill(self, rows):
        rows.exec_driver_sql(f"PRAGMA max_page_count={1 if self.full else 2**30}")

    def _die(self, *_):
        self.failing = ""
        raise Killed

    def close(self):
        self.store.engine.dispose()

    def land(self, number, positions=range(6), part=1.0, **changes):
        """Write files of a cadence, or the first part of each; return the complete content of each."""
        whole = {}
        for i in positions:
            path = self.root / f"{number:03d}-{i}.fil"
            write_observation(path, headers(number, **changes)[i], make_power(headers(number, **changes)[i], number))
            whole[path] = path.read_bytes()
            if part < 1:
                path.write_bytes(whole[path][: int(part * len(whole[path]))])
        return whole

    def search(self, number):
        """Return the result of a search: one candidate, at a frequency of this cadence only, and its message."""
        row = {**CANDIDATE, "frequency_mhz": 1400.0 + number, "tstart_mjd": 59103.0 + number}
        message = {**MESSAGE, "text": f"cadence {number}", "pictures": [str(self.picture)]}
        return replace(found(), candidates=[row], pictures=[], message=lambda _: message)

    def claim(self):
        """Lease a cadence as the watcher does."""
        return self.store.claim(self.config.lease_s)

    def renew_waiting(self):
        """Renew the leases of cadences that no worker has begun."""
        waiting = [lease.token for lease in self.flights]
        self.store.renew_waiting(waiting, self.config.lease_s, longest_s=self.config.search_limit_s)

    def one_pass(self):
        """Run one pass of the watcher."""
        dead, self.dead = self.dead, []
        one_pass(
            scan=self._scan,
            group=lambda: group(self.store, self.config.watch),
            renew_waiting=self.renew_waiting,
            expire=self.store.expire,
            collect=lambda: iter(dead),
            record_failure=self._failed,
            free_workers=lambda: self.workers - self.store.leased_count(),
            claim=self.claim,
            submit=self.flights.append,
        )

    def _scan(self):
        scan_roots(self.store, self.config.watch)
        while open_stable(self.store, self.config.watch, verify_complete):
            pass

    def _failed(self, lease, why, cause):
        limits = {"max_attempts": self.config.max_attempts, "retry_after_s": self.config.retry_after_s}
        with suppress(LeaseLostError):
            self.store.fail(lease.token, why, cause, **limits)

    def work(self):
        """Let every worker that was not suspended finish its search."""
        while self.flights:
            self.finish(self.flights.pop(0))

    def finish(self, lease):
        """Search one cadence until it ends or its worker is killed."""

        def search(_, progress):
            progress(0.5)
            return self.search(lease.cadence_id)

        try:
            return search_lease(self.store, self.config, lease.cadence_id, lease.token, search)
        except Killed:
            self.dead.append((lease, "its worker died", Cause.DEATH))

    def deliver(self):
        """Send the messages that are due."""
        deliver_all(self.store, SlackPoster("C1", self.slack.url, "xoxb-test"), "slack", 0)

    def passes(self, count=1, step_s=6.0):
        """Advance the time and run every program; return the states of the cadences."""
        for _ in range(count):
            self.at += step_s
            self.one_pass()
            self.work()
            self.deliver()
        return self.states()

    def states(self):
        """Return the state of each cadence, oldest first."""
        with self.store.read() as rows:
            return list(rows.scalars(select(cadence.c.state).order_by(cadence.c.id)))

    def ended_well(self, whole, quarantined=0):
        """Check the promises: each cadence of the files `whole` ended once and was announced once; no file changed."""
        landed = len(whole) // 6
        with self.store.read() as rows:
            states = dict(tuple(row) for row in rows.execute(select(cadence.c.id, cadence.c.state)))
            found = list(rows.scalars(select(candidate.c.cadence_id).order_by(candidate.c.id)))
            ended = list(rows.scalars(select(attempt.c.cadence_id).where(attempt.c.outcome == "done")))
            whys = list(rows.scalars(select(cadence.c.why).where(cadence.c.state == "quarantined")))
        assert sorted(states.values()) == ["done"] * (landed - quarantined) + ["quarantined"] * quarantined
        done = sorted(number for number, state in states.items() if state == "done")
        assert sorted(found) == sorted(ended) == done
        assert all(whys)
        texts = [message["text"] for message in self.slack.messages]
        assert {re.match(r"cadence \d+", text)[0] for text in texts} == {f"cadence {number}" for number in done}
        unmarked = [text for text in texts if "may repeat" not in text]
        assert len(set(unmarked)) == len(unmarked)
        self.adds_up()
        assert {path: path.read_bytes() for path in self.root.rglob("*.fil")} == whole

    def adds_up(self):
        """Check that the counts of the ledger add up."""
        ledger = self.store.ledger()
        assert ledger.pop("seen") == sum(ledger.values())
