"""Write files whole or not at all, and find out before the work whether they can be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(folder: Path, *names: str) -> None:
    """Check that files with these names can be written into an existing folder.

    Raises:
        OSError: they cannot be: the message names the folder or the file.
    """
    trial = folder / f".{os.getpid()}.trial"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OSError(f"{folder}: expected a folder that can be written, found: {error.strerror}") from error
    for name in names:
        if (folder / name).is_dir():
            raise OSError(f"{folder / name}: expected the name of a file, found a folder")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside `path`, which takes its place when it is complete.

    If it is not completed, it is deleted, and an earlier file at `path` is unchanged.
    """
    real = path.resolve()  # a link stays a link
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
