"""The science loads alone, and test modules do not depend on each other."""

import ast
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
HEAVY = {"dask", "distributed", "supervisor", "sqlalchemy", "slack_sdk", "watchdog", "sentinel", "keras", "tensorflow"}


def test_reading_grouping_and_injecting_load_no_service_and_no_network_library():
    code = (
        "import sys, aetherscan, aetherscan.io, aetherscan.cadence, aetherscan.search.dedoppler, aetherscan.simulate\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def imported(source):
    """Yield the dotted name of every module and every name that a source text imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def test_no_test_module_is_imported_by_another():
    modules = {path.stem for path in TESTS.rglob("test_*.py")}
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in TESTS.rglob("*.py")
        for name in imported(path.read_text())
        if modules & set(name.split("."))
    }
    assert found == set()
