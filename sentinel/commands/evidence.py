"""Pack what stands behind a candidate into one archive: its power, row, labels, trace and checksums."""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select

from aetherscan.errors import AetherscanError
from aetherscan.io import open_cadence
from aetherscan.io.outputs import check_writable, whole_file
from aetherscan.search.explain import trace
from sentinel.commands.candidates import as_json
from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.store.queue import OWED, Store
from sentinel.store.schema import artefact, attempt, cadence, candidate, label
from sentinel.workers.process import detector_for
from sentinel.workers.search import fill_missing, on_positions, scan_count
from sentinel.workers.stamps import DESCRIPTION, described, read_stamp, write_stamp

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member: equal evidence gives equal archives."""
SUMS = "SHA256SUMS"


def pack(config: Config, store: Store, candidate_id: int, output: Path | None = None) -> Path:
    """Write the evidence of a candidate to a .zip file, whole or not at all; return its path.

    Its stamp is checked; if there is none, one is cut from the files of the cadence. The trace is made from these files
    by the release that scored it, and left out with the reason where they are gone.

    Args:
        config: of the service.
        store: that holds the candidate.
        candidate_id: number of its row.
        output: of the archive; None for candidate-ID.zip in the current folder.

    Raises:
        StoreError: there is no such row, its stamp is damaged, or there is neither a stamp nor the files for one.
        OSError: the archive cannot be written.
    """
    output = output or Path(f"candidate-{candidate_id}.zip")
    check_writable(output.parent, output.name)
    facts = as_json(store, candidate_id)
    row, tables, files = _records(store, candidate_id)
    with TemporaryDirectory(prefix="sentinel-evidence-") as scratch:
        members = {"candidate.json": f"{facts}\n".encode()}
        members |= {f"{name}.json": f"{json.dumps(of, indent=1)}\n".encode() for name, of in tables.items()}
        members |= {f"stamp/{path.name}": path.read_bytes() for path in _stamp(store, row, files, Path(scratch))}
        members |= {path.name: path.read_bytes() for path in _pictures(files)}
        members["trace.txt"] = "".join(f"{line}\n" for line in _trace(config, store, row)).encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items())
    with whole_file(output) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, SUMS: sums.encode()}.items():
            archive.writestr(zipfile.ZipInfo(f"{output.stem}/{name}", EPOCH), content, zipfile.ZIP_DEFLATED)
    return output


def _records(store: Store, candidate_id: int) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """Return the row with pattern and run of its cadence; cadence, attempts and labels; and the written files."""
    row_of = select(candidate, cadence.c.pattern, cadence.c.run).join(cadence).where(candidate.c.id == candidate_id)
    with store.read() as rows:
        row = dict(rows.execute(row_of).mappings().one())
        searched = select(cadence).where(cadence.c.id == row["cadence_id"])
        tried = select(attempt).where(attempt.c.cadence_id == row["cadence_id"]).order_by(attempt.c.id)
        given = select(label).where(label.c.candidate_id == candidate_id).order_by(label.c.id)
        tables = {
            "cadence": dict(rows.execute(searched).mappings().one()),
            "attempts": [dict(line) for line in rows.execute(tried).mappings()],
            "labels": [dict(line) for line in rows.execute(given).mappings()],
        }
        written = select(artefact).where(artefact.c.candidate_id == candidate_id, artefact.c.sha256 != OWED)
        return row, tables, list(rows.execute(written))


def _stamp(store: Store, row: dict[str, Any], files: list[Any], scratch: Path) -> list[Path]:
    """Return the files of a candidate's stamp, which is cut now if there is none."""
    kept = [file for file in files if file.kind == "stamp"]
    if kept:
        _, scans = read_stamp(Path(kept[0].path), kept[0].sha256)
        return [*scans, Path(kept[0].path) / DESCRIPTION]
    paths, on = store.paths(row["cadence_id"]), on_positions(row["pattern"])
    if len(paths) != scan_count(row["pattern"]):
        raise StoreError(f"candidate {row['id']}: expected a stamp or the files of its cadence, found neither")
    run = row["run"] or {}
    with open_cadence(paths, run.get("polarization")) as opened:
        folder = scratch / "stamp"
        write_stamp(folder, fill_missing(opened, row["pattern"]), row, on, described(store, row, run))
    return sorted(folder.iterdir())


def _pictures(files: list[Any]) -> list[Path]:
    """Return the picture and the training example of a candidate that still are as they were written."""

    def sound(path: Path, sha256: str) -> bool:
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256

    return [Path(file.path) for file in files if file.kind != "stamp" and sound(Path(file.path), file.sha256)]


def _trace(config: Config, store: Store, row: dict[str, Any]) -> Iterator[str]:
    """Yield what a search does with the candidate at every stage, or why that is not known."""
    paths = store.paths(row["cadence_id"])
    if len(paths) != scan_count(row["pattern"]):
        yield "no trace: the files of the cadence are gone"
        return
    try:
        detector = detector_for(config.release.parent / row["release_name"])
        if detector.release.sha256 != row["release_sha256"]:
            yield f"no trace: the release {row['release_name']} is not the one that scored it"
            return
        settings, run = config.search.settings(), row["run"] or {}
        with open_cadence(paths, run.get("polarization")) as opened:
            observations = fill_missing(opened, row["pattern"])
            yield from trace(observations, detector, settings, row["frequency_mhz"], on_positions(row["pattern"]))
    except AetherscanError as error:
        yield f"no trace: {type(error).__name__}: {error}"
