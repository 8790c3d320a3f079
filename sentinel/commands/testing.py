"""Run every check of the project: lint, format, types, import contracts, and the tests.

Each check is the tool itself with the settings of pyproject.toml, so a check run by hand gives the same verdict.
pytest runs last: its summary is the end of the log.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-P", "-m")
CHECKS = (
    (*PYTHON, "ruff", "check", "."),
    (*PYTHON, "ruff", "format", "--check", "."),
    (*PYTHON, "mypy"),
    (*PYTHON, "mypy", "sentinel.py"),  # a separate run: the file has the same name as the package
    (str(Path(sys.executable).with_name("lint-imports")),),
)
TWO_PROCESSES = ("-n", "2", "--dist", "worksteal")
"""For the whole suite. A selection runs in one process, where `--pdb` works and nothing else has to be imported."""
TEST_RUNS = {
    "--faults": ("--faults",),
    "--container": ("--container", "-x", "-s", "-n", "0", "tests/container"),
    "--explore": ("--hypothesis-profile=explore", "-m", "hypothesis"),
    "--slowest": ("--durations=10",),
}
"""Runs of the tests alone, without the other checks, and the options of pytest that each stands for."""


def in_checkout(command: Sequence[str]) -> int:
    """Print a command, run it at the top of the checkout and return its exit status."""
    print(f"$ {shlex.join(command)}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def run_tests(pytest_arguments: Sequence[str] = (), call: Callable[[Sequence[str]], int] = in_checkout) -> int:
    """Run every check and then pytest, whichever fail; return 0 only when all passed.

    Args:
        pytest_arguments: passed to pytest, for instance ``-k cadence``. ``--faults`` runs the fault matrix,
            ``--container`` the container in a real engine, ``--explore`` the property tests with new random examples,
            ``--slowest`` names the ten slowest tests.
        call: runs one command and returns its exit status.
    """
    checks = () if TEST_RUNS.keys() & set(pytest_arguments) else CHECKS
    failed = [check for check in checks if call(check) != 0]
    for check in failed:
        print(f"failed: {shlex.join(check)}", flush=True)
    processes = () if set(pytest_arguments) - TEST_RUNS.keys() else TWO_PROCESSES
    options = [option for argument in pytest_arguments for option in TEST_RUNS.get(argument, (argument,))]
    return call((*PYTHON, "pytest", *processes, *options)) or int(bool(failed))
