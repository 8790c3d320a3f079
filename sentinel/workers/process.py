"""TODO."""

import logging
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from aetherscan.errors import ReleaseError
from sentinel.config import ROOT
from sentinel.store.queue import open_store

LOG = logging.getLogger(__name__)

_LOADED: dict[str, Any] = {}
_store = lru_cache(maxsize=4)(open_store)


def detector_for(folder: Path) -> Any:
    """Return the detector of a release, loaded once; one that was altered is refused, and that in memory stays."""
    from aetherscan.detector.detector import load_detector
    from aetherscan.detector.release import read_release

    try:
        wanted = read_release(folder).sha256
        if wanted not in _LOADED:
            fresh = {wanted: load_detector(folder)}
            _LOADED.clear()
            _LOADED.update(fresh)
    except ReleaseError:
        if not _LOADED:
            raise
        LOG.exception("%s: refused; release %s goes on searching", folder, next(iter(_LOADED.values())).release.name)
    return next(iter(_LOADED.values()))


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return this code's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
