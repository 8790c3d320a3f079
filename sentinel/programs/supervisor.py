"""Start and stop the programs of the service with supervisord, over a socket that only its owner can open.

A service is known by its processes. Each has the real path of the state directory (`SENTINEL_SERVICE`) and the id of
its start (`SENTINEL_RUN`) in its environment, so `up`, `status` and `down` need no socket and no file of process ids.
"""

import hashlib
import http.client
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sentinel import COMMAND
from sentinel.config import Config
from sentinel.errors import BusyError, SentinelError
from sentinel.programs.program import PROGRAMS, RUN, die_with_parent, is_held, only_copy

LOG = logging.getLogger(__name__)
MARK = "SENTINEL_SERVICE"
READY_S = 900.0
"""A program that runs and is not ready after this time hangs, seconds: on a busy machine a worker takes minutes."""
TELL_S = 60.0
FAILING_S = 30.0
"""A program that still fails to start after this time, seconds, needs a person."""
MOST_ENDS = 3
"""Times that programs may end after they ran, while the service starts."""
STOP_S = 40.0
ANSWER_S = 5.0
"""Longest time until a supervisord replies, and until a killed process has ended, seconds."""
CHUNK = 2**16
LONGEST_SOCKET = 100
"""Characters of a socket path: the limit of the kernel less a few that supervisord appends."""
CONF = """\
[supervisord]
nodaemon={nodaemon}
pidfile=%(here)s/supervisord.pid
logfile=%(here)s/../log/supervisord.log
childlogdir=%(here)s/../log

[unix_http_server]
file={socket}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
"""Paths begin with `%(here)s`, the folder of this file, because supervisord would parse `%` and `;` in a whole path. It
expands the values of programs twice, so they have `%%(here)s`."""
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
    path = config.state_dir.resolve() / "run" / "supervisor.sock"
    if len(str(path)) <= LONGEST_SOCKET:
        return path
    return Path(tempfile.gettempdir()) / f"sentinel-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.sock"


def write_conf(config: Config, *, foreground: bool) -> Path:
    """Write the configuration of supervisord; return its path. In the foreground, logs go to standard output."""
    run, log = config.state_dir.resolve() / "run", config.state_dir.resolve() / "log"
    for folder in (run, log):
        folder.mkdir(parents=True, exist_ok=True)
    path = socket_path(config)
    address = f"%(here)s/{path.name}" if path.parent == run else _escaped(path)
    text = CONF.format(nodaemon=str(foreground).lower(), socket=address)
    for name in PROGRAMS:
        stdout = "/dev/fd/1" if foreground else f"%%(here)s/../log/{name}.log"
        size = "0" if foreground else "20MB"
        text += PROGRAM.format(name=name, python=_escaped(shlex.quote(sys.executable)), stdout=stdout, bytes=size)
    path = run / "supervisord.conf"
    path.write_text(text)
    return path


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")


class SupervisordTransport(xmlrpc.client.Transport):
    """Transport of requests over the socket of supervisord. That of the package `supervisor` waits without a limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return a connection to the socket; a reply may take `ANSWER_S`."""
        connection = http.client.HTTPConnection(str(host))
        self._connection = host, connection  # which `close` closes
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ANSWER_S)
        connection.sock.connect(str(self.path))
        return connection


def program_states(config: Config) -> dict[str, dict[str, Any]]:
    """Return the state of each program as supervisord reports it; empty if supervisord does not reply in time."""
    with xmlrpc.client.ServerProxy("http://localhost", SupervisordTransport(socket_path(config))) as proxy:
        try:
            processes: Any = proxy.supervisor.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return {}
    return {process["name"]: process for process in processes}


def _processes() -> Iterator[tuple[int, dict[str, str]]]:
    """Return id and environment of each live process of any service."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = os.fsdecode((entry / "environ").read_bytes()).split("\0")
            environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
            if MARK in environment and b"\nState:\tZ" not in (entry / "status").read_bytes():
                yield int(entry.name), environment
        except OSError:
            continue


