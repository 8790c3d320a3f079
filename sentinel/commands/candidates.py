"""Candidates, and what was set aside, as people and other programs read them."""

import json
from pathlib import Path

from sqlalchemy import func, insert, select, update

from aetherscan.search.candidates import write_table
from sentinel.errors import StoreError
from sentinel.notify.messages import one_line, remarks
from sentinel.store.queue import Store
from sentinel.store.schema import attempt, cadence, candidate, file, label, labeled, now, outbox

HIDDEN = ("latents", "snr")
"""Columns that a table of numbers has no place for; `snr` becomes six."""


def newest(store: Store, count: int) -> list[str]:
    """Return one line for each of the newest candidates."""
    with store.read() as rows:
        newest_first = labeled().order_by(candidate.c.id.desc()).limit(count)
        found = [dict(one) for one in rows.execute(newest_first).mappings()]
    return [
        f"{one['id']:>6}  {one_line(one['target'], 16):<16} "
        f"{one['frequency_mhz']:.6f} MHz {one['drift_rate_hz_s']:+.3f} Hz/s  p {one['probability']:.3f}  "
        f"SNR {' '.join(f'{snr:.1f}' for snr in one['snr'])}  "
        f"MJD {one['tstart_mjd']:.4f}  {remarks(one)}".rstrip()
        for one in found
    ]


def one(store: Store, candidate_id: int) -> str:
    """Return everything on a candidate's row, as JSON."""
    with store.read() as rows:
        found = rows.execute(labeled().where(candidate.c.id == candidate_id)).mappings().one_or_none()
    if found is None:
        raise StoreError(f"candidate {candidate_id}: no such row")
    return json.dumps(dict(found), indent=1)


def set_aside(store: Store) -> list[str]:
    """Return one line for each quarantined cadence and each invalid file, newest first, with the cause."""
    of = select(cadence).where(cadence.c.state == "quarantined").order_by(cadence.c.tstart.desc())
    invalid = select(file.c.path, file.c.cause).where(file.c.state == "invalid").order_by(file.c.id.desc())
    with store.read() as rows:
        return [
            *(
                f"{one.id:>6}  {one.target:<16.16} MJD {one.tstart:.4f}  "
                f"{one.band_low_mhz:.3f}-{one.band_high_mhz:.3f} MHz  {one.attempts} attempts: {one.why}"
                for one in rows.execute(of)
            ),
            *(f"  file  {path!a}: {cause}" for path, cause in rows.execute(invalid)),
        ]


def history(store: Store, cadence_id: int) -> str:
    """Return a cadence's row, where its files are and what became of each attempt, as JSON."""
    tried = select(attempt).where(attempt.c.cadence_id == cadence_id).order_by(attempt.c.id)
    with store.read() as rows:
        found = rows.execute(select(cadence).where(cadence.c.id == cadence_id)).mappings().one_or_none()
        attempts = [dict(one) for one in rows.execute(tried).mappings()]
    if found is None:
        raise StoreError(f"cadence {cadence_id}: no such row")
    files = [str(path) for path in store.paths(cadence_id)]
    return json.dumps({**found, "files": files, "attempts": attempts}, indent=1)


def export(store: Store, path: Path) -> int:
    """Write every candidate to a .csv or .json file; return how many there were."""
    with store.read() as rows:
        found = [dict(one) for one in rows.execute(labeled().order_by(candidate.c.id)).mappings()]
    if path.suffix == ".json":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return len(found)
    columns = [name for name in candidate.c.keys() if name not in HIDDEN]  # noqa: SIM118
    columns += ["label", *(f"snr_{i}" for i in range(6))]
    write_table(path, columns, (row | {f"snr_{i}": snr for i, snr in enumerate(row["snr"])} for row in found))
    return len(found)


def put_label(store: Store, candidate_id: int, word: str, by: str) -> None:
    """Say what a person takes a candidate for; the message that told of it will say so too. The last word counts."""
    with store.write() as rows:
        of = rows.scalar(select(candidate.c.cadence_id).where(candidate.c.id == candidate_id))
        if of is None:
            raise StoreError(f"candidate {candidate_id}: no such row")
        rows.execute(insert(label).values(candidate_id=candidate_id, label=word, by=by, at=now()))
        speak = select(func.coalesce(outbox.c.parent_id, outbox.c.id)).where(outbox.c.cadence_id == of)
        shown = outbox.c.id.in_(speak) & (outbox.c.state != "off")
        rows.execute(update(outbox).where(shown).values(stale_at=now()))
