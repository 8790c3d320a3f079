"""After random faults in random order, once the faults have ended, the promises hold and the ledger adds up."""

import random
from contextlib import suppress

import pytest
from rig import Killed, Observatory

from sentinel.errors import Cause, LeaseLostError, StoreAwayError

STEPS = 25
PLACES = ("seen", "file-row", "ready", "leased", "result-known", "started", "mid-read", "before-commit", "after-commit")
SENDING = ("before-send", "after-accept", "mid-upload")
SLACK = (429, 500, "reset", "lost", "text", "invalid_auth")


class Faults:
    """A seeded series of faults of an observatory, and the files that are still being written."""

    def __init__(self, observatory, seed):
        self.observatory, self.rng = observatory, random.Random(seed)
        self.whole, self.short, self.landed = {}, set(), 0

    def land(self):
        self.landed += 1
        self.whole |= self.observatory.land(self.landed)

    def land_some(self):
        """Write half of a cadence's files, and a part of each other one."""
        self.landed += 1
        now = self.rng.sample(range(6), 3)
        self.whole |= self.observatory.land(self.landed, now)
        late = self.observatory.land(self.landed, sorted({*range(6)} - {*now}), part=self.rng.choice((0.0, 0.3, 0.8)))
        self.whole |= late
        self.short |= set(late)

    def write_more(self):
        """Continue one file, to its end or almost."""
        if self.short:
            path = self.rng.choice(sorted(self.short))
            end = self.rng.choice((len(self.whole[path]) - 7, len(self.whole[path])))
            path.write_bytes(self.whole[path][:end])
            self.short -= {path} if end == len(self.whole[path]) else set()

    def truncate(self):
        """Cut a whole file, as a copy that begins again does."""
        if self.whole:
            path = self.rng.choice(sorted(self.whole))
            path.write_bytes(self.whole[path][: len(self.whole[path]) // 2])
            self.short.add(path)

    def kill(self):
        self.observatory.failing = f"{self.rng.choice(PLACES + SENDING)}:kill"

    def raise_error(self):
        """Let the next failpoint raise an error instead of killing the process."""
        self.observatory.failing = f"{self.rng.choice(PLACES)}:raise"

    def stop(self):
        """Suspend a worker that has a result."""
        if self.observatory.flights:
            self.observatory.stopped.append(self.observatory.flights.pop())

    def resume(self):
        while self.observatory.stopped:
            lease = self.observatory.stopped.pop()
            with suppress(LeaseLostError, StoreAwayError):
                self.observatory.store.complete(lease.token, self.observatory.search(lease.cadence_id))

    def lose_workers(self):
        """Kill the workers; half of the deaths are reported, the others are not, as when the scheduler dies too."""
        gone, self.observatory.flights = self.observatory.flights, []
        self.observatory.dead += [(lease, "its worker died", Cause.DEATH) for lease in gone if self.rng.random() < 0.5]

    def restart(self):
        """Restart the watcher, after an orderly stop or a kill."""
        for lease in self.observatory.flights:
            with suppress(LeaseLostError, StoreAwayError):
                if self.rng.random() < 0.5:
                    self.observatory.store.release_lease(lease.token)
        self.observatory.flights, self.observatory.dead = [], []

    def slack(self):
        method = self.rng.choice(("chat.postMessage", "conversations.history", "files.getUploadURLExternal"))
        self.observatory.slack.modes[method].append(self.rng.choice(SLACK))

    def clock(self):
        self.observatory.at += self.rng.choice((-3600, 3600, -61, 61))

    def disk(self):
        self.observatory.full = not self.observatory.full

    def run(self):
        faults = [
            *(self.land, self.land, self.land_some, self.write_more, self.truncate, self.kill, self.raise_error),
            *(self.stop, self.resume, self.lose_workers, self.restart, self.slack, self.clock, self.disk),
        ]
        for _ in range(STEPS):
            self.rng.choice(faults)()
            for step in (self.observatory.one_pass, self.observatory.work, self.observatory.deliver):
                self.observatory.at += self.rng.uniform(0, 8)
                with suppress(Killed, StoreAwayError, RuntimeError, LeaseLostError):
                    step()
            if not self.observatory.full:
                self.observatory.adds_up()

    def end(self):
        """End every fault, and run the programs until every wait and lease has ended."""
        self.observatory.full, self.observatory.failing = False, ""
        self.observatory.slack.modes.clear()
        self.resume()
        for path in self.short:
            path.write_bytes(self.whole[path])
        for _ in range(40):
            self.observatory.passes(1, step_s=400)
            if not self.observatory.store.ledger()["waiting"] and len(self.observatory.states()) == self.landed:
                break
        self.observatory.passes(12, step_s=400)


@pytest.mark.fault(7, promise="P1")
@pytest.mark.fault(7, promise="P2")
@pytest.mark.fault(7, promise="P3")
@pytest.mark.fault(7, promise="P4")
@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 200))])
def test_the_promises_hold_after_random_faults_in_random_order(tmp_path, slack, monkeypatch, seed):
    observatory = Observatory(tmp_path, slack, monkeypatch)
    faults = Faults(observatory, seed)
    faults.run()
    faults.end()
    observatory.ended_well(faults.whole, quarantined=observatory.states().count("quarantined"))
    observatory.store.requeue()
    observatory.passes(8)
    observatory.ended_well(faults.whole)
    observatory.close()
