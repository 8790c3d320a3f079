"""The searches that an evaluation compares: what they take, and what they return.

A search gets the six files of a cadence and the positions of the ONs, and no other information about the sky.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.detector.detector import Detector
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One line that a search reports."""

    frequency_mhz: float  # at the start of the first ON
    drift_hz_s: float  # there
    snr: float  # median of the ONs
    probability: float = 1.0
    curvature_hz_s2: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutput:
    """The detections in one cadence, and what each stage of the search counted and cost in seconds of work."""

    detections: tuple[Detection, ...]
    stage_s: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    digest: str = ""  # SHA-256 of the candidate table: equal only if every bit is


SearchFunction = Callable[[Sequence[Path], tuple[int, ...]], SearchOutput]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searcher:
    """A named search and the cadences that it searches: all of them by default."""

    name: str
    search: SearchFunction
    scenarios: tuple[str, ...] = ()
    max_cadences: int | None = None  # of each scenario
    on: tuple[int, ...] = ON_POSITIONS

    def searches(self, scenario: str, number: int) -> bool:
        """Return whether it searches cadence `number` of a scenario."""
        return (not self.scenarios or scenario in self.scenarios) and number < (self.max_cadences or number + 1)


def release_search(detector: Detector, settings: SearchSettings) -> SearchFunction:
    """Return the search that the service runs, with a loaded release."""

    def search(paths: Sequence[Path], on: tuple[int, ...]) -> SearchOutput:
        with open_cadence(paths) as observations:
            result = search_cadence(observations, detector, settings, on=on)
        detections = (
            Detection(
                frequency_mhz=candidate.frequency_mhz,
                drift_hz_s=candidate.drift_rate_hz_s,
                snr=float(np.median([candidate.snr[i] for i in on])),
                probability=candidate.probability or 0.0,
                curvature_hz_s2=candidate.curvature_hz_s2,
            )
            for candidate in result.candidates
        )
        table = json.dumps([asdict(candidate) for candidate in result.candidates])
        return SearchOutput(
            detections=tuple(detections),
            stage_s=result.stage_s,
            counts=result.counts,
            digest=hashlib.sha256(table.encode()).hexdigest(),
        )

    return search
