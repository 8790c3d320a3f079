"""A service is known by its processes: links, lost sockets and empty files of process ids do not matter."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from sentinel import cli
from sentinel.config import ROOT, Config, load_config
from sentinel.errors import BusyError, SentinelError
from sentinel.monitor import status
from sentinel.programs import supervisor
from sentinel.programs.program import only_copy

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@contextmanager
def process(state_dir, *arguments, before=(), **environment):
    """Run a process that is marked as one of the service in `state_dir`."""
    marked = os.environ | {supervisor.MARK: str(state_dir)} | environment
    with subprocess.Popen([*before, *SLEEP, *arguments], env=marked) as started:
        time.sleep(0.3)
        yield started
        started.kill()


@pytest.fixture
def config(tmp_path):
    (tmp_path / "var" / "run").mkdir(parents=True)
    return Config(state_dir=tmp_path / "var")


@pytest.mark.fault(49, promise="P5")
def test_down_through_a_link_ends_the_processes_of_the_service(config, tmp_path):
    (tmp_path / "link").symlink_to(config.state_dir)
    with process(config.state_dir) as started:
        assert supervisor.stop(Config(state_dir=tmp_path / "link")) == (1, [])
        assert started.wait(5) != 0
    assert supervisor.stop(config) == (0, [])


@pytest.mark.fault(48, promise="P5")
@pytest.mark.parametrize("text", ["", "junk\n", "999999\n"])
def test_down_needs_no_valid_file_of_the_process_id(config, text):
    (config.state_dir / "run" / "supervisord.pid").write_text(text)
    with process(config.state_dir):
        assert supervisor.stop(config)[0] == 1


@pytest.mark.fault(49, promise="P5")
def test_down_ends_a_service_whose_state_directory_was_moved(config, tmp_path):
    with process(config.state_dir):
        config.state_dir.rename(tmp_path / "moved")
        assert supervisor.stop(config)[0] == 1


@pytest.mark.fault(50, promise="P5")
def test_down_leaves_services_in_other_folders_alone(config, tmp_path):
    for name in ("var2", "var/run"):
        (tmp_path / name).mkdir(exist_ok=True)
        with process(tmp_path / name) as started:
            assert supervisor.stop(config) == (0, [])
            assert started.poll() is None


@pytest.mark.fault(50, promise="P5")
def test_down_leaves_a_container_with_the_same_path_alone(config):
    mount = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(config.state_dir))
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    with process(config.state_dir, before=mount) as started:
        assert supervisor.service_pids(config) == []
        assert supervisor.stop(config) == (0, [])
        assert started.poll() is None


@pytest.mark.fault(50, promise="P5")
def test_down_reports_a_program_that_is_left_and_that_it_cannot_see(config):
    with (
        only_copy(config.state_dir / "run" / "watcher.lock"),
        pytest.raises(SentinelError, match="not stopped: watcher runs"),
    ):
        supervisor.stop(config)


@pytest.mark.fault(48, promise="P5")
def test_no_second_supervisord_is_started_beside_one_that_lost_its_socket(config, monkeypatch):
    monkeypatch.setattr(supervisor, "ANSWER_S", 0.3)
    with process(config.state_dir, "supervisor.supervisord", SENTINEL_RUN="r1"):
        assert supervisor.current_run(config) == "r1"
        seen = status.read_status(config, lambda: status.quick_store(config, create=True))
        assert re.match(
            r"critical: supervisord, process \d+, runs and does not answer .*restart", status.lines(seen)[0]
        )
        with pytest.raises(BusyError, match=r"runs and does not answer .*restart"):
            supervisor.start(config, None, foreground=False)


@pytest.mark.fault(48, promise="P5")
def test_a_supervisord_that_hangs_is_not_waited_for(config, monkeypatch):
    monkeypatch.setattr(supervisor, "ANSWER_S", 0.3)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(supervisor.socket_path(config)))
        silent.listen()
        assert supervisor.program_states(config) == {}


@pytest.mark.fault(49, promise="P5")
def test_a_service_of_the_same_configuration_in_another_state_directory_is_named(config, tmp_path, monkeypatch):
    monkeypatch.delenv("SENTINEL__STATE_DIR", raising=False)
    file, old = tmp_path / "config.yaml", tmp_path / "old"
    old.mkdir()
    with process(old, SENTINEL_CONFIG=str(file)):
        with pytest.raises(BusyError, match=rf"state_dir {old}; found state_dir .*SENTINEL__STATE_DIR={old} "):
            supervisor.check_state_dir(config, file)
        supervisor.check_state_dir(config, tmp_path / "other.yaml")
    supervisor.check_state_dir(config, file)


@pytest.mark.fault(49, promise="P5")
def test_the_state_directory_is_resolved_to_its_real_path(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "config.yaml").write_text("state_dir: link\n")
    assert load_config(tmp_path / "config.yaml").state_dir == tmp_path / "real"


@pytest.mark.parametrize("name", ['50% "a" ;b', "%(here)s 'x", "a #b %(ENV_HOME)s", "long" * 40])
def test_supervisord_runs_in_a_state_directory_with_any_characters(tmp_path, monkeypatch, name):
    monkeypatch.setattr(supervisor, "PROGRAMS", {"web": "web.server"})
    config = Config(state_dir=tmp_path / name)
    try:
        supervisor.start(config, tmp_path / "no.yaml", foreground=False)
        end = time.monotonic() + 20
        while "web" not in supervisor.program_states(config):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert len(supervisor.current_run(config)) == 12
    finally:
        supervisor.stop(config)
    assert (config.state_dir / "log" / "web.log").exists()
    assert supervisor.service_pids(config) == []


@pytest.mark.parametrize("kind", ["socket", "pipe", "file", "terminal"])
def test_the_log_in_the_foreground_reaches_whatever_standard_output_is(kind, tmp_path):
    code = "from sentinel.programs import supervisor as s; s.pipe_stdout(); open('/dev/fd/1', 'w').write('line')"
    if kind == "socket":
        here, there = (end.detach() for end in socket.socketpair())
    elif kind == "file":
        here, there = (os.open(tmp_path / "log", flags) for flags in (os.O_RDONLY | os.O_CREAT, os.O_WRONLY))
        (tmp_path / "log").chmod(0)  # as another user sees it, it can be opened no more
    else:
        here, there = os.pipe() if kind == "pipe" else os.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=there, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 10
    while not (read := os.read(here, 100)):  # of a file that is still empty
        assert time.monotonic() < end
    assert read == b"line"
    os.close(here)
    os.close(there)


@pytest.mark.parametrize("fails", [False, True])
def test_systemd_is_told_when_the_service_is_ready_or_does_not_become_ready(tmp_path, fails):
    ready = "(_ for _ in ()).throw(s.SentinelError('not ready: no release'))" if fails else "''"
    code = (
        "import time; from sentinel.programs import supervisor as s\n"
        f"s.wait_ready = lambda config, ready, tell: (tell('waiting for cluster'), ready())\n"
        f"s.notify_when_ready(None, lambda: lambda: {ready})\n"
        "time.sleep(60)"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen([sys.executable, "-c", code], env=environment) as started:
            told = [systemd.recv(1000).decode() for _ in range(2)]
            if fails:
                assert started.wait(20) == -signal.SIGTERM
            assert fails or started.poll() is None
            started.kill()
        assert told[0] == "STATUS=waiting for cluster"
        assert told[1] == ("STATUS=not ready: no release" if fails else "READY=1\nSTATUS=searching")


@pytest.mark.fault(51, promise="P5")
def test_heartbeats_of_an_earlier_start_do_not_make_a_service_ready(store, config, monkeypatch):
    names = ("watcher", "cluster")
    monkeypatch.setattr(status, "program_states", lambda _: {name: {"statename": "RUNNING"} for name in names})
    monkeypatch.setattr(status, "current_run", lambda _: "new")
    for run, reason in (("old", "waiting for watcher, cluster"), ("new", "")):
        for name in (*names, "worker-0"):
            store.record_heartbeat(f"{name}@renamed", 10, pid=1, host="renamed", run=run)
        assert status.not_ready(config, store) == reason


@pytest.mark.fault(50, promise="P5")
def test_a_service_of_another_container_on_the_same_folder_is_named_and_not_waited_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text("state_dir: var\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setattr("aetherscan.detector.release.read_release", lambda _: None)
    monkeypatch.setattr(supervisor, "program_states", lambda _: {"web": {}})  # through the socket in the folder
    for arguments in (["up"], ["up", "--foreground"]):
        assert cli.main(arguments) == 1
        assert f"the service in {tmp_path}/var runs as another user or in another container" in capsys.readouterr().err


@pytest.mark.fault(51, promise="P5")
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("running", [False, True])
def test_a_failed_up_stops_what_it_started_and_nothing_else(tmp_path, monkeypatch, running, ended):
    (tmp_path / "config.yaml").write_text("state_dir: var\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setattr(cli, "_active_release", lambda _: None)
    monkeypatch.setattr("aetherscan.detector.release.read_release", lambda _: None)
    monkeypatch.setattr(supervisor, "program_states", lambda _: {"web": {}} if running else {})
    monkeypatch.setattr(supervisor, "current_run", lambda _: "r1")
    monkeypatch.setattr(supervisor, "start", lambda *_, **__: None)

    def fail(*_):
        if ended:
            os.kill(os.getpid(), signal.SIGTERM)
        raise SentinelError("not ready: starting cluster BACKOFF")

    stopped = []
    monkeypatch.setattr(supervisor, "wait_ready", fail)
    monkeypatch.setattr(supervisor, "stop", stopped.append)
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ended:
            with pytest.raises(SystemExit, match="143"):
                cli.main(["up"])
        else:
            assert cli.main(["up"]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(stopped) == (0 if running else 1)


@pytest.mark.fault(51, promise="P5")
def test_up_gives_up_when_a_program_ends_again_and_again(config, monkeypatch):
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: None)
    states = iter(20 * ["waiting for cluster", "waiting for cluster", "starting cluster EXITED"])
    with pytest.raises(SentinelError, match="not ready: starting cluster EXITED"):
        supervisor.wait_ready(config, lambda: next(states), lambda _: None)
    assert len(list(states)) == 60 - 9
