"""TODO."""

from pathlib import Path

from sqlalchemy import delete, insert, inspect, select

from aetherscan.errors import ReleaseError
from sentinel.config import Config
from sentinel.store.queue import Store, open_store
from sentinel.store.schema import meta

ACTIVE_RELEASE = "release"
"""Key of the store's `meta`: the configured release, and the one that was promoted over it."""


def active_release(store: Store, configured: Path) -> Path:
    """Return the folder of the release that serves: the one promoted since `configured` was configured, or that."""
    with store.read() as rows:
        found = rows.scalar(select(meta.c.value).where(meta.c.key == ACTIVE_RELEASE))
    over, _, name = (found or "").partition("/")
    return configured.parent / name if name and over == configured.name else configured


def read_active_release(config: Config) -> Path:
    """Return the folder of the release that the service searches with, whether or not it runs just now.

    To ask changes nothing: a store of an older version stays one.
    """
    if not config.has_store:
        return config.release
    store = open_store(config.store_url, as_it_is=True)
    try:
        with store.read() as rows:
            begun = inspect(rows).has_table(meta.name)
        return active_release(store, config.release) if begun else config.release
    finally:
        store.engine.dispose()


def promote(store: Store, configured: Path, name: str) -> str:
    """Make a release the service's, once its files agree with its card; return its sha256.

    Every worker takes it with the next cadence that it is given. Another `release` in the configuration wins.

    Raises:
        ReleaseError: it is not here, altered, or cannot be loaded: nothing was changed.
    """
    from aetherscan.detector.detector import load_detector

    if Path(name).name != name:
        raise ReleaseError(f"{name}: expected the name of a folder in {configured.parent}")
    found = load_detector(configured.parent / name).release.sha256
    with store.write() as rows:
        rows.execute(delete(meta).where(meta.c.key == ACTIVE_RELEASE))
        rows.execute(insert(meta).values(key=ACTIVE_RELEASE, value=f"{configured.name}/{name}"))
    return found
