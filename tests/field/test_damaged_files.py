"""Damaged files end in a line for the observer: no traceback, no hang, no candidate from values that are not power."""

import runpy
from pathlib import Path

import pytest
from factories import make_detector

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fuzz_files.py"))


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_end_in_no_traceback(tmp_path, seed):
    results, failures = FUZZ["fuzz"](10, seed, tmp_path, make_detector, nchans=1024)
    assert failures == []
    assert sum(count for result, count in results.items() if "exit status" in result) == 10
    assert sum(count for result, count in results.items() if result.startswith("watcher")) == 10
    assert any("exit status 1" in result for result in results)
