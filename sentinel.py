#!/usr/bin/env python3
"""Start Sentinel on a machine that has nothing but Python 3.11 to 3.13.

The commands need packages; this file needs only the standard library. It creates `.venv` beside itself, installs the
packages of `requirements/*.txt` with the versions and hashes there, and then executes `sentinel.cli` with that
interpreter. `--help`, `--version` and usage errors are answered without packages.

The set-up has steps: the environment, and the packages of the service. A command that needs more adds a step the first
time that it runs: `train` TensorFlow and Keras, `test` and `docs` the test packages. `SENTINEL_EXTRAS` names further
steps. A finished step writes a stamp file with a checksum of its inputs. An interrupted set-up therefore continues with
the step it was in, a changed lock installs what changed, and a checkout that was moved is set up again. A file lock,
which pip inherits, allows one set-up at a time: a second start also waits for the pip of a start that was killed.

If the set-up fails, one line says why and what to do; the exit status is 3. The configuration of pip decides the
package index, proxy and cache. Where `SENTINEL_NO_SETUP` is set, as in the container image, nothing is installed: the
packages are those of `.venv`, or without one those of the Python that executes this file.
"""

import argparse
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

# This block and everything above must parse with Python 3.6, so that old interpreters reach the message.
if not (3, 11) <= sys.version_info[:2] <= (3, 13) or os.name != "posix":
    others = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    remedy = f"run it as `{others[0]} sentinel.py`" if others else "install one of those"
    found = ".".join(map(str, sys.version_info[:3])) + f" on {sys.platform} ({sys.executable})"
    print(f"sentinel: wrong Python: needs 3.11 to 3.13 on Linux or macOS, this is {found}; {remedy}", file=sys.stderr)
    sys.exit(SETUP_FAILED)

ROOT = Path(__file__).resolve().parent
LOCKS = ROOT / "requirements"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
GUARD = VENV / "setup.lock"
ROOM_GB = {"service": 1.6, "train": 4.0, "test": 2.5, "gpu": 9.0}
"""Free space that a step needs for what it installs and for what pip unpacks meanwhile; others need little."""
CONTENT = {"train": "TensorFlow and Keras, 2 GB", "gpu": "TensorFlow and CUDA, 6 GB", "test": "test packages, 1 GB"}
IMPORTS = "; ".join(
    f"import {module}"
    for module in (
        "supervisor.supervisord",
        "sentinel.workers.preload",
        "sentinel.workers.pictures",
        "sentinel.ingest.service",
        "sentinel.notify.slack",
        "sentinel.web.server",
        "sentinel.commands.demo",
        "sentinel.commands.search",
        "aetherscan.detector.detector",
        "aetherscan.plotting.waterfall",
        "aetherscan.search.pipeline",
    )
)
"""Shows that the packages fit this machine, and compiles the modules that every start imports."""

FULL = r"No space left on device|Disk quota exceeded"
ALTERED = r"DO NOT MATCH THE HASHES"
OFFLINE = (
    r"connection broken by|Failed to establish a new connection|[Nn]ame resolution|Failed to resolve"
    r"|Network is unreachable|Connection refused|timed out"
)


class SetupError(Exception):
    """The set-up cannot continue; the message says why and what to do."""


