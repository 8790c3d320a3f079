"""Compiled functions that are kept on disk are those of the present source."""

import os
import shutil
import subprocess
import sys

import pytest

from aetherscan import kernels

SOURCES = {
    "inner/__init__.py": "",
    "inner/lowest.py": "STEP = 1\n",
    "middle.py": """
from aetherscan.inner.lowest import STEP
from aetherscan.kernels import njit

@njit(cache=True)
def add(x):
    return x + STEP
""",
    "top.py": """
from aetherscan.kernels import njit
from aetherscan.middle import add

@njit(cache=True)
def ten_times(x):
    return 10 * add(x)
""",
    "other.py": "OTHER = 1\n",
}
ASK = "from aetherscan.top import ten_times as f; print(f(1), sum(f.stats.cache_hits.values()))"


@pytest.fixture
def ask(tmp_path):
    """Return a function that computes 10 * (1 + STEP) in a new process: the result, and the hits of the cache."""
    place = tmp_path / "aetherscan"
    (place / "inner").mkdir(parents=True)
    (place / "__init__.py").touch()
    shutil.copy(kernels.__file__, place)
    for name, text in SOURCES.items():
        (place / name).write_text(text)

    def run(**environment):
        env = {**os.environ, "PYTHONPATH": str(tmp_path), **environment}
        ran = subprocess.run([sys.executable, "-P", "-c", ASK], env=env, capture_output=True, text=True, check=True)
        return tuple(map(int, ran.stdout.split()))

    return run


@pytest.mark.parametrize("named", ["", "cache"])
def test_a_compiled_function_is_renewed_when_a_constant_of_another_file_changes(ask, tmp_path, named):
    place = {"NUMBA_CACHE_DIR": str(tmp_path / named)} if named else {}
    assert [ask(**place), ask(**place)] == [(20, 0), (20, 1)]
    (tmp_path / "aetherscan" / "other.py").write_text("OTHER = 2\n")  # which nobody imports
    assert ask(**place) == (20, 1)
    (tmp_path / "aetherscan" / "inner" / "lowest.py").write_text("STEP = 4\n")
    assert ask(**place) == (50, 0)


def test_a_stamp_covers_what_a_package_that_is_imported_holds():
    search = kernels.PACKAGE / "search"
    assert search / "follow.py" in kernels.imports(search / "curved.py")
    assert kernels.PACKAGE / "io" / "hdf5.py" in kernels.imports(search / "pipeline.py")
