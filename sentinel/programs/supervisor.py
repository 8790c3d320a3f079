"""Start and stop the programs of the service with supervisord, over a socket that only its owner can open.

Each process of a service has `SENTINEL_SERVICE` in its environment, so that `down` can find and end all of them.
"""

import hashlib
import http.client
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentinel.config import Config
from sentinel.errors import SentinelError
from sentinel.programs.program import PROGRAMS

LOG = logging.getLogger(__name__)
MARK = "SENTINEL_SERVICE"
READY_S = 180.0
FAILING_S = 30.0
"""A program that still fails to start after this time, seconds, needs a person."""
STOP_S = 40.0
LONGEST_SOCKET = 100
"""Characters of a socket path: the limit of the kernel less a few that supervisord appends."""
CONF = """\
[supervisord]
nodaemon={nodaemon}
pidfile={run}/supervisord.pid
logfile={log}/supervisord.log
childlogdir={log}
environment={environment}
directory={cwd}

[unix_http_server]
file={socket}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:{name}]
command={python} -m sentinel.programs.program {name}
autorestart=true
startsecs=3
startretries=1000000
stopwaitsecs=15
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={stdout}
stdout_logfile_maxbytes={bytes}
stdout_logfile_backups=5
"""


def socket_path(config: Config) -> Path:
    """Return the socket of supervisord: in the state directory, or in the temporary folder if that path is too long."""
    path = config.state_dir / "run" / "supervisor.sock"
    if len(str(path)) <= LONGEST_SOCKET:
        return path
    return Path(tempfile.gettempdir()) / f"sentinel-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.sock"


def write_conf(config: Config, config_file: Path | None, *, foreground: bool) -> Path:
    """Write the configuration of supervisord; return its path. In the foreground, logs go to standard output."""
    run, log = config.state_dir / "run", config.state_dir / "log"
    for folder in (run, log):
        folder.mkdir(parents=True, exist_ok=True)
    marks = {MARK: str(config.state_dir), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    if config_file:
        marks["SENTINEL_CONFIG"] = str(config_file)
    head = {
        "nodaemon": str(foreground).lower(),
        "run": run,
        "log": log,
        "environment": ",".join(f'{name}="{value}"' for name, value in marks.items()),
        "cwd": Path.cwd(),
        "socket": socket_path(config),
    }
    text = CONF.format_map({name: _escaped(value) for name, value in head.items()})
    for name in PROGRAMS:
        stdout = "/dev/fd/1" if foreground else log / f"{name}.log"
        size = "0" if foreground else "20MB"
        text += PROGRAM.format(name=name, python=_escaped(sys.executable), stdout=_escaped(stdout), bytes=size)
    path = run / "supervisord.conf"
    path.write_text(text)
    return path


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")


def program_states(config: Config) -> dict[str, dict[str, Any]]:
    """Return the state of each program as supervisord reports it; empty if supervisord does not run."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(serverurl=f"unix://{socket_path(config)}")
    try:
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        processes: Any = proxy.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return {}
    finally:
        transport.close()
    return {process["name"]: process for process in processes}


def service_pids(config: Config) -> list[int]:
    """Return the ids of all live processes of this service, including supervisord."""
    mark = f"{MARK}={config.state_dir}".encode()
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (
                mark in (entry / "environ").read_bytes().split(b"\0")
                and b"\nState:\tZ" not in (entry / "status").read_bytes()
            ):
                pids.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in pids if pid != os.getpid()]


def start(config: Config, config_file: Path | None, *, foreground: bool) -> None:
    """Start supervisord: in the foreground it replaces this process."""
    command = [
        sys.executable,
        "-m",
        "supervisor.supervisord",
        "-c",
        str(write_conf(config, config_file, foreground=foreground)),
    ]
    environment = os.environ | {MARK: str(config.state_dir)}
    if foreground:
        os.execve(command[0], [*command, "-n"], environment)  # noqa: S606
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if started.returncode:
        raise SentinelError(f"supervisord did not start: {(started.stderr or started.stdout).strip()}")


def wait_ready(config: Config, ready: Callable[[], str], tell: Callable[[str], object]) -> None:
    """Wait until the service is ready.

    Args:
        config: of the service.
        ready: returns what the service waits for; empty when it is ready.
        tell: prints a line when that changes.

    Raises:
        SentinelError: a program keeps failing, or the wait took too long; with the last lines of each log.
    """
    began, last = time.monotonic(), ""
    while missing := ready():
        if missing != last:
            tell(missing)
            last = missing
        if time.monotonic() - began > (FAILING_S if "BACKOFF" in missing else READY_S):
            tails = [(config.state_dir / "log" / f"{name}.log") for name in PROGRAMS]
            ends = [
                line for path in tails if path.exists() for line in path.read_text(errors="replace").splitlines()[-3:]
            ]
            raise SentinelError("\n".join((f"not ready: {missing}", *ends, f"logs: {config.state_dir / 'log'}")))
        time.sleep(0.5)


def stop(config: Config) -> list[int]:
    """Stop supervisord and its programs; return the ids of processes that had to be killed."""
    pids = service_pids(config)
    pid_file = config.state_dir / "run" / "supervisord.pid"
    head = int(pid_file.read_text()) if pid_file.exists() else 0
    for pid in [head] if head in pids else pids:
        _signal(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while (alive := service_pids(config)) and time.monotonic() < end:
        time.sleep(0.2)
    for pid in alive:
        _signal(pid, signal.SIGKILL)
    return alive


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        LOG.debug("process %d has ended", pid)
