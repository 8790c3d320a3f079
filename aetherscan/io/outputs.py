"""Write files whole or not at all, and find out before the work whether they can be written."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder for output, and those above it, if they are missing.

    Raises:
        OSError: a file is in its place, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(f"{folder}: expected a folder, found a file") from error


def check_writable(folder: Path, *names: str, inputs: Iterable[Path] = ()) -> None:
    """Check that files with these names can be written into an existing folder. Links are followed, as by a write.

    Args:
        folder: of the files.
        names: of the files.
        inputs: files that the command reads, none of which may be written.

    Raises:
        OSError: they cannot be: the message names the folder or the file.
    """
    _check_folder(folder)
    for path in (folder / name for name in names):
        real = real_file(path)
        if real.exists() and any(kept.exists() and real.samefile(kept) for kept in inputs):
            raise OSError(f"{path}: expected another file than the inputs, found {real}")
        if real.parent != folder.resolve():
            _check_folder(real.parent)


def _check_folder(folder: Path) -> None:
    trial = folder / f".{os.getpid()}.trial"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OSError(f"{folder}: expected a folder that can be written, found: {error.strerror}") from error


def real_file(path: Path) -> Path:
    """Return the path of a file that may be written, without links. A device, FIFO or folder would be replaced.

    Raises:
        OSError: it is no regular file, or a link to itself.
    """
    try:
        real = path.resolve()
        mode = real.lstat().st_mode
    except FileNotFoundError:
        return real
    except RuntimeError as error:  # of Python 3.11 and 3.12
        raise OSError(f"{path}: expected the name of a file, found a link to itself") from error
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link to itself"}.get(stat.S_IFMT(mode), "a special file")
        raise OSError(f"{path}: expected the name of a file, found {kind}")
    return real


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside `path`, which takes its place when it is complete.

    If it is not completed, it is deleted, and an earlier file at `path` is unchanged.

    Raises:
        OSError: `path` is no regular file.
    """
    real = real_file(path)  # a link stays a link
    part = real.with_name(f".{os.getpid()}.part{real.suffix}")
    try:
        yield part
        part.replace(real)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write text to a file, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
