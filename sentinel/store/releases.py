"""The active release: the configured one, or the one that was promoted in its place."""

from pathlib import Path

from sqlalchemy import delete, insert, inspect, select

from aetherscan.errors import ReleaseError
from sentinel.config import Config
from sentinel.store.queue import Store, open_store
from sentinel.store.schema import meta

ACTIVE_RELEASE = "release"
"""Key in the table `meta`. The value is `CONFIGURED/PROMOTED`: names of two release folders."""


def active_release(store: Store, configured: Path) -> Path:
    """Return the folder of the active release.

    That is the release promoted while `configured` was configured, else `configured`.
    """
    with store.read() as rows:
        value = rows.scalar(select(meta.c.value).where(meta.c.key == ACTIVE_RELEASE))
    replaced, _, promoted = (value or "").partition("/")
    return configured.parent / promoted if promoted and replaced == configured.name else configured


def read_active_release(config: Config) -> Path:
    """Return the folder of the active release, whether or not the service runs. The store is not upgraded."""
    if not config.has_store:
        return config.release
    store = open_store(config.store_url, upgrade=False)
    try:
        with store.read() as rows:
            has_tables = inspect(rows).has_table(meta.name)
        return active_release(store, config.release) if has_tables else config.release
    finally:
        store.engine.dispose()


def promote(store: Store, configured: Path, name: str) -> str:
    """Make a release the active one, after a check of its files; return its sha256.

    Workers load it with their next cadence. The promotion ends when `release` in the configuration changes.

    Raises:
        ReleaseError: the release is missing, altered or cannot be loaded; nothing was changed.
    """
    from aetherscan.detector.detector import load_detector

    if Path(name).name != name:
        raise ReleaseError(f"{name}: expected the name of a folder in {configured.parent}")
    sha256 = load_detector(configured.parent / name).release.sha256
    with store.write() as rows:
        rows.execute(delete(meta).where(meta.c.key == ACTIVE_RELEASE))
        rows.execute(insert(meta).values(key=ACTIVE_RELEASE, value=f"{configured.name}/{name}"))
    return sha256
