"""One search without the service: files, or a catalogue that lists them, to a table of candidates and what it cost."""

import csv
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import ReadError
from aetherscan.io import SUFFIXES, open_cadence, verify_complete
from sentinel.config import Search

PACKAGES = ("numpy", "numba", "onnxruntime", "scikit-learn", "h5py", "hdf5plugin")


def listed(names: Sequence[str]) -> list[Path]:
    """Return the files that `names` mean; a .csv lists them, one in each row, below its own folder where relative."""
    paths: list[Path] = []
    for path in map(Path, names):
        if path.suffix != ".csv":
            paths.append(path)
            continue
        with path.open(newline="", encoding="utf-8") as rows:
            cells = [[cell for cell in row if cell.endswith(SUFFIXES)] for row in csv.reader(rows)]
        paths += [path.parent / row[0] for row in cells if row]
    return list(dict.fromkeys(paths))


def detector_of(release: Path, search: Search, encoder: Path | None = None, forest: Path | None = None) -> Any:
    """Return the detector of a release, or with what is not its own, for a mode of searching.

    Raises:
        ReleaseError: something is missing, altered, or does not fit.
    """
    from aetherscan.detector.detector import exchange, load_detector
    from aetherscan.detector.release import file_sha256, weights

    loaded = load_detector(release).for_mode(search.mode)
    own = [loaded.release.card["sha256"][name] for name in weights([search.mode])]
    encoder, forest = (path if path and file_sha256(path) not in own else None for path in (encoder, forest))
    if not encoder and not forest:
        return loaded
    with TemporaryDirectory() as folder:
        if encoder and encoder.suffix == ".keras":
            from aetherscan.train.onnx_export import convert

            convert(encoder, served := Path(folder) / f"{encoder.stem}.onnx")
            encoder = served
        return exchange(loaded, search.threshold, encoder=encoder, forest=forest)


def score(
    paths: Sequence[Path], output: Path, *, detector: Any, threshold: float | None, batch: int, table: str = "csv"
) -> str:
    """Score windows that were cut out already; write a row for each, and return how many are signals."""
    from aetherscan.search.stamps import COLUMNS, LEVELS, open_stamps, score_stamps

    for path in paths:  # all of them before the first is scored
        open_stamps(path, detector.release.snippet, LEVELS)
    least = detector.threshold if threshold is None else threshold
    rows = [row for path in paths for row in score_stamps(path, detector, least, batch)]
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"plates.{table}").open("w", newline="", encoding="utf-8") as stream:
        if table == "json":
            json.dump(rows, stream, indent=1)
        else:
            lines = csv.DictWriter(stream, COLUMNS)
            lines.writeheader()
            lines.writerows(rows)
    found = sum(row["prediction"] for row in rows)
    return f"{found} of {len(rows)} plates from probability {least:.4g} with {detector.release.name}: {stream.name}"


def search(
    paths: Sequence[Path],
    output: Path,
    *,
    detect: Callable[[], Any],
    search: Search,
    table: str = "csv",
    progress: Callable[[float], None] = lambda _: None,
    tell: Callable[[str], None] = print,
) -> int:
    """Search every cadence among `paths`; write candidates and `run.json`; return how many cadences there were.

    A file that cannot be read and observations that make no cadence are told, and named in `run.json`.
    """
    from aetherscan.search.candidates import write_csv, write_json

    began = time.time()
    headers, passed_over = {}, []
    for path in paths:
        try:
            headers[path] = verify_complete(path)
        except ReadError as error:
            passed_over.append(str(error))
    grouping = find_cadences(list(headers.values()))
    passed_over += [f"{group.target}: {group.reason}" for group in grouping.ungrouped]
    for one in passed_over:
        tell(f"not searched: {one}")
    runs: list[dict[str, Any]] = []
    found: list[Any] = []
    used = None
    if grouping.cadences:
        detector = detect()
        used = {"name": detector.release.name, "sha256": detector.release.sha256}
    for count, cadence in enumerate(grouping.cadences):
        share = partial(_share, progress, count, len(grouping.cadences))
        members = [list(headers)[i] for i in cadence.members]
        candidates, costs = _search_one(members, cadence.on, detector, search, share)
        found += candidates
        names = [str(path) for path in members]
        runs.append({"target": cadence.target, "files": names, "candidates": len(candidates), **costs})
    output.mkdir(parents=True, exist_ok=True)
    {"csv": write_csv, "json": write_json}[table](output / f"candidates.{table}", found)
    report = {
        "cadences": runs,
        "not_searched": passed_over,
        "settings": search.model_dump(),
        "release": used,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "headers": [asdict(header) for header in headers.values()],
        "seconds": round(time.time() - began, 3),
    }
    (output / "run.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    tell(f"{len(runs)} cadences, {len(found)} candidates: {output / f'candidates.{table}'}")
    return len(runs)


def trace(paths: Sequence[Path], frequency_mhz: float, *, detect: Callable[[], Any], search: Search) -> Iterator[str]:
    """Yield what every stage of a search makes of one frequency, for each cadence among `paths` that holds it."""
    from aetherscan.options.search import SearchSettings
    from aetherscan.search.explain import trace as trace_cadence

    headers = {path: verify_complete(path) for path in paths}
    detector, settings = detect(), SearchSettings(**search.model_dump())
    for cadence in find_cadences(list(headers.values())).cadences:
        members = [list(headers)[i] for i in cadence.members]
        yield f"{cadence.target}: {', '.join(path.name for path in members)}"
        with open_cadence(members) as observations:
            yield from trace_cadence(observations, detector, settings, frequency_mhz, cadence.on)


def _share(progress: Callable[[float], None], count: int, total: int, done: float) -> None:
    progress((count + done) / total)


def _search_one(
    paths: Sequence[Path], on: tuple[int, ...], detector: Any, search: Search, progress: Callable[[float], None]
) -> tuple[Sequence[Any], dict[str, Any]]:
    from aetherscan.options.search import SearchSettings
    from aetherscan.search.pipeline import search_cadence

    with open_cadence(paths) as observations:
        result = search_cadence(observations, detector, SearchSettings(**search.model_dump()), progress, on)
    return result.candidates, {"counts": result.counts, "stage_s": result.stage_s, "bytes_read": result.bytes_read}
