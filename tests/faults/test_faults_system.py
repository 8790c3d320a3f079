"""The whole service, with small cadences and a Slack on loopback, while its processes are killed and stopped."""

import contextlib
import os
import random
import signal
import time
import xmlrpc.client

import pytest
from running import Telescope, done
from sqlalchemy import func, select
from supervisor.xmlrpc import SupervisorTransport

from sentinel.programs.supervisor import program_states, service_pids, socket_path
from sentinel.store.schema import attempt, cadence, candidate, outbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ENDED = ("done", "quarantined")


@pytest.fixture
def telescope(tmp_path):
    (tmp_path / "scratch").mkdir()
    return Telescope(tmp_path / "incoming", tmp_path / "scratch")


def ended_well(service, slack, telescope, *, quarantined=(), patience_s=240):
    """Check that every cadence that landed is recorded and announced once, and that no file was changed."""
    ended = select(cadence.c.id).where(cadence.c.state.in_(ENDED))
    service.until(lambda: len(service.rows(ended)) == telescope.landed, patience_s + 3 * telescope.landed)
    states = dict(service.rows(select(cadence.c.target, cadence.c.state)))
    assert {target for target, state in states.items() if state == "quarantined"} == set(quarantined)
    twice = select(candidate.c.id).group_by(candidate.c.cadence_id, candidate.c.frequency_mhz)
    assert service.rows(twice.having(func.count() > 1)) == []
    records = service.rows(select(attempt.c.cadence_id).where(attempt.c.outcome == "done"))
    assert len(records) == len(set(records)) == telescope.landed - len(quarantined)
    with_tone = {f"T{number}" for number in range(1, telescope.landed + 1) if number % 5 == 1} - set(quarantined)
    found = {row.target for row in service.rows(select(candidate.c.target))}
    assert found == with_tone
    service.until(lambda: all(row.state in ("sent", "reconciled") for row in service.rows(select(outbox.c.state))))
    uids = [message["metadata"]["event_payload"]["uid"] for message in slack.messages if "thread_ts" not in message]
    assert len(set(uids)) == len(uids) == len(with_tone)
    ledger = service.store.ledger()
    assert ledger.pop("seen") == sum(ledger.values()) == telescope.landed
    assert {path: path.stat().st_mtime_ns for path in telescope.root.iterdir()} == telescope.whole


def kill(*pids, number=signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def ask_supervisord(service, method, name):
    transport = SupervisorTransport(serverurl=f"unix://{socket_path(service.config)}")
    with contextlib.closing(transport):
        getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, method)(name)


@pytest.mark.fault(7, promise="P1")
@pytest.mark.fault(7, promise="P2")
@pytest.mark.fault(7, promise="P3")
@pytest.mark.fault(2, promise="P2")
@pytest.mark.fault(6, promise="P1")
def test_processes_killed_at_random_while_two_hundred_cadences_land_lose_and_repeat_nothing(service, slack, telescope):
    rng, kills = random.Random(7), 0
    service.run("up")
    while telescope.landed < 200 or kills < 25:
        telescope.land(min(10, 200 - telescope.landed))
        time.sleep(rng.uniform(2, 5))
        kill(rng.choice(service_pids(service.config)))
        kills += 1
        if not program_states(service.config):  # supervisord was killed: start it again, as systemd does
            service.until(lambda: service_pids(service.config) == [], 60)
            service.run("up")
    ended_well(service, slack, telescope)


@pytest.mark.fault(7, promise="P1")
@pytest.mark.fault(7, promise="P2")
@pytest.mark.fault(5, promise="P1")
def test_everything_killed_at_twenty_random_times_loses_and_repeats_nothing(service, slack, telescope):
    rng = random.Random(8)

    def all_killed():
        kill(*service_pids(service.config))  # again for each that was started while the others were killed
        return service_pids(service.config) == []

    for _ in range(20):
        telescope.land(2)
        starting = service.start("up")
        time.sleep(rng.uniform(1, 8))
        kill(starting.pid)
        service.until(all_killed, 60)
        starting.communicate()
    service.run("up")
    ended_well(service, slack, telescope)