def _is_own(config: Config, pid: int, state_dir: str) -> bool:
    """Return whether a process with its state in `state_dir` belongs to this service.

    The folder is looked up as that process sees it: in another container, the same path is another folder.
    """
    try:
        return Path(f"/proc/{pid}/root{state_dir}").samefile(config.state_dir)
    except FileNotFoundError:  # the folder was removed or moved
        same_mounts = Path(f"/proc/{pid}/ns/mnt").samefile("/proc/self/ns/mnt")
        return same_mounts and state_dir == str(config.state_dir.resolve())
    except OSError:
        return False


def _own(config: Config) -> dict[int, dict[str, str]]:
    return {
        pid: environment
        for pid, environment in _processes()
        if pid != os.getpid() and _is_own(config, pid, environment[MARK])
    }


def service_pids(config: Config) -> list[int]:
    """Return the ids of all live processes of this service, including supervisord."""
    return list(_own(config))


def _heads(config: Config) -> dict[int, str]:
    """Return process id and run of each supervisord of this service."""
    heads = {}
    for pid, environment in _own(config).items():
        try:
            if b"supervisor.supervisord" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                heads[pid] = environment.get(RUN, "")
        except OSError:
            continue
    return heads


def current_run(config: Config) -> str | None:
    """Return the id of the start of the running service; None if no supervisord runs."""
    return next(iter(_heads(config).values()), None)


def silent_supervisord(config: Config) -> str:
    """Return a line if a supervisord of this service runs and does not answer, else an empty string."""
    if program_states(config) or not (heads := _heads(config)):
        return ""
    return f"supervisord, process {next(iter(heads))}, runs and does not answer at {socket_path(config)}"


def check_state_dir(config: Config, config_file: Path | None) -> None:
    """Check that no service with the same configuration file runs in another state directory.

    Raises:
        BusyError: one does: `state_dir` was changed while the service ran.
    """
    named = "SENTINEL__STATE_DIR"
    if named in os.environ or config_file is None:
        return
    for pid, environment in _processes():
        started_with, folder = environment.get("SENTINEL_CONFIG"), environment[MARK]
        if started_with != str(config_file.resolve()) or named in environment or _is_own(config, pid, folder):
            continue
        if _is_own(config.model_copy(update={"state_dir": Path(folder)}), pid, folder):  # not of another container
            raise BusyError(
                f"process {pid} is of a service that was started with {config_file} and state_dir {folder}; found "
                f"state_dir {config.state_dir}. Stop it first: {named}={shlex.quote(folder)} {COMMAND} down"
            )


