"""The whole service: each cadence is searched once although processes are killed, and `down` leaves no process."""

import os
import signal
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from running import once, searching
from sqlalchemy import select

from sentinel.programs.supervisor import program_states, service_pids
from sentinel.store.schema import attempt, cadence, candidate, heartbeat, injection, outbox

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.mark.fault(37, promise="P5")
@pytest.mark.fault(13, promise="P1")
def test_a_tone_that_lands_is_found_pictured_and_announced_and_down_leaves_no_process(service, slack):
    service.run("up")
    for options in (("--seed", "1"), ("--seed", "2", "--suffix", ".fil"), ("--seed", "3", "--slow", "4")):
        output = service.run("demo", *options).stdout
        assert "found" in output
        picture = next(line.split("picture ")[1] for line in output.splitlines() if "picture" in line)
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    once(service, slack, 3)
    service.until(lambda: all(row.state == "sent" for row in service.rows(select(outbox.c.state))))
    assert slack.files
    service.run("status")
    service.run("down")
    assert service_pids(service.config) == []


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
    os.kill(program_states(service.config)["watcher"]["pid"], signal.SIGKILL)
    assert second.wait(timeout=300) == 0, second.stdout.read() + service.logs()
    second.stdout.close()
    once(service, slack, 2)
    outcomes = [row.outcome for row in service.rows(select(attempt.c.outcome).order_by(attempt.c.id))]
    assert outcomes.count("done") == 2
    assert len(outcomes) >= 3


@pytest.mark.fault(5, promise="P1")
def test_the_programs_of_a_killed_supervisord_end_and_up_starts_them_again(service, slack):
    service.run("up")
    pid = int((service.config.state_dir / "run" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    service.until(lambda: service_pids(service.config) == [], 60)
    service.run("up")
    service.run("demo", "--seed", "21")
    once(service, slack, 1)


def listening(pids):
    """Return the addresses, as the kernel writes them, on which any of these processes listens."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            sockets |= {str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return [fields[1].split(":")[0] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets]


@pytest.mark.fault(6, promise="P1")
def test_a_canary_is_searched_and_not_announced_and_a_killed_web_program_is_restarted(service, slack):
    service.run("up", SENTINEL__INJECTIONS__CANARY_S="600")
    (canary,) = service.until(lambda: service.rows(select(injection).where(injection.c.recovered.is_not(None))))
    assert (canary.kind, canary.recovered) == ("canary", True)
    assert service.rows(select(cadence.c.id)) == service.rows(select(candidate.c.id)) == slack.messages == []
    assert len(open_ports := listening(service_pids(service.config))) >= 3  # scheduler, worker, web
    assert set(open_ports) == {"0100007F"}
    before = program_states(service.config)["web"]["pid"]
    assert int(Path(f"/proc/{before}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") < 150e6
    os.kill(before, signal.SIGKILL)
    service.until(lambda: program_states(service.config)["web"]["pid"] not in (0, before))

    def ready():
        facts = service.rows(select(heartbeat.c.facts).where(heartbeat.c.name.like("web%"), heartbeat.c.pid != before))
        with suppress(OSError, IndexError), urllib.request.urlopen(f"{facts[0].facts['web']}/readyz") as reply:
            return reply.status

    assert service.until(ready, 60) == 200
    status = service.run("status").stdout
    assert "canary 1 of 1 recovered" in status
    assert "0 seen" in status