def main(arguments: list[str]) -> NoReturn:
    """Answer what needs no packages; otherwise complete `.venv` and execute the command in it."""
    sys.path.insert(0, str(ROOT))
    cli = importlib.import_module("sentinel.cli")
    chosen, _ = cli.parser().parse_known_args(arguments or ["--help"])  # exits for --help, --version and usage errors
    if getattr(chosen, "docker", False):  # the image has its own packages
        sys.exit(cli.main(arguments))
    try:
        if not os.environ.get("SENTINEL_NO_SETUP"):
            set_up([*os.environ.get("SENTINEL_EXTRAS", "").split(), *extras(chosen)])
    except SetupError as error:
        print(f"sentinel: {error}", file=sys.stderr)
        sys.exit(SETUP_FAILED)
    except KeyboardInterrupt:
        print("\nsentinel: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    # A PYTHONPATH of the shell would put other packages before the locked ones.
    os.environ.pop("PYTHONPATH", None)
    python = PYTHON if PYTHON.exists() else Path(sys.executable)
    if os.environ.get("SENTINEL_NO_SETUP"):  # another installer brought the packages, which do not know this checkout
        os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(python, [str(python), "-P", "-m", "sentinel.cli", *arguments])  # noqa: S606  runs no shell


def extras(chosen: argparse.Namespace) -> list[str]:
    """List the steps that a command needs beside the packages of the service."""
    if chosen.command in {"test", "docs"}:
        return ["test"]
    converts = str(getattr(chosen, "encoder_path", None)).endswith(".keras")
    return ["train"] if chosen.command == "train" or converts else []


def set_up(extras: list[str]) -> None:
    """Install the packages of the service and of ``extras`` in `requirements`, unless that is done.

    Raises:
        SetupError: with the cause and what to do.
    """
    steps = list(dict.fromkeys(["service", *extras]))
    if all(map(is_done, ["venv", *steps])):
        return
    try:
        with only_one() as guard:
            check_room(steps)
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
    """Return whether a step was finished with the present inputs."""
    try:
        return stamp(step).read_text() == made_from(step)
    except FileNotFoundError:
        return False


def stamp(step: str) -> Path:
    """Return the path of the stamp file of a step."""
    return VENV / f"{step}.done"


def made_from(step: str) -> str:
    """Return what identifies the inputs of a step: path and Python, or a checksum of the lock."""
    if step == "venv":
        return f"{ROOT} {os.path.realpath(PYTHON)}"
    return hashlib.sha256(lock(step).read_bytes()).hexdigest()


def lock(step: str) -> Path:
    """Return the file with the packages of a step."""
    if not (path := LOCKS / f"{step}.txt").exists():
        offered = sorted(path.stem for path in LOCKS.glob("*.txt"))
        raise SetupError(f"SENTINEL_EXTRAS: expected some of {', '.join(offered)}, found {step!r}")
    return path


def check_room(steps: list[str]) -> None:
    """Raise a SetupError if there is too little free space for the steps that are not done."""
    needed = sum(ROOM_GB.get(step, 0.1) for step in steps if not is_done(step))
    if (free := shutil.disk_usage(VENV).free / 1e9) < needed:
        raise SetupError(f"no disk: {VENV} needs about {needed:.1f} GB, {free:.1f} GB are free; make room and retry")


@contextlib.contextmanager
def only_one() -> Iterator[int]:
    """Hold the set-up lock, waiting for another start; yield the descriptor that children must inherit."""
    import fcntl  # not available on every platform

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
    """Create the environment, remove what an interrupted attempt left, and put the checkout on its path."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
        raise SetupError(f"this Python has no venv module: run `apt install python{version}-venv` or its like first")
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
    # pip writes INSTALLER last: a package without it is incomplete, and pip would take it for installed.
    for record in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (record / "INSTALLER").exists():
            shutil.rmtree(record)
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    title = f"installing the {step} packages ({CONTENT.get(step, 'a minute')}, once; log in {LOG.relative_to(ROOT)})"
    stamp(step).unlink(missing_ok=True)  # until the step is finished, even if the lock is changed back
    # The lock has all packages, so pip resolves nothing. Only what is imported gets compiled: a third of the time.
    run_step(title, [*pip, "--no-deps", "--require-hashes", "--no-compile", "--requirement", str(lock(step))], guard)
    if step == "service":
        run_step("checking the packages", [str(PYTHON), "-P", "-c", IMPORTS], guard)
    stamp(step).write_text(made_from(step))


def run_step(title: str, command: list[str], guard: int) -> None:
    """Run a command with its output in the log, show the seconds on the terminal, and explain a failure."""
    unwanted = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    started, line, live = time.monotonic(), f"sentinel: {title} ...", sys.stderr.isatty()
    print(line, end="", file=sys.stderr, flush=True)
    with LOG.open("ab") as log:
        before = log.tell()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(guard,), env=environment
        )
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
    """Return one line with the cause and the remedy for the output of pip, venv or the system."""
    if re.search(FULL, output):
        free = shutil.disk_usage(VENV).free / 1e9
        return f"no disk: {VENV} ran out of space, {free:.1f} GB are free; make room and retry"
    if re.search(ALTERED, output):
        return f"altered packages: the index has other files than {LOCKS}: use one with the original files ({LOG})"
    if re.search(OFFLINE, output):
        return f"no network: pip did not reach its package index; connect, or configure pip for a mirror ({LOG})"
    lines = output.split("\n")
    errors = [line for line in lines if line.startswith("ERROR:")] or list(filter(str.strip, lines)) or ["no output"]
    return f"set-up failed: {errors[-1]} ({LOG})"


if __name__ == "__main__":
    main(sys.argv[1:])
