"""The finished searches of an evaluation in a file, with which an interrupted evaluation continues."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aetherscan.evaluate.matching import MatchedDetection, ScoredSearch, ToneOutcome
from aetherscan.evaluate.searchers import Detection

PACKAGE = Path(__file__).parents[1]


class Journal:
    """One line of JSON for each finished search, in a file named after everything that decides the results."""

    def __init__(self, folder: Path, decided_by: Mapping[str, Any]) -> None:
        """Read what an earlier run of the same evaluation finished.

        Args:
            folder: of the report.
            decided_by: release, settings and seed; the code is added.
        """
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))).hexdigest()
        key = json.dumps({**decided_by, "code": code}, sort_keys=True, default=str)
        self.path = folder / f"unfinished-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsonl"
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last one may have been cut
        if whole != lines:
            self.path.write_text("".join(whole))
        searches = [_search(json.loads(line)) for line in whole]
        self.searches = {(search.scenario, search.cadence, search.searcher): search for search in searches}

    def get(self, scenario: str, cadence: int, searcher: str) -> ScoredSearch | None:
        """Return a finished search, None if it has to be made."""
        return self.searches.get((scenario, cadence, searcher))

    def add(self, search: ScoredSearch) -> None:
        """Record a finished search."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(search)) + "\n")

    def remove(self) -> None:
        """Remove the file, after the report that holds the same has been written."""
        self.path.unlink(missing_ok=True)


def _search(values: dict[str, Any]) -> ScoredSearch:
    found = [{**matched, "detection": Detection(**matched["detection"])} for matched in values["detections"]]
    parts = {
        "tones": tuple(ToneOutcome(**tone) for tone in values["tones"]),
        "detections": tuple(MatchedDetection(**matched) for matched in found),
    }
    return ScoredSearch(**{**values, **parts})
