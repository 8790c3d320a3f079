"""List, show, export and label candidates; list what was quarantined."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select

from aetherscan.io.outputs import check_writable, whole_file
from sentinel.errors import StoreError
from sentinel.notify.messages import one_line, remarks, score_text
from sentinel.store.filters import Filter, ordering
from sentinel.store.labels import put_labels
from sentinel.store.queue import Store, written_file
from sentinel.store.schema import attempt, cadence, candidate, file, labeled
from sentinel.store.tables import with_latents, write_candidates


def newest(store: Store, count: int, asked: Filter | None = None, person: str = "") -> list[str]:
    """Return one line for each of the first `count` candidates of a filter.

    Args:
        store: that holds the candidates.
        count: most lines.
        asked: filter and order; None for the newest of all.
        person: who asks, for `label=mine`.
    """
    query = labeled()
    if asked is None:
        query = query.order_by(candidate.c.id.desc())
    else:
        query = query.where(*asked.conditions(person)).order_by(*ordering(asked.sort))
    with store.read() as rows:
        found = [dict(row) for row in rows.execute(query.limit(count)).mappings()]
    return [
        f"{row['id']:>6}  {one_line(row['target'], 16):<16} "
        f"{row['frequency_mhz']:.6f} MHz {row['drift_rate_hz_s']:+.3f} Hz/s  {score_text(row)}  "
        f"SNR {' '.join(f'{snr:.1f}' for snr in row['snr'])}  "
        f"MJD {row['tstart_mjd']:.4f}  {remarks(row)}".rstrip()
        for row in found
    ]


def as_json(store: Store, candidate_id: int) -> str:
    """Return all columns of a candidate as JSON, the latents last.

    Raises:
        StoreError: there is no such row.
    """
    with store.read() as rows:
        found = rows.execute(labeled().where(candidate.c.id == candidate_id)).mappings().one_or_none()
    if found is None:
        raise StoreError(f"candidate {candidate_id}: no such row")
    return json.dumps(with_latents(dict(found)), indent=1)


def follow(store: Store, candidate_id: int, unix_s: float) -> list[str]:
    """Return where to look for a candidate again: a line for the observer, and a table of the next hours.

    Args:
        store: that holds the candidate.
        candidate_id: number of its row.
        unix_s: time of the prediction, seconds since 1970.

    Raises:
        StoreError: there is no such row.
    """
    from sentinel.notify.followup import follow_lines

    joined = select(candidate, cadence.c.run).join(cadence).where(candidate.c.id == candidate_id)
    with store.read() as rows:
        row = rows.execute(joined).mappings().one_or_none()
    if row is None:
        raise StoreError(f"candidate {candidate_id}: no such row")
    return follow_lines(dict(row), row["run"] or {}, unix_s)


def draw(store: Store, candidate_id: int, path: Path, *, track: bool = True) -> None:
    """Draw the waterfall of a candidate from the files of its cadence, or from its stamp, with the recorded track.

    Args:
        store: that holds the candidate.
        candidate_id: number of its row.
        path: of the PNG.
        track: whether lines show where the track is.

    Raises:
        StoreError: there is no such row, or files of its cadence are gone and no stamp was kept, or a damaged one.
        ReadError: a file cannot be read.
    """
    from sentinel.workers.pictures import waterfalls
    from sentinel.workers.search import scan_count

    check_writable(path.parent, path.name)
    joined = select(candidate, cadence.c.pattern, cadence.c.run).join(cadence).where(candidate.c.id == candidate_id)
    with store.read() as rows:
        row = rows.execute(joined).mappings().one_or_none()
    if row is None:
        raise StoreError(f"candidate {candidate_id}: no such row")
    paths, expected = store.paths(row["cadence_id"]), scan_count(row["pattern"])
    polarization = (row["run"] or {}).get("polarization")
    if len(paths) != expected:
        paths, polarization = _stamp_scans(store, candidate_id, f"{expected} files of its cadence, found {len(paths)}")
    draws = waterfalls(paths, row["pattern"], [dict(row)], polarization, track=track)
    (content,) = [one() for one in draws]  # the files are closed after the last
    with whole_file(path) as part:
        part.write_bytes(content)


def _stamp_scans(store: Store, candidate_id: int, lacking: str) -> tuple[tuple[Path, ...], None]:
    """Return the files of the scans in a candidate's stamp, and the polarization to read: their only one.

    Args:
        store: that names the stamp.
        candidate_id: number of the row.
        lacking: what was expected in place of it, and what was found.

    Raises:
        StoreError: no stamp was kept, or it is damaged.
    """
    from sentinel.workers.stamps import read_stamp

    with store.read() as rows:
        stamp = written_file(rows, candidate_id, "stamp")
    if stamp is None:
        raise StoreError(f"candidate {candidate_id}: expected the {lacking}, and no stamp was kept")
    return tuple(read_stamp(Path(stamp[0]), stamp[1])[1]), None


def set_aside(store: Store) -> list[str]:
    """Return one line for each quarantined cadence and each invalid file, newest first, with its cause."""
    quarantined = select(cadence).where(cadence.c.state == "quarantined").order_by(cadence.c.tstart.desc())
    invalid = select(file.c.path, file.c.cause).where(file.c.state == "invalid").order_by(file.c.id.desc())
    with store.read() as rows:
        return [
            *(
                f"{row.id:>6}  {row.target:<16.16} MJD {row.tstart:.4f}  "
                f"{row.band_low_mhz:.3f}-{row.band_high_mhz:.3f} MHz  "
                f"{f'{row.attempts} attempts: ' if row.attempts else ''}{row.why}"
                for row in rows.execute(quarantined)
            ),
            *(f"  file  {path!a}: {cause}" for path, cause in rows.execute(invalid)),
        ]


def history(store: Store, cadence_id: int) -> str:
    """Return a cadence, the paths of its files and its attempts as JSON.

    Raises:
        StoreError: there is no such row.
    """
    tried = select(attempt).where(attempt.c.cadence_id == cadence_id).order_by(attempt.c.id)
    with store.read() as rows:
        found = rows.execute(select(cadence).where(cadence.c.id == cadence_id)).mappings().one_or_none()
        attempts = [dict(row) for row in rows.execute(tried).mappings()]
    if found is None:
        raise StoreError(f"cadence {cadence_id}: no such row")
    files = [str(path) for path in store.paths(cadence_id)]
    return json.dumps({**found, "files": files, "attempts": attempts}, indent=1)


def export(store: Store, path: Path, asked: Filter | None = None, person: str = "") -> int:
    """Write candidates to a .csv, .ecsv or .json file; return their number.

    Args:
        store: that holds the candidates.
        path: of the file.
        asked: filter and order; None for every row.
        person: who asks, for `label=mine`.
    """
    check_writable(path.parent, path.name)
    return write_candidates(store, path, asked, person)


def put_label(store: Store, candidate_id: int, word: str, by: str, **about: Any) -> None:
    """Record what a person takes a candidate for.

    Args:
        store: that holds the candidate.
        candidate_id: number of its row.
        word: candidate, RFI or unsure.
        by: name of the person.
        about: `reason` and `note`.

    Raises:
        StoreError: there is no such row.
    """
    with store.write() as rows:
        put_labels(rows, [candidate_id], word, by, via="command", **about)
