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
from aetherscan.cadence.roles import role_lines, roles_of
from aetherscan.errors import ReadError
from aetherscan.io import SUFFIXES, open_cadence, verify_complete
from sentinel.config import Search

PACKAGES = ("numpy", "numba", "onnxruntime", "scikit-learn", "h5py", "hdf5plugin")


def listed(names: Sequence[str]) -> list[Path]:
    """Return the paths in `names`; a .csv file is replaced by the paths in its rows, relative to its folder."""
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
    """Return the detector of a release for the configured mode, with another encoder or forest if given.

    Args:
        release: folder of the release.
        search: settings; the mode and the threshold are used.
        encoder: .onnx or .keras file in place of the release's.
        forest: .skops file in place of the release's.

    Raises:
        ReleaseError: a file is missing or altered, or encoder and forest do not fit each other.
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

            convert(encoder, onnx := Path(folder) / f"{encoder.stem}.onnx")
            encoder = onnx
        return exchange(loaded, search.threshold, encoder=encoder, forest=forest)


def score(
    paths: Sequence[Path], output: Path, *, detector: Any, threshold: float | None, batch: int, table: str = "csv"
) -> str:
    """Score stamps, write a row for each, and return a line that says how many are signals.

    Args:
        paths: .npy files of stamps.
        output: folder of the table.
        detector: that scores them.
        threshold: lowest probability of a signal; None: the release's.
        batch: stamps scored at once.
        table: format, csv or json.
    """
    from aetherscan.search.candidates import write_table
    from aetherscan.search.stamps import COLUMNS, LEVELS, open_stamps, score_stamps

    for path in paths:  # check all files before scoring any
        open_stamps(path, detector.release.snippet, LEVELS)
    least = detector.threshold if threshold is None else threshold
    rows = [row for path in paths for row in score_stamps(path, detector, least, batch)]
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"plates.{table}"
    if table == "json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        write_table(path, COLUMNS, rows)
    found = sum(row["prediction"] for row in rows)
    return f"{found} of {len(rows)} stamps from probability {least:.4g} with {detector.release.name}: {path}"


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
    """Search every cadence among files; write candidates and `run.json`; return the number of cadences.

    Unreadable files, and observations that form no cadence, are reported and listed in `run.json`.

    Args:
        paths: files, in any order.
        output: folder of the table and of `run.json`.
        detect: returns the detector; called only if there is a cadence.
        search: settings.
        table: format, csv or json.
        progress: receives the fraction of the work that is done, 0 to 1.
        tell: receives lines for the user.
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
    for reason in passed_over:
        tell(f"not searched: {reason}")
    runs: list[dict[str, Any]] = []
    found: list[Any] = []
    used = None
    if grouping.cadences:
        detector = detect()
        used = {"name": detector.release.name, "sha256": detector.release.sha256}
    for count, cadence in enumerate(grouping.cadences):
        share = partial(_share, progress, count, len(grouping.cadences))
        members = [list(headers)[i] for i in cadence.members]
        roles = roles_of([headers[path] for path in members], cadence.on)
        for line in role_lines(cadence.target, roles):
            tell(line)
        candidates, costs = _search_cadence(members, cadence.on, detector, search, share)
        found += candidates
        names = [str(path) for path in members]
        runs.append({"target": cadence.target, "files": names, "roles": roles, "candidates": len(candidates), **costs})
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
    """Yield lines that explain what each stage of a search does at one frequency, for every cadence.

    Args:
        paths: files, in any order.
        frequency_mhz: to explain, MHz.
        detect: returns the detector.
        search: settings.
    """
    from aetherscan.options.search import SearchSettings
    from aetherscan.search.explain import trace as trace_cadence

    headers = {path: verify_complete(path) for path in paths}
    detector, settings = detect(), SearchSettings(**search.model_dump())
    for cadence in find_cadences(list(headers.values())).cadences:
        members = [list(headers)[i] for i in cadence.members]
        yield from role_lines(cadence.target, roles_of([headers[path] for path in members], cadence.on))
        yield f"{cadence.target}: {', '.join(path.name for path in members)}"
        with open_cadence(members) as observations:
            yield from trace_cadence(observations, detector, settings, frequency_mhz, cadence.on)


def _share(progress: Callable[[float], None], count: int, total: int, done: float) -> None:
    progress((count + done) / total)


def _search_cadence(
    paths: Sequence[Path], on: tuple[int, ...], detector: Any, search: Search, progress: Callable[[float], None]
) -> tuple[Sequence[Any], dict[str, Any]]:
    from aetherscan.options.search import SearchSettings
    from aetherscan.search.pipeline import search_cadence

    with open_cadence(paths) as observations:
        result = search_cadence(observations, detector, SearchSettings(**search.model_dump()), progress, on)
    return result.candidates, {"counts": result.counts, "stage_s": result.stage_s, "bytes_read": result.bytes_read}
