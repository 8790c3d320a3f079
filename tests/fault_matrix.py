"""The fault matrix: which test shows which promise under which fault, and the table that a run of it writes.

A test carries `@pytest.mark.fault(9, promise="P2")`, several times where it shows several, and `@pytest.mark.slow` when
the ordinary suite has no time for it. `--faults` runs the marked tests alone, slow ones too, and writes the table.
"""

import os
import platform
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

TABLE = Path(__file__).parents[1] / "docs" / "faults.md"
PROMISES = {
    "P1": "every complete cadence under a watched folder ends `done` or `quarantined` with a reason",
    "P2": "it is searched at least once and recorded exactly once",
    "P3": "each candidate is announced, and only a message whose reply was lost may be repeated, marked",
    "P4": "input data are never written, moved or deleted",
    "P5": "a person is needed only where disk, configuration or credentials are wrong, and is shown what and where",
}
FAULTS = {
    1: "watcher killed after each of: file seen, file row, cadence ready, leased, result known",
    2: "worker killed at the start, in mid-read, in mid-inference, before and after the commit, in mid-picture",
    3: "poster killed before sending, accepted but not marked, in mid-upload",
    4: "scheduler or cluster killed and back",
    5: "supervisord killed",
    6: "web killed",
    7: "everything killed at random times",
    8: "scheduler stopped for 60 s",
    9: "worker stopped, then continued",
    10: "search over its time limit",
    11: "worker out of memory",
    12: "a cadence that aborts its process",
    13: "slow writer",
    14: "writer dies: truncated .h5 and .fil, completed later",
    15: "right size, zero tail",
    16: "bad files: random bytes, wrong magic, impossible headers, NaN and Inf, missing filter",
    17: "file changes or vanishes while it is read",
    18: "mv, folder mv, hard link, symlink, rsync, new nested folders",
    19: "inotify overflows",
    20: "inotify exhausted; network file system",
    21: "same name elsewhere, same path rewritten, same content twice",
    22: "10,000 cadences of backlog and live data",
    23: "read-only folder",
    24: "folder unmounted and back",
    25: "state disk full, then freed",
    26: "state read-only, store locked for long, store corrupt",
    27: "Slack down for an hour",
    28: "Slack says 429",
    29: "invalid_auth, channel_not_found",
    30: "reply lost",
    31: "storm of 5,000 candidates",
    32: "clock jumps by an hour, either way",
    33: "mistakes in the configuration",
    34: "release file altered or of the wrong shape",
    35: "PostgreSQL restarts",
    36: "two services on one store",
    37: "SIGTERM in mid-work",
    38: "2,000 cadences: memory, descriptors and write-ahead log",
    39: "schema migrated, both ways",
    40: "hostile names",
    41: "watched root renamed, missing, or unmounted while the service runs",
    42: "demo beside a stopped watcher, or without its folder",
    43: "picture folder unwritable or full",
    44: "web port taken",
    45: "a folder that does not reply",
    46: "cache of compiled functions unwritable",
    47: "a search fails because of the machine: disk, permission, memory, mount",
    48: "socket of supervisord lost, file of its process id empty or wrong",
    49: "state_dir edited, moved, or reached through a link while the service runs",
    50: "another service or container beside it, also with the same path",
    51: "up fails or is ended; heartbeats of an earlier start",
    52: "host renamed",
    53: "PostgreSQL read-only after a failover",
    54: "too many connections",
    55: "store away for longer than the leases",
    56: "FIFO, device, socket or circular link with the name of a file or of a signal of completion",
    57: "file replaced by another with the same header and size",
    58: "recorded cadences searched again",
    59: "output that cannot be written, or whose disk is full",
    60: "any arguments, configuration and environment",
}


def pytest_addoption(parser):
    parser.addoption("--container", action="store_true", help="run the tests of the container alone, in a real engine")
    parser.addoption("--faults", action="store_true", help="run the fault matrix alone, and write docs/faults.md")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "fault(number, promise): a fault that the test covers, numbered in tests/fault_matrix.py"
    )
    config.addinivalue_line("markers", "slow: runs with --faults only")
    config.addinivalue_line("markers", "container: runs with --container only")
    config.pluginmanager.register(_Matrix(config), "matrix")


class _Matrix:
    """Chooses the tests and keeps their verdicts."""

    def __init__(self, config):
        self.config, self.began = config, time.monotonic()
        self.shown = defaultdict(set)  # of a test: (fault, promise)
        self.verdicts = {}

    def pytest_collection_modifyitems(self, config, items):
        wanted, others = [], []
        for item in items:
            marks = list(item.iter_markers("fault"))
            for mark in marks:
                assert mark.args[0] in FAULTS, f"{item.nodeid}: no fault {mark.args[0]}"
                assert mark.kwargs["promise"] in PROMISES, f"{item.nodeid}: no promise {mark.kwargs['promise']}"
                item.user_properties.append(("fault", (mark.args[0], mark.kwargs["promise"])))  # for the report
            runs = bool(marks) if config.option.faults else item.get_closest_marker("slow") is None
            if (item.get_closest_marker("container") is None) is config.option.container:
                runs = False
            (wanted if runs else others).append(item)
        items[:] = wanted
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report):
        self.shown[report.nodeid] |= {tuple(value) for name, value in report.user_properties if name == "fault"}
        if report.failed or report.when == "call" or report.skipped:
            verdict = "skipped: " + report.longrepr[2].removeprefix("Skipped: ") if report.skipped else report.outcome
            if self.verdicts.get(report.nodeid) != "failed":
                self.verdicts[report.nodeid] = verdict

    def pytest_sessionfinish(self, session):
        chosen = self.config.option
        part = chosen.keyword or chosen.markexpr or chosen.collectonly or self.config.args_source.name != "TESTPATHS"
        is_worker = hasattr(self.config, "workerinput")  # of xdist: it sends its verdicts to the main process
        if chosen.faults and not part and not is_worker:
            TABLE.write_text("\n".join(self._table()) + "\n", encoding="utf-8")

    def _table(self):
        minutes = (time.monotonic() - self.began) / 60
        yield from (
            f"# {len(FAULTS)} faults",
            "",
            "Written by `./sentinel.py test --faults`; `tests/fault_matrix.py` says how. The promises:",
            "",
            *(f"- **{name}** {text}." for name, text in PROMISES.items()),
            "",
            (
                f"The last run took {minutes:.0f} minutes on {os.cpu_count()} cores, Python "
                f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}."
            ),
            "",
            "| | fault | promise | verdict | shown by |",
            "|---|---|---|---|---|",
        )
        for number, fault in FAULTS.items():
            tests = {test: shown for test, shown in self.shown.items() if number in {of for of, _ in shown}}
            promises = {promise for shown in tests.values() for of, promise in shown if of == number}
            names = sorted({test.split("::")[-1].split("[")[0] for test in tests})
            shown_by = ", ".join(f"`{name}`" for name in names)
            yield f"| {number} | {fault} | {' '.join(sorted(promises))} | {self._verdict(tests)} | {shown_by} |"

    def _verdict(self, tests):
        verdicts = [self.verdicts.get(test, "not run") for test in tests]
        passed = verdicts.count("passed")
        others = sorted({verdict for verdict in verdicts if verdict != "passed"})
        if not verdicts:
            return "no test"
        if "failed" in others:
            return f"**broken** ({verdicts.count('failed')} of {len(verdicts)})"
        return "; ".join([*([f"held ({passed})"] if passed else []), *others])
