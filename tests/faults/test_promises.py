"""Whatever happens in whatever order: after a quiet while the promises hold and the ledger adds up."""

import random
from contextlib import suppress

import pytest
from rig import Killed, Observatory

from sentinel.errors import Cause, LeaseLostError, StoreAwayError

STEPS = 25
PLACES = ("seen", "file-row", "ready", "leased", "result-known", "started", "mid-read", "before-commit", "after-commit")
SENDING = ("before-send", "after-accept", "mid-upload")
SLACK = (429, 500, "reset", "lost", "text", "invalid_auth")


class Weather:
    """One seeded run of mishaps over an observatory, and the writers whose files are not all there yet."""

    def __init__(self, observatory, seed):
        self.sky, self.rng = observatory, random.Random(seed)
        self.whole, self.short, self.landed = {}, set(), 0

    def land(self):
        self.landed += 1
        self.whole |= self.sky.land(self.landed)

    def land_some(self):
        """Half of a cadence's files, the others in bytes that do not make a file yet."""
        self.landed += 1
        now = self.rng.sample(range(6), 3)
        self.whole |= self.sky.land(self.landed, now)
        late = self.sky.land(self.landed, sorted({*range(6)} - {*now}), part=self.rng.choice((0.0, 0.3, 0.8)))
        self.whole |= late
        self.short |= set(late)

    def dribble(self):
        """One writer goes on, to the end or not quite."""
        if self.short:
            path = self.rng.choice(sorted(self.short))
            end = self.rng.choice((len(self.whole[path]) - 7, len(self.whole[path])))
            path.write_bytes(self.whole[path][:end])
            self.short -= {path} if end == len(self.whole[path]) else set()

    def truncate(self):
        """A file that was whole is cut, as by a copy that begins again."""
        if self.whole:
            path = self.rng.choice(sorted(self.whole))
            path.write_bytes(self.whole[path][: len(self.whole[path]) // 2])
            self.short.add(path)

    def kill(self):
        self.sky.failing = f"{self.rng.choice(PLACES + SENDING)}:kill"

    def fall_over(self):
        """An error where nobody expects one, in place of a death."""
        self.sky.failing = f"{self.rng.choice(PLACES)}:raise"

    def stop(self):
        """A worker stands still with what it found, and knows nothing of the time that passes."""
        if self.sky.flights:
            self.sky.stopped.append(self.sky.flights.pop())

    def go_on(self):
        while self.sky.stopped:
            lease = self.sky.stopped.pop()
            with suppress(LeaseLostError, StoreAwayError):
                self.sky.store.complete(lease.token, self.sky.search(lease.cadence_id))

    def lose_workers(self):
        """A death that is told, or is not because the scheduler died too."""
        gone, self.sky.flights = self.sky.flights, []
        self.sky.dead += [(lease, "its worker died", Cause.DEATH) for lease in gone if self.rng.random() < 0.5]

    def restart(self):
        """The watcher goes in an orderly way, or forgets."""
        for lease in self.sky.flights:
            with suppress(LeaseLostError, StoreAwayError):
                if self.rng.random() < 0.5:
                    self.sky.store.release_lease(lease.token)
        self.sky.flights, self.sky.dead = [], []

    def slack(self):
        method = self.rng.choice(("chat.postMessage", "conversations.history", "files.getUploadURLExternal"))
        self.sky.slack.modes[method].append(self.rng.choice(SLACK))

    def clock(self):
        self.sky.at += self.rng.choice((-3600, 3600, -61, 61))

    def disk(self):
        self.sky.full = not self.sky.full

    def run(self):
        mishaps = [
            *(self.land, self.land, self.land_some, self.dribble, self.truncate, self.kill, self.fall_over, self.stop),
            *(self.go_on, self.lose_workers, self.restart, self.slack, self.clock, self.disk),
        ]
        for _ in range(STEPS):
            self.rng.choice(mishaps)()
            for step in (self.sky.one_pass, self.sky.work, self.sky.deliver):
                self.sky.at += self.rng.uniform(0, 8)
                with suppress(Killed, StoreAwayError, RuntimeError, LeaseLostError):
                    step()
            if not self.sky.full:
                self.sky.adds_up()

    def quiet(self):
        """Writers finish, the disk has room, everybody goes on; long enough for every wait and lease to end."""
        self.sky.full, self.sky.failing = False, ""
        self.sky.slack.modes.clear()
        self.go_on()
        for path in self.short:
            path.write_bytes(self.whole[path])
        for _ in range(40):
            self.sky.passes(1, step_s=400)
            if not self.sky.store.ledger()["waiting"] and len(self.sky.states()) == self.landed:
                break
        self.sky.passes(12, step_s=400)


def quarantined(sky):
    return [state for state in sky.states() if state == "quarantined"]


@pytest.mark.fault(7, promise="P1")
@pytest.mark.fault(7, promise="P2")
@pytest.mark.fault(7, promise="P3")
@pytest.mark.fault(7, promise="P4")
@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 200))])
def test_the_promises_hold_after_random_faults_in_random_order(tmp_path, slack, monkeypatch, seed):
    sky = Observatory(tmp_path, slack, monkeypatch)
    weather = Weather(sky, seed)
    weather.run()
    weather.quiet()
    sky.ended_well(weather.whole, quarantined=len(quarantined(sky)))
    sky.store.requeue()
    sky.passes(8)
    sky.ended_well(weather.whole)
    sky.close()
