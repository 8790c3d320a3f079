"""List and verify the releases in a folder, and download one."""

import hashlib
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import requests

from aetherscan.detector.release import read_release
from aetherscan.errors import ReleaseError
from aetherscan.io.outputs import make_folder
from sentinel.errors import FetchError

TIMEOUT_S = 30
BROKEN = "not usable"
CHUNK = 2**20
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""Exceptions that a damaged archive causes."""


def releases(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each release in `folder` with its sha256, or with the reason why it is not usable."""
    for path in sorted(card.parent for card in folder.glob("*/release.json")):
        try:
            yield path.name, read_release(path).sha256
        except ReleaseError as error:
            yield path.name, f"{BROKEN}: {error}"


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Download a release archive, verify it, and move it into `folder` under its own name; return its path.

    Raises:
        FetchError: unreachable, altered, not a release, or the name exists already; nothing was changed.
    """
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        archive, unpacked = Path(scratch) / "archive", Path(scratch) / "unpacked"
        found = _download(url, archive)
        if found != sha256.lower():
            raise FetchError(f"{url}: expected sha256 {sha256}, found {found}; nothing was unpacked")
        try:
            with tarfile.open(archive) as tar:
                _extract(tar, unpacked)
            card = next(unpacked.rglob("release.json"))
            release = read_release(card.parent)
        except (*DAMAGED, StopIteration, ReleaseError, OSError) as error:
            raise FetchError(f"{url}: expected a release in a tar archive, found {error!r}") from error
        if release.name in (".", "..") or "/" in release.name or (folder / release.name).exists():
            raise FetchError(f"{folder}: expected the name of a new folder, found release {release.name!r}")
        shutil.move(card.parent, folder / release.name)
        return folder / release.name


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack regular files below `folder`; Python has a filter of its own only since 3.11.4."""
    for member in tar:
        if not (member.isfile() or member.isdir()) or {"..", "/"} & set(Path(member.name).parts):
            raise tarfile.TarError(f"{member.name}: expected a file inside the archive's folder")
    tar.extraction_filter = getattr(tarfile, "data_filter", None)
    tar.extractall(folder)  # noqa: S202


def _download(url: str, to: Path) -> str:
    sha256 = hashlib.sha256()
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT_S) as reply, to.open("wb") as file:
            reply.raise_for_status()
            for chunk in reply.iter_content(CHUNK):
                file.write(chunk)
                sha256.update(chunk)
    except (requests.RequestException, OSError) as error:
        raise FetchError(f"{url}: could not be downloaded: {error}") from error
    return sha256.hexdigest()