@pytest.mark.fault(4, promise="P1")
def test_a_cluster_that_is_killed_and_away_for_40_s_is_waited_for(service, slack, telescope):
    service.run("up", SENTINEL_FAILPOINT="mid-read:sleep=2")
    telescope.land(3)
    service.until(lambda: service.rows(select(attempt.c.id)))
    kill(program_states(service.config)["cluster"]["pid"])
    ask_supervisord(service, "stopProcess", "cluster")
    telescope.land(2)
    time.sleep(40)
    ask_supervisord(service, "startProcess", "cluster")
    ended_well(service, slack, telescope)


@pytest.mark.fault(8, promise="P2")
def test_a_scheduler_that_is_stopped_for_a_minute_continues_or_is_replaced(service, slack, telescope):
    service.run("up", SENTINEL_FAILPOINT="mid-read:sleep=2")
    telescope.land(3)
    service.until(lambda: service.rows(select(attempt.c.id)))
    pid = program_states(service.config)["cluster"]["pid"]
    kill(pid, number=signal.SIGSTOP)
    telescope.land(2)
    time.sleep(60)
    kill(pid, number=signal.SIGCONT)
    ended_well(service, slack, telescope)


@pytest.mark.fault(9, promise="P2")
def test_a_worker_that_was_stopped_until_its_lease_ended_is_fenced_when_it_continues(service, slack, telescope):
    service.run("up", SENTINEL_FAILPOINT="before-commit@1:sleep=4", SENTINEL__CLUSTER__WORKERS="2")
    telescope.land(1)
    service.until(lambda: service.rows(select(attempt.c.id).where(attempt.c.worker.is_not(None))))
    (held,) = service.rows(select(attempt.c.worker, attempt.c.token))
    pid = int(held.worker.split(":")[1])
    kill(pid, number=signal.SIGSTOP)
    service.until(lambda: done(service))
    kill(pid, number=signal.SIGCONT)
    service.until(lambda: service.rows(select(attempt.c.id).where(attempt.c.outcome == "fenced")))
    ended_well(service, slack, telescope)
    outcomes = sorted(row.outcome for row in service.rows(select(attempt.c.outcome)))
    assert (outcomes.count("fenced"), outcomes.count("done")) == (1, 1)


@pytest.mark.fault(11, promise="P1")
@pytest.mark.fault(12, promise="P1")
def test_cadences_that_eat_all_memory_or_abort_are_set_aside_and_the_others_searched(service, slack, telescope):
    service.run(
        "up",
        SENTINEL_FAILPOINT="mid-read@1:eat=3000,mid-read@2:kill",
        SENTINEL__CLUSTER__MEMORY_LIMIT="1200 MiB",
    )
    for _ in range(2):
        telescope.land(1)
        service.until(lambda: len(service.rows(select(cadence.c.id))) == telescope.landed)
    telescope.land(6)
    ended_well(service, slack, telescope, quarantined=("T1", "T2"), patience_s=1200)  # ten workers start again
    ended = service.rows(select(cadence.c.why, cadence.c.attempts).where(cadence.c.state == "quarantined"))
    assert [row.attempts for row in ended] == [0, 0]
    assert all(row.why.startswith("its worker process died 5 times while searching it; ") for row in ended)


@pytest.mark.fault(37, promise="P1")
def test_down_during_a_search_queues_the_cadence_again_and_leaves_no_process(service, slack, telescope):
    service.run("up", SENTINEL_FAILPOINT="mid-read:sleep=30")
    telescope.land(1)
    service.until(lambda: service.rows(select(attempt.c.id).where(attempt.c.worker.is_not(None))))
    service.run("down")
    assert service_pids(service.config) == []
    assert [tuple(row) for row in service.rows(select(cadence.c.state, cadence.c.attempts))] == [("ready", 0)]
    service.run("up")
    ended_well(service, slack, telescope)
