"""Search radio-telescope cadences for narrowband signals that are present only when the telescope is on target.

This package holds the science: arrays, files and models, without the service around them. In a notebook::

    import aetherscan

    table = aetherscan.search(paths)                 # or arrays, blimpy.Waterfall, setigen.Frame
    table.to_pandas(), table.to_astropy()
    aetherscan.waterfall(paths, table[0])            # a matplotlib figure
    aetherscan.embed(table)                          # latents
    aetherscan.inject(paths, 8421.5, snr=20)         # observations with a tone in the ONs

The functions are those of `aetherscan.api`, which is loaded when one of them is first used. `aetherscan.search` is also
the package with the steps of a search.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aetherscan.api import CandidateTable as CandidateTable
    from aetherscan.api import embed as embed
    from aetherscan.api import inject as inject
    from aetherscan.api import search as search
    from aetherscan.api import waterfall as waterfall
else:
    importlib.import_module("aetherscan.search")

_API = ("CandidateTable", "embed", "inject", "search", "waterfall")
"""Names of `aetherscan.api` that this package has; no `__all__`, which would have to be loaded to be documented."""

# From 1.29 on, ONNX Runtime sends telemetry for every model it loads, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class _CallablePackage(ModuleType):
    """A package that is called like a function of the API."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function of `aetherscan.api` that has the name of the package."""
        return getattr(__getattr__("api"), self.__name__.rpartition(".")[2])(*arguments, **options)


sys.modules["aetherscan.search"].__class__ = _CallablePackage


def __getattr__(name: str) -> Any:
    """Return a function of `aetherscan.api`, which is loaded with the first of them."""
    if name not in {*_API, "api"}:
        raise AttributeError(f"module 'aetherscan' has no attribute {name!r}")
    api = importlib.import_module("aetherscan.api")  # here, so that `import aetherscan` is fast
    return api if name == "api" else getattr(api, name)
