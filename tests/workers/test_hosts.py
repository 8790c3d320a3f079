"""Several hosts, simulated by names and addresses on this machine, share a PostgreSQL server and a folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import Service, once, searching
from sqlalchemy import select

from sentinel.config import ROOT
from sentinel.programs.supervisor import service_pids
from sentinel.store.schema import attempt, heartbeat

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]
LOCAL_WEB = ("--no-dashboard", "--dashboard-address=127.0.0.1:0")
TWO_HOSTS = ("127.0.0.2", "127.0.0.3")
NAMED = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


def end(*services):
    for service in services:
        service.run("down", check=False)
        assert service_pids(service.config) == []
        if service.store:
            service.store.engine.dispose()


@pytest.mark.fault(36, promise="P2")
@pytest.mark.fault(36, promise="P3")
def test_two_hosts_on_one_store_search_each_cadence_once_even_if_one_host_dies(tmp_path, slack, postgres):
    if subprocess.run([*NAMED, "a", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may give a process a host name of its own")
    shared = {"store": {"url": postgres.database()}, "picture_dir": str(tmp_path / "pictures")}
    (tmp_path / "incoming").mkdir()
    shared["watch"] = {"roots": [str(tmp_path / "incoming")], "scan_s": 1, "settle_s": 1}
    hosts = a, b = [Service(tmp_path / name, slack, prefix=(*NAMED, name), **shared) for name in "ab"]
    try:
        a.run("up", SENTINEL_FAILPOINT="mid-read:sleep=2")
        assert "the service on a uses the same store" in b.run("up", SENTINEL_FAILPOINT="mid-read:sleep=2").stdout
        third = Service(tmp_path / "third", slack, prefix=(*NAMED, "a"), **shared)
        refused = third.run("up", check=False)
        assert (refused.returncode, "expected one service a host" in refused.stderr) == (1, True)
        landed = [a.start("demo", "--seed", "61"), b.start("demo", "--seed", "62"), a.start("demo", "--seed", "63")]
        a.until(lambda: len({row.service for row in a.rows(select(attempt.c.service))}) == 2)
        a.until(lambda: searching(a))
        for pid in service_pids(b.config):
            os.kill(pid, signal.SIGKILL)
        for demo in landed:
            assert demo.wait(timeout=300) == 0, demo.stdout.read() + a.logs()
            demo.stdout.close()
        once(a, slack, 3)
        status = json.loads(a.run("status", "--json", check=False).stdout)
        assert {beat["host"] for beat in status["heartbeats"]} == {"a", "b"}
        assert "hosts      a, b share the store" in a.run("status", check=False).stdout
    finally:
        end(*hosts)
        postgres.drop_all()


def certificates(place):
    """Make an authority and the certificate of a host, as docs/observatory.md says; return the three files."""
    script = (ROOT / "docs" / "observatory.md").read_text().split("```sh tls\n")[1].split("```")[0]
    subprocess.run(
        ["sh", "-ec", script], cwd=place, env={"HOST": "sky1", **os.environ}, check=True, capture_output=True
    )
    return {"tls_ca": place / "ca.pem", "tls_cert": place / "sky1.pem", "tls_key": place / "sky1.key"}


class Started:
    """A program that is started again whenever it ends, as systemd does."""

    def __init__(self, service, *command, **environment):
        loop = f'while :; do "$@" >> {service.config.state_dir}/{command[0]}.out 2>&1; sleep 1; done'
        given = service.environment | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", **environment}
        dask = (sys.executable, "-m", "dask")
        self.loop = subprocess.Popen(["sh", "-c", loop, "sh", *dask, *command], env=given, start_new_session=True)

    def end(self):
        os.killpg(self.loop.pid, signal.SIGKILL)
        self.loop.wait()


def listening(hosts):
    """Yield every port that is open on one of these addresses."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        (host, port), state = line.split()[1].split(":"), line.split()[3]
        if state == "0A" and (named := socket.inet_ntoa(bytes.fromhex(host)[::-1])) in hosts:
            yield f"{named}:{int(port, 16)}"


def answer(port):
    """Return the reply of a port to a client without a certificate."""
    command = ("openssl", "s_client", "-connect", port, "-quiet")
    return subprocess.run(command, input="GET /", capture_output=True, text=True, check=False, timeout=60).stderr


@pytest.mark.fault(4, promise="P1")
def test_workers_on_two_hosts_with_tls_search_once_even_if_their_scheduler_dies(tmp_path, slack, postgres):
    files = certificates(tmp_path)
    with socket.socket() as free:
        free.bind((TWO_HOSTS[0], 0))
        address = f"tls://{TWO_HOSTS[0]}:{free.getsockname()[1]}"
    cluster = {"scheduler": address, **{name: str(path) for name, path in files.items()}}
    service = Service(tmp_path / "a", slack, cluster=cluster, store={"url": postgres.database()}, lease_s=60)
    (service.config.state_dir).mkdir()
    tls = [f"--{name.replace('_', '-')}{'-file' if name == 'tls_ca' else ''}={path}" for name, path in files.items()]
    slow = {"SENTINEL_FAILPOINT": "mid-read:sleep=3", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}

    def scheduler():
        where = ("--protocol=tls", f"--host={TWO_HOSTS[0]}", f"--port={address.rsplit(':', 1)[1]}", *LOCAL_WEB)
        return Started(service, "scheduler", *where, *tls, **slow)

    running = [scheduler()]
    try:
        for host in TWO_HOSTS:
            worker = (
                "worker",
                address,
                f"--host={host}",
                "--nthreads=1",
                "--preload=sentinel.workers.preload",
                *LOCAL_WEB,
            )
            running.append(Started(service, *worker, *tls, SENTINEL_WORKER="1", **slow))
        service.run("up")
        service.until(lambda: len(service.rows(select(heartbeat).where(heartbeat.c.name.like("worker%")))) >= 2)
        assert len(ports := list(listening(TWO_HOSTS))) >= 5  # a scheduler, two workers and their nannies
        assert [port for port in ports if "certificate required" not in answer(port)] == []
        landed = [service.start("demo", "--seed", seed) for seed in ("71", "72")]
        begun = select(attempt.c.id).where(attempt.c.worker.is_not(None), attempt.c.outcome.is_(None))
        service.until(lambda: service.rows(begun))
        running.pop(0).end()
        time.sleep(5)
        running.insert(0, scheduler())
        for demo in landed:
            assert demo.wait(timeout=300) == 0, demo.stdout.read() + service.logs()
            demo.stdout.close()
        once(service, slack, 2)
        asked = select(heartbeat.c.facts).where(heartbeat.c.name.like("worker%"))
        places = {row.facts["address"].split("//")[1].split(":")[0] for row in service.rows(asked)}
        assert places == set(TWO_HOSTS)
    finally:
        for program in running:
            program.end()
        end(service)
        postgres.drop_all()
