"""The whole suite, as continuous integration runs it: rules for the text, types, arrows between packages, behavior.

Each check is the tool itself with the settings of pyproject.toml, so that running one by hand gives the same verdict.
pytest comes last: what it prints at the end is what a reader of a long log looks for.
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
    (*PYTHON, "mypy", "sentinel.py"),  # apart: it has the name of a package
    (str(Path(sys.executable).with_name("lint-imports")),),
)
MATRIX = ("-n", "2", "--dist", "worksteal")
"""The fault matrix is about behavior alone, and spends most of its time waiting for what was killed to come back."""


def in_checkout(command: Sequence[str]) -> int:
    """Show a command, run it at the top of the checkout and return its exit status."""
    print(f"$ {shlex.join(command)}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def run_tests(pytest_arguments: Sequence[str] = (), call: Callable[[Sequence[str]], int] = in_checkout) -> int:
    """Run every check and then pytest, all of them whatever fails, and return 0 only when all passed.

    Args:
        pytest_arguments: handed to pytest as they are, for instance ``-k cadence``; ``--faults`` runs the fault matrix.
        call: runs one command and returns its exit status.
    """
    matrix = "--faults" in pytest_arguments
    checks, side_by_side = ((), MATRIX) if matrix else (CHECKS, ())
    failed = [check for check in checks if call(check) != 0]
    for check in failed:
        print(f"failed: {shlex.join(check)}", flush=True)
    return call((*PYTHON, "pytest", *side_by_side, *pytest_arguments)) or int(bool(failed))
