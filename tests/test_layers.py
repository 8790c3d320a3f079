"""The science loads alone, and lightly."""

import subprocess
import sys

HEAVY = {"dask", "distributed", "supervisor", "sqlalchemy", "slack_sdk", "watchdog", "sentinel", "keras", "tensorflow"}


def test_a_notebook_that_reads_groups_and_injects_loads_no_service_and_no_network():
    code = (
        "import sys, aetherscan, aetherscan.io, aetherscan.cadence, aetherscan.search.dedoppler, aetherscan.simulate\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
