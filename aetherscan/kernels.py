"""Compile functions with Numba, and compile them again when something that was compiled into them has changed.

Numba keeps compiled functions on disk and renews one when its own file has changed. Functions and constants of other
files are compiled into it too, and Numba does not look at those files: after an upgrade it would compute with the old
ones. Here the stamp of a function covers its file and all files of this package that it imports, directly or not.
"""

import re
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

PACKAGE = Path(__file__).parent
IMPORT = re.compile(rf"^(?:from|import) {PACKAGE.name}\.([\w.]+)", re.MULTILINE)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator `numba.njit` with these options; what it keeps on disk is renewed as said above."""

    def compiled(function: Callable[..., Any]) -> Any:
        found, numba.config.CACHE_LOCATOR_CLASSES = numba.config.CACHE_LOCATOR_CLASSES, LOCATORS
        try:
            return numba.njit(**options)(function)
        finally:
            numba.config.CACHE_LOCATOR_CLASSES = found

    return compiled


@cache
def stamp(file: Path) -> str:
    """Return a digest of a file of this package and of all others that it imports."""
    known, following = set[Path](), {file}
    while following := following - known:
        known |= following
        following = {imported for path in following for imported in imports(path)}
    return sha256(b"".join(sha256(path.read_bytes()).digest() for path in sorted(known))).hexdigest()


@cache
def imports(file: Path) -> frozenset[Path]:
    """Return the files of this package that a file imports at its top; of a package all its modules."""
    named = {PACKAGE.joinpath(*name.split(".")) for name in IMPORT.findall(file.read_text())}
    return frozenset(path for name in named for path in (*name.glob("*.py"), name.with_suffix(".py")) if path.exists())


class _Stamped:
    """A place for compiled functions, with the stamp of this module."""

    _py_file: str

    def get_source_stamp(self) -> str:
        """Return what identifies the source."""
        return stamp(Path(self._py_file))


class Named(_Stamped, caching.UserProvidedCacheLocator):
    """The folder that NUMBA_CACHE_DIR names."""


class InTree(_Stamped, caching.InTreeCacheLocator):
    """The folder `__pycache__` beside the source."""


class UserWide(_Stamped, caching.UserWideCacheLocator):
    """The cache folder of the user."""


LOCATORS = ",".join(f"{kind.__module__}.{kind.__qualname__}" for kind in (Named, InTree, UserWide))
