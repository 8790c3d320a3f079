"""State that a worker process keeps between tasks: the loaded detector, store connections and the code version."""

import logging
import threading
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from aetherscan.errors import ReleaseError
from sentinel.store.queue import open_store

LOG = logging.getLogger(__name__)

_LOADED: dict[str, Any] = {}
"""The detector in memory under the sha256 of its release: at most one."""
COMPILED = threading.Event()
"""Set unless this process compiles the search."""
COMPILED.set()
cached_store = lru_cache(maxsize=4)(partial(open_store, create=False))


def loaded_detector() -> Any:
    """Return the detector in memory."""
    return next(iter(_LOADED.values()))


def detector_for(folder: Path) -> Any:
    """Return the detector of a release, loading it if another or none is in memory.

    If the release has been altered, the detector in memory is kept and the error is logged.

    Raises:
        ReleaseError: the release cannot be loaded and no detector is in memory.
    """
    from aetherscan.detector.detector import load_detector
    from aetherscan.detector.release import read_release

    try:
        sha256 = read_release(folder).sha256
        if sha256 not in _LOADED:
            detector = load_detector(folder)
            _LOADED.clear()
            _LOADED[sha256] = detector
    except ReleaseError:
        if not _LOADED:
            raise
        LOG.exception("%s: not loaded; still searching with release %s", folder, loaded_detector().release.name)
    return loaded_detector()
