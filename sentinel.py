#!/usr/bin/env python3
"""Start Sentinel on a machine that has nothing but Python 3.11 to 3.13.

Every command of the service needs packages; this file needs none. It makes `.venv` beside itself, out of
`pyproject.toml` (which packages) and `requirements.lock` (which versions of them), and then becomes that interpreter
running `sentinel.cli`. What needs no packages (`--help`, `--version`, a misspelled command) is answered at once by the
Python at hand.

Setting up goes in steps: the environment, the packages to run, and for `test` the packages to test. A finished step
leaves a stamp, written last, that says what it was made from. So an interrupted set-up goes on with the step it was in,
a changed lock installs what changed, and a checkout that was moved is set up anew. One start at a time does this, by a
lock that pip inherits: a start also waits for the pip of a start that was killed.

Whatever stops a set-up is told in one line that names the remedy, with exit status 3. Which index packages come from,
through which proxy and cache, is pip's own configuration.
"""

import contextlib
import errno
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

SETUP_FAILED = 3

# Up to the end of this block nothing is newer than Python 3.6: the old interpreters of observatory hosts must get here.
if not (3, 11) <= sys.version_info[:2] <= (3, 13) or os.name != "posix":
    others = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    remedy = f"run it as `{others[0]} sentinel.py`" if others else "install one of those"
    found = ".".join(map(str, sys.version_info[:3])) + f" on {sys.platform} ({sys.executable})"
    print(f"sentinel: wrong Python: needs 3.11 to 3.13 on Linux or macOS, this is {found}; {remedy}", file=sys.stderr)
    sys.exit(SETUP_FAILED)

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
GUARD = VENV / "setup.lock"
ROOM_BYTES = 4_000_000_000
"""Free space that a first set-up needs: 2.9 GB stay, the rest is what pip unpacks on the way."""

FULL = r"No space left on device|Disk quota exceeded"
OFFLINE = (
    r"connection broken by|Failed to establish a new connection|[Nn]ame resolution|Failed to resolve"
    r"|Network is unreachable|Connection refused|timed out"
)


class SetupError(Exception):
    """Set-up cannot go on; the text is the one line that a person needs."""


