"""The folders of a training, held by one training at a time: release, report and checkpoints.

Each training has the name of its release folder. Its checkpoints are in `model_path/checkpoints/NAME`, its report in
`output_path/NAME`. Two trainings that share one of these folders would mix their files.
"""

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from aetherscan.errors import TrainingError
from aetherscan.io.outputs import make_folder
from aetherscan.options.train import TrainSettings

LOCK = ".training.lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""
ROUND = re.compile(r"round_(\d+)")


def checkpoints_of(settings: TrainSettings, name: str) -> Path:
    """Return the folder of the checkpoints of a training."""
    return settings.model_path / "checkpoints" / name


def rounds_in(checkpoints: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder by the number of their round."""
    return {int(match[1]): path for path in checkpoints.glob("round_*") if (match := ROUND.fullmatch(path.name))}


def set_aside(checkpoints: Path, done: int) -> Path | None:
    """Move the checkpoints of rounds after `done` to a folder `NAME-1`, `NAME-2`, ...; return it, None without any."""
    later = [path for number, path in sorted(rounds_in(checkpoints).items()) if number > done]
    if not later:
        return None
    free = (checkpoints.with_name(f"{checkpoints.name}-{n}") for n in count(1))
    aside = next(folder for folder in free if not folder.exists())
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)
    return aside


@contextmanager
def hold(*folders: Path) -> Iterator[None]:
    """Make folders, and lock them for this training. Folders that are empty at the end are removed.

    Raises:
        TrainingError: another training holds a folder.
        OSError: a folder cannot be made or written.
    """
    made = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    try:
        with ExitStack() as held:
            for folder in dict.fromkeys(folders):
                held.enter_context(_locked(folder))
            yield
    finally:
        for folder in made:
            with suppress(OSError):  # it holds files, or was not made
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder through a file in it, which is removed at the end."""
    make_folder(folder)
    path = folder / LOCK
    while True:
        with path.open("a+", encoding="utf-8") as lock:
            try:
                _lock(lock.fileno())
            except BlockingIOError as error:
                lock.seek(0)
                owner = lock.read().strip() or "another process"
                raise TrainingError(
                    f"{folder}: expected a folder that no training uses, found {owner} in it"
                ) from error
            if not _is_at(path, lock.fileno()):  # the training that held it has just removed it
                continue
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _lock(descriptor: int) -> None:
    """Lock a file, unless its file system has no locks: a training on one is not refused."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
