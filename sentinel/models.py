"""Releases as files: what is here, whether it is what was published, and fetching one. The only HTTP besides Slack."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import requests
from sqlalchemy import delete, insert, inspect, select

from aetherscan.errors import ReleaseError
from aetherscan.release import read_release
from sentinel.config import Config
from sentinel.errors import FetchError
from sentinel.schema import meta
from sentinel.store import Store, open_store

TIMEOUT_S = 30
SERVING = "release"
"""Key of the store's `meta`: the configured release, and the one that was promoted over it."""
BROKEN = "not usable"
CHUNK = 2**20


def releases(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each release in `folder`, and its sha256 or what is wrong with it."""
    for path in sorted(card.parent for card in folder.glob("*/release.json")):
        try:
            yield path.name, read_release(path).sha256
        except ReleaseError as error:
            yield path.name, f"{BROKEN}: {error}"


def serving(store: Store, configured: Path) -> Path:
    """Return the folder of the release that serves: the one promoted since `configured` was configured, or that."""
    with store.read() as rows:
        found = rows.scalar(select(meta.c.value).where(meta.c.key == SERVING))
    over, _, name = (found or "").partition("/")
    return configured.parent / name if name and over == configured.name else configured


def served(config: Config) -> Path:
    """Return the folder of the release that the service searches with, whether or not it runs just now.

    To ask changes nothing: a store of an older version stays one.
    """
    if not config.has_store:
        return config.release
    store = open_store(config.store_url, as_it_is=True)
    try:
        with store.read() as rows:
            begun = inspect(rows).has_table(meta.name)
        return serving(store, config.release) if begun else config.release
    finally:
        store.engine.dispose()


def promote(store: Store, configured: Path, name: str) -> str:
    """Make a release the service's, once its files agree with its card; return its sha256.

    Every worker takes it with the next cadence that it is given. Another `release` in the configuration wins.

    Raises:
        ReleaseError: it is not here, altered, or cannot be loaded: nothing was changed.
    """
    from aetherscan.detector import load_detector

    if Path(name).name != name:
        raise ReleaseError(f"{name}: expected the name of a folder in {configured.parent}")
    found = load_detector(configured.parent / name).release.sha256
    with store.write() as rows:
        rows.execute(delete(meta).where(meta.c.key == SERVING))
        rows.execute(insert(meta).values(key=SERVING, value=f"{configured.name}/{name}"))
    return found


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Download a release archive, check it, and put it into `folder` under its own name; return where it lies.

    Raises:
        FetchError: unreachable, altered, no release, or one of that name is here: nothing was changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        archive, unpacked = Path(scratch) / "archive", Path(scratch) / "unpacked"
        found = _download(url, archive)
        if found != sha256.lower():
            raise FetchError(f"{url}: expected sha256 {sha256}, found {found}: nothing was unpacked")
        try:
            with tarfile.open(archive) as tar:
                _extract(tar, unpacked)
            card = next(unpacked.rglob("release.json"))
            release = read_release(card.parent)
        except (tarfile.TarError, StopIteration, ReleaseError, OSError) as error:
            raise FetchError(f"{url}: expected a release in a tar archive, found {error!r}") from error
        if release.name in (".", "..") or "/" in release.name or (folder / release.name).exists():
            raise FetchError(f"{folder}: release {release.name!r} is here already, or its name is no folder's")
        shutil.move(card.parent, folder / release.name)
        return folder / release.name


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack regular files below `folder`; Python's own filter came only with 3.11.4."""
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