def main(arguments: list[str]) -> NoReturn:
    """Answer what needs no packages; for all else make `.venv` complete and hand over to it."""
    sys.path.insert(0, str(ROOT))
    cli = importlib.import_module("sentinel.cli")
    chosen, _ = cli.parser().parse_known_args(arguments or ["--help"])  # leaves here for --help, --version and mistakes
    if getattr(chosen, "docker", False):  # the image has packages of its own
        sys.exit(cli.main(arguments))
    extras = os.environ.get("SENTINEL_EXTRAS", "").split()
    try:
        set_up([*extras, "test"] if chosen.command in {"test", "docs"} else extras)
    except SetupError as error:
        print(f"sentinel: {error}", file=sys.stderr)
        sys.exit(SETUP_FAILED)
    except KeyboardInterrupt:
        print("\nsentinel: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    # An observatory's shell often has a PYTHONPATH, which would put other packages before the locked ones.
    os.environ.pop("PYTHONPATH", None)
    os.execv(PYTHON, [str(PYTHON), "-P", "-m", "sentinel.cli", *arguments])  # noqa: S606  no shell is wanted


def set_up(extras: list[str]) -> None:
    """Make `.venv` hold what the service and ``extras`` of pyproject.toml need; return at once where it does.

    Raises:
        SetupError: with what is missing or full, and what to do about it.
    """
    steps = ["runtime", *extras]
    if all(map(is_done, ["venv", *steps])):
        return
    try:
        with only_one() as guard:
            if not is_done("venv"):
                make_venv(guard)
            for step in steps:
                if not is_done(step):
                    install(step, guard)
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise SetupError(f"cannot write in {ROOT}: run as a user who may, or clone to another folder") from error
        raise SetupError(explain(str(error))) from error


def is_done(step: str) -> bool:
    """Say whether a step was finished, from the same things as it would be now."""
    try:
        return stamp(step).read_text() == made_from(step)
    except FileNotFoundError:
        return False


def stamp(step: str) -> Path:
    """Name the file whose content tells that a step is finished."""
    return VENV / f"{step}.done"


def made_from(step: str) -> str:
    """Describe what a step is made from: the environment from a place and a Python, the rest from lock and wishes."""
    if step == "venv":
        return f"{ROOT} {os.path.realpath(PYTHON)}"
    return hashlib.sha256("\n".join([LOCK.read_text(), *wanted(step)]).encode()).hexdigest()


def wanted(step: str) -> list[str]:
    """List the requirements of a step: those of the service, or those of one extra."""
    import tomllib  # not there on the Pythons that the check above turns away

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    offered: dict[str, list[str]] = {"runtime": project["dependencies"], **project["optional-dependencies"]}
    if step not in offered:
        raise SetupError(f"SENTINEL_EXTRAS: pyproject.toml has no {step!r}, only {', '.join(sorted(offered))}")
    return offered[step]


@contextlib.contextmanager
def only_one() -> Iterator[int]:
    """Hold the set-up lock, waiting for whoever has it; give the descriptor that children must inherit."""
    import fcntl  # not on every platform

    if VENV.exists() and not GUARD.exists() and any(VENV.iterdir()):
        raise SetupError(f"{VENV} was not made by sentinel.py: move it away and run the same command again")
    VENV.mkdir(exist_ok=True)
    with GUARD.open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("sentinel: another start is setting up; waiting for it", file=sys.stderr)
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield guard.fileno()


def make_venv(guard: int) -> None:
    """Make the environment, over whatever an interrupted attempt has left, and put the checkout on its path."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
        raise SetupError(f"this Python has no venv module: run `apt install python{version}-venv` or its like first")
    if shutil.disk_usage(VENV).free < ROOM_BYTES:
        raise SetupError(explain("No space left on device"))
    for leftover in VENV.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        elif leftover not in {LOG, GUARD}:
            leftover.unlink()
    run_step(f"making .venv with Python {version}", [sys.executable, "-I", "-m", "venv", str(VENV)], guard)
    for packages in VENV.glob("lib/python*/site-packages"):
        (packages / "sentinel.pth").write_text(f"{ROOT}\n")
    stamp("venv").write_text(made_from("venv"))


def install(step: str, guard: int) -> None:
    """Install the packages of a step at their locked versions."""
    # pip writes INSTALLER after a package's files: without it the package was cut off, and pip would think it complete.
    for record in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (record / "INSTALLER").exists():
            shutil.rmtree(record)
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    title = f"installing the {step} packages (a few minutes; log in {LOG.relative_to(ROOT)})"
    stamp(step).unlink(missing_ok=True)  # from here on it would be a lie, whatever the lock goes back to
    run_step(title, [*pip, "--constraint", str(LOCK), *wanted(step)], guard)
    stamp(step).write_text(made_from(step))


def run_step(title: str, command: list[str], guard: int) -> None:
    """Run a command, its output in the log and its seconds on one line of the terminal, and explain its failure."""
    started, line, live = time.monotonic(), f"sentinel: {title} ...", sys.stderr.isatty()
    print(line, end="", file=sys.stderr, flush=True)
    with LOG.open("ab") as log:
        before = log.tell()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(guard,))
    try:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1)
            if live:
                print(f"\r{line} {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    print("" if live else f" {time.monotonic() - started:.0f} s", file=sys.stderr)
    if child.returncode:
        raise SetupError(explain(LOG.read_bytes()[before:].decode(errors="replace")))


def explain(output: str) -> str:
    """Turn what pip, venv or the system said into one line with the remedy."""
    if re.search(FULL, output):
        free = shutil.disk_usage(VENV).free / 1e9
        return f"no disk: {VENV} needs about {ROOM_BYTES / 1e9:.0f} GB, {free:.1f} GB are free; make room and retry"
    if re.search(OFFLINE, output):
        return f"no network: pip did not reach its package index; connect, or configure pip for a mirror ({LOG})"
    lines = output.split("\n")
    errors = [line for line in lines if line.startswith("ERROR:")] or list(filter(str.strip, lines)) or ["no output"]
    return f"set-up failed: {errors[-1]} ({LOG})"


if __name__ == "__main__":
    main(sys.argv[1:])
