"""`sentinel.py` sets up small checkouts whose `.venv` has stand-ins for Python and pip."""

import fcntl
import importlib.util
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sentinel.commands.testing import CHECKS, run_tests

ROOT = Path(__file__).resolve().parent.parent
CLI = """
import argparse
def parser():
    whole = argparse.ArgumentParser(prog="sentinel.py")
    whole.add_argument("--version", action="version", version="0.1.0")
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser("up").add_argument("--docker", action="store_true")
    commands.add_parser("test").add_argument("rest", nargs="*")
    commands.add_parser("train")
    commands.add_parser("search").add_argument("--encoder-path")
    return whole
def main(arguments):
    print("here", *arguments)
"""
LOCKS = {"service": "numpy==2.4.6", "train": "keras==3.15.1", "gpu": "cuda==12.9", "test": "pytest==9.2.0"}
STUB = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/../calls"
case "$*" in *"pip install"*) echo "$PIP_SAYS"
  until [ -z "$PIP_WAITS_FOR" ] || [ -e "$PIP_WAITS_FOR" ]; do sleep 0.1; done
  exit "${PIP_EXITS:-0}";; esac
echo "PYTHONPATH=$PYTHONPATH"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with a finished empty environment, in which only packages are missing."""
    root = tmp_path / "checkout"
    (root / "sentinel").mkdir(parents=True)
    shutil.copy(ROOT / "sentinel.py", root)
    (root / "sentinel/__init__.py").touch()
    (root / "sentinel/cli.py").write_text(CLI)
    (root / "requirements").mkdir()
    for step, package in LOCKS.items():
        (root / f"requirements/{step}.txt").write_text(f"{package} --hash=sha256:00\n")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").write_text(STUB)
    (root / ".venv/bin/python").chmod(0o755)
    (root / ".venv/setup.lock").touch()
    (root / ".venv/venv.done").write_text(f"{root} {root}/.venv/bin/python")
    return root


def start(root: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", str(root / "sentinel.py"), *arguments]
    everything = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=cwd, env=everything, capture_output=True, text=True, check=False, timeout=60)


def calls(root: Path) -> list[str]:
    return (root / ".venv/calls").read_text().splitlines()


def bootstrap(root: Path = ROOT) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", root / "sentinel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed(root: Path) -> list[str]:
    """Return the steps whose packages pip installed, in order."""
    return [Path(call.split()[-1]).stem for call in calls(root) if "pip install" in call]


def test_the_first_start_installs_locked_files_and_passes_its_arguments_on(checkout: Path) -> None:
    assert start(checkout, "up").returncode == 0
    install, checked, handed_over = calls(checkout)
    assert install.endswith(
        f"--no-deps --require-hashes --no-compile --requirement {checkout}/requirements/service.txt"
    )
    assert "import sentinel.workers.preload" in checked
    assert handed_over == "-P -m sentinel.cli up"


def test_the_next_start_installs_nothing(checkout: Path) -> None:
    start(checkout, "up")
    assert start(checkout, "up").stderr == ""
    assert len(calls(checkout)) == 4


@pytest.mark.parametrize(
    ("arguments", "step"),
    [(("test", "-x"), "test"), (("train",), "train"), (("search", "--encoder-path", "a.keras"), "train")],
)
def test_a_command_that_needs_more_installs_it_the_first_time_and_says_so(
    checkout: Path, arguments: tuple[str, ...], step: str
) -> None:
    for other in ("up", "search", "search --encoder-path a.onnx"):
        start(checkout, *other.split())
    assert installed(checkout) == ["service"]
    assert f"installing the {step} packages (" in start(checkout, *arguments).stderr
    assert start(checkout, *arguments).stderr == ""
    assert installed(checkout) == ["service", step]
    assert calls(checkout)[-1] == f"-P -m sentinel.cli {' '.join(arguments)}"


def test_extras_of_the_environment_are_installed_and_unknown_ones_are_named(checkout: Path) -> None:
    start(checkout, "up", SENTINEL_EXTRAS="gpu")
    assert installed(checkout) == ["service", "gpu"]
    refused = start(checkout, "up", SENTINEL_EXTRAS="gpus")
    assert (refused.returncode, "some of gpu, service, test, train, found 'gpus'" in refused.stderr) == (3, True)


def test_a_changed_lock_is_installed(checkout: Path) -> None:
    start(checkout, "up")
    (checkout / "requirements/service.txt").write_text("numpy==2.4.7\n")
    assert "installing the service packages" in start(checkout, "up").stderr


@pytest.mark.parametrize("has_venv", [True, False])
def test_where_another_installer_brings_the_packages_nothing_is_installed(checkout: Path, has_venv: bool) -> None:
    (checkout / "sentinel/cli.py").write_text(f"{CLI}\nif __name__ == '__main__': print('here')\n")
    if not has_venv:
        shutil.rmtree(checkout / ".venv")
    answer = start(checkout, "up", SENTINEL_NO_SETUP="1")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == (f"PYTHONPATH={checkout}\n" if has_venv else "here\n")


def test_it_starts_through_a_link_and_from_another_folder(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sentinel").mkdir(parents=True)
    (elsewhere / "sentinel.py").symlink_to(checkout / "sentinel.py")
    assert start(elsewhere, "up", cwd=elsewhere).returncode == 0
    assert calls(checkout)[-1] == "-P -m sentinel.cli up"


def test_the_pythonpath_of_the_shell_is_ignored(checkout: Path, tmp_path: Path) -> None:
    assert start(checkout, "up", PYTHONPATH=str(tmp_path)).stdout == "PYTHONPATH=\n"


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("up", "--help"), ("--version",)])
def test_help_and_version_are_printed_before_anything_is_installed(checkout: Path, arguments: tuple[str, ...]) -> None:
    answer = start(checkout, *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (checkout / ".venv/calls").exists()


def test_a_container_command_installs_nothing_on_the_host(checkout: Path) -> None:
    assert start(checkout, "up", "--docker").stdout == "here up --docker\n"
    assert not (checkout / ".venv/calls").exists()


def test_a_misspelled_command_is_refused_before_anything_is_installed(checkout: Path) -> None:
    assert start(checkout, "upp").returncode == 2
    assert not (checkout / ".venv/calls").exists()


def test_help_imports_only_the_standard_library_and_this_project() -> None:
    source = (
        "import runpy, sys\nsys.argv = ['sentinel.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
        "ours = {'__main__', 'sentinel', 'aetherscan', 'sentinel_stub'}\n"
        "tops = {name.partition('.')[0] for name in sys.modules} - ours\n"
        "sys.exit(str(tops - sys.stdlib_module_names) if tops - sys.stdlib_module_names else 0)"
    )
    bare = subprocess.run([sys.executable, "-I", "-S", "-c", source], cwd=ROOT, capture_output=True, check=False)
    assert (bare.returncode, bare.stderr) == (0, b"")
    assert bare.stdout


def test_an_old_python_prints_which_versions_are_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 6, 8))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "sentinel.py"))
    printed = capsys.readouterr().err
    assert end.value.code == 3
    assert "needs 3.11 to 3.13" in printed
    assert "this is 3.6.8" in printed


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no disk: "),
        ("WARNING: Retrying after connection broken by 'NewConnectionError()'\nERROR: No match", "no network: "),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "altered packages: "),
        ("ERROR: Cannot install numpy==1 and numpy==2", "set-up failed: ERROR: Cannot install numpy"),
        ("", "set-up failed: no output"),
    ],
)
def test_a_failing_pip_gives_one_line_and_the_next_start_continues(checkout: Path, output: str, line: str) -> None:
    failed = start(checkout, "up", PIP_SAYS=output, PIP_EXITS="1")
    assert failed.returncode == 3
    assert [text.startswith(f"sentinel: {line}") for text in failed.stderr.splitlines()] == [False, True]
    assert start(checkout, "up").returncode == 0


def test_a_full_disk_is_reported_before_anything_is_created(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bootstrap(checkout)
    module.stamp("venv").unlink()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000_000))
    with pytest.raises(module.SetupError, match=r"no disk: .*about 1.6 GB, 1.2 GB are free"):
        module.set_up([])


def test_a_python_without_venv_prints_what_to_install(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bootstrap(checkout)
    module.stamp("venv").unlink()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    with pytest.raises(module.SetupError, match=r"apt install python3\.1[123]-venv"):
        module.set_up([])


def test_a_read_only_folder_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    module = bootstrap(checkout)
    monkeypatch.setattr(module.Path, "mkdir", refuse)
    with pytest.raises(module.SetupError, match=f"cannot write in {checkout}"):
        module.set_up([])


def test_an_environment_made_by_someone_else_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv/setup.lock").unlink()
    (checkout / ".venv/venv.done").unlink()
    refused = start(checkout, "up")
    assert (refused.returncode, "move it away" in refused.stderr) == (3, True)
    assert (checkout / ".venv/bin/python").exists()


def test_a_half_made_environment_is_made_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bootstrap(checkout)
    module.stamp("venv").unlink()
    (checkout / ".venv/lib/python3.11/site-packages/half").mkdir(parents=True)

    def make(title: str, command: list[str], _: int) -> None:
        if title.startswith("making"):
            assert [path.name for path in module.VENV.iterdir()] == ["setup.lock"]
            (module.VENV / "lib/python3.11/site-packages").mkdir(parents=True)

    monkeypatch.setattr(module, "run_step", make)
    module.set_up([])
    assert (checkout / ".venv/lib/python3.11/site-packages/sentinel.pth").read_text() == f"{checkout}\n"
    assert module.is_done("service")


def test_a_package_cut_off_by_a_kill_is_installed_again(checkout: Path) -> None:
    half, whole = (checkout / f".venv/lib/python3.11/site-packages/{name}.dist-info" for name in ("half", "whole"))
    for record in (half, whole):
        record.mkdir(parents=True)
    (whole / "INSTALLER").touch()
    start(checkout, "up")
    assert (half.exists(), whole.exists()) == (False, True)


def test_a_start_waits_for_the_pip_of_a_killed_start_and_continues_its_work(checkout: Path) -> None:
    command, go_on = [sys.executable, "-S", str(checkout / "sentinel.py"), "up"], checkout / "go_on"
    environment = {"PATH": os.environ["PATH"], "PIP_WAITS_FOR": str(go_on)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
        while not (checkout / ".venv/calls").exists():
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    with (checkout / ".venv/setup.lock").open() as guard, pytest.raises(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # pip lives on and holds it
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as second:
        assert "waiting for it" in second.stderr.readline()
        go_on.touch()
        second.communicate(timeout=60)
    assert second.returncode == 0
    assert installed(checkout) == ["service", "service"]
    assert calls(checkout)[-1].endswith(" up")


def test_every_check_runs_although_one_fails_and_pytest_runs_last(capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[str] = []

    def call(command: Sequence[str]) -> int:
        commands.append(" ".join(command))
        return int(commands[-1].endswith("mypy"))

    assert run_tests(["-k", "cadence"], call) == 1
    assert len(commands) == len(CHECKS) + 1
    assert commands[-1].endswith("pytest -k cadence")
    assert capsys.readouterr().out.endswith("-m mypy\n")
    assert run_tests([], lambda _: 0) == 0
    assert run_tests([], lambda command: 5 if "pytest" in command else 0) == 5


@pytest.mark.parametrize(
    ("arguments", "options", "checks"),
    [
        ([], "-n 2 --dist worksteal", True),
        (["--faults"], "-n 2 --dist worksteal --faults", False),
        (["--explore"], "-n 2 --dist worksteal --hypothesis-profile=explore -m hypothesis", False),
        (["--slowest"], "-n 2 --dist worksteal --durations=10", False),
        (["--container"], "-n 2 --dist worksteal --container -x -s -n 0 tests/container", False),
        (["--faults", "-k", "slack"], "--faults -k slack", False),
    ],
)
def test_the_whole_suite_runs_in_two_processes_and_a_selection_in_one(
    arguments: list[str], options: str, checks: bool
) -> None:
    commands: list[str] = []
    run_tests(arguments, lambda command: commands.append(" ".join(command)) or 0)
    assert commands[-1].endswith(f"-m pytest {options}".rstrip())
    assert len(commands) == 1 + len(CHECKS) * checks