def start(config: Config, config_file: Path | None, *, foreground: bool) -> None:
    """Start supervisord: in the foreground it replaces this process.

    Raises:
        BusyError: a supervisord of this service runs and does not answer, or another process starts one.
        SentinelError: supervisord did not start.
    """
    (config.state_dir / "run").mkdir(parents=True, exist_ok=True)
    with only_copy(config.state_dir / "run" / "up.lock"):
        end = time.monotonic() + ANSWER_S
        while silent := silent_supervisord(config):
            if time.monotonic() > end:
                raise BusyError(f"{silent}: {COMMAND} restart")
            time.sleep(0.2)
        if _heads(config):
            return
        stop(config)  # programs whose supervisord was killed
        written = str(write_conf(config, foreground=foreground))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", written]
        environment = os.environ | {
            MARK: str(config.state_dir.resolve()),
            RUN: uuid.uuid4().hex[:12],
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        if config_file:
            environment["SENTINEL_CONFIG"] = str(config_file.resolve())
        if foreground:
            pipe_stdout()
            os.execve(command[0], [*command, "-n"], environment)  # noqa: S606
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if started.returncode:
        raise SentinelError(f"supervisord did not start: {(started.stderr or started.stdout).strip()}")


def notify_when_ready(config: Config, watch: Callable[[], Callable[[], str]]) -> None:
    """Let a process of its own tell systemd when the service is ready, if systemd waits for that.

    The process that calls this becomes supervisord, which cannot do it. If the service does not become ready, the start
    ends.

    Args:
        config: of the service.
        watch: returns a function that says what the service waits for; called in the new process, so that no connection
            to the store is shared.
    """
    address = os.environ.pop("NOTIFY_SOCKET", None)
    if not address or os.fork():
        return
    die_with_parent()
    parent = os.getppid()
    try:
        wait_ready(config, watch(), lambda line: _notify(address, f"STATUS={line}"))
        _notify(address, "READY=1\nSTATUS=searching")
    except SentinelError as error:
        _notify(address, f"STATUS={str(error).splitlines()[0]}")  # first, because this process ends with its parent
        os.kill(parent, signal.SIGTERM)
    finally:
        os._exit(0)


def _notify(address: str, state: str) -> None:
    """Send a line to systemd (sd_notify(3)); an address that begins with @ is abstract."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def pipe_stdout() -> None:
    """Replace standard output with a pipe, which a process of its own copies to the former standard output.

    Supervisord opens /dev/fd/1 by its path. The kernel refuses that for a socket and for a file of another user, and
    allows it for a pipe of this user.
    """
    sys.stdout.flush()
    reader, writer = os.pipe()
    if os.fork():
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(reader, 0)
    os.closerange(3, CHUNK)
    output: int | None = 1
    while chunk := os.read(0, CHUNK):
        while chunk and output is not None:
            try:
                chunk = chunk[os.write(output, chunk) :]
            except OSError:  # nobody reads the log: the service continues without
                output = None
    os._exit(0)


def wait_ready(config: Config, ready: Callable[[], str], tell: Callable[[str], object]) -> None:
    """Wait until the service is ready.

    Args:
        config: of the service.
        ready: returns what the service waits for; empty when it is ready.
        tell: prints a line when that changes, and every `TELL_S`.

    Raises:
        SentinelError: a program keeps failing, or the wait took too long; with the last lines of each log.
    """
    began = told = time.monotonic()
    last, ends_seen = "", 0
    while missing := ready():
        at = time.monotonic()
        if missing != last or at - told > TELL_S:
            ends_seen += last.startswith("waiting") and missing.startswith("starting")
            tell(missing if missing != last else f"{missing} ({at - began:.0f} s)")
            last, told = missing, at
        if ends_seen >= MOST_ENDS or at - began > (FAILING_S if "BACKOFF" in missing else READY_S):
            tails = [(config.state_dir / "log" / f"{name}.log") for name in PROGRAMS]
            ends = [
                line for path in tails if path.exists() for line in path.read_text(errors="replace").splitlines()[-3:]
            ]
            raise SentinelError("\n".join((f"not ready: {missing}", *ends, f"logs: {config.state_dir / 'log'}")))
        time.sleep(0.5)


def stop(config: Config) -> tuple[int, list[int]]:
    """Stop supervisord and its programs; return the number of processes, and the ids of those that had to be killed.

    Raises:
        SentinelError: a process of the service is left.
    """
    pids = service_pids(config)
    for pid in _heads(config) or pids:
        _signal(pid, signal.SIGTERM)
    alive = _wait_ended(config, STOP_S)
    for pid in alive:
        _signal(pid, signal.SIGKILL)
    if left := _wait_ended(config, ANSWER_S):
        raise SentinelError(f"not stopped: processes {left} do not end")
    for name in PROGRAMS:
        if is_held(config.state_dir / "run" / f"{name}.lock"):
            raise SentinelError(f"not stopped: {name} runs as another user or in another container")
    return len(pids), alive


def _wait_ended(config: Config, seconds: float) -> list[int]:
    """Wait for the processes of the service to end; return the ids of those that have not."""
    end = time.monotonic() + seconds
    while (alive := service_pids(config)) and time.monotonic() < end:
        time.sleep(0.2)
    return alive


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        LOG.debug("process %d has ended", pid)
