"""Queue recorded cadences again, after a new reduction of their files or with a new release.

The search is one more attempt of the cadence. The candidates of the earlier attempts stay, marked `superseded`, once it
is recorded. A message that was sent is edited and not sent again.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import func, select

from sentinel.errors import StoreError
from sentinel.store.queue import Store, batches, queue_again
from sentinel.store.schema import cadence, cadence_file, candidate, file, lacks_files

SEARCHED = ("done", "quarantined")


def requeue(store: Store, paths: Sequence[Path], target: str | None, since: float | None) -> list[str]:
    """Queue the cadences that meet every given condition; return one line for each, and for each that stays.

    Args:
        store: that holds the cadences.
        paths: files of the cadences; none: any.
        target: of the cadences, as the headers name it; None: any.
        since: start of the period in which they were recorded, seconds since 1970; None: any time.

    Raises:
        StoreError: a file is unknown, or there is no such cadence; nothing was queued.
    """
    chosen = select(cadence.c.id, cadence.c.target, cadence.c.state, cadence.c.tstart).order_by(cadence.c.id)
    if target is not None:
        chosen = chosen.where(cadence.c.target == target)
    if since is not None:
        chosen = chosen.where(cadence.c.ended_at >= since)
    with store.write() as rows:
        if paths:
            names = {str(form): str(path) for path in paths for form in (path.absolute(), path.resolve())}
            known = {row.path: row.observation for row in rows.execute(select(file).where(file.c.path.in_(names)))}
            if unknown := sorted(set(names.values()) - {names[path] for path in known}):
                found = ", ".join(unknown)
                raise StoreError(f"expected files that the watcher has seen, found {found}: none was queued")
            members = select(cadence_file.c.cadence_id).where(cadence_file.c.observation.in_(set(known.values())))
            chosen = chosen.where(cadence.c.id.in_(members))
        cadences = rows.execute(chosen.add_columns(lacks_files(cadence).label("missing"))).all()
        if not cadences:
            raise StoreError("no cadence meets these conditions: none was queued")
        again = [row.id for row in cadences if row.state in SEARCHED and not row.missing]
        counts = dict[int, int]()
        for ids in batches(again):
            count = select(candidate.c.cadence_id, func.count()).where(candidate.c.cadence_id.in_(ids))
            counts |= {row[0]: row[1] for row in rows.execute(count.group_by(candidate.c.cadence_id))}
        queue_again(rows, again)
    lines = []
    for row in cadences:
        what = f"queued again; {counts.get(row.id, 0)} candidates recorded before"
        if row.id not in again:
            what = "not queued: " + ("its files are missing" if row.state in SEARCHED else f"it is {row.state}")
        lines.append(f"{row.id:>6}  {row.target:<16.16} MJD {row.tstart:.4f}  {what}")
    return [*lines, f"{len(again)} of {len(cadences)} cadences queued again"]
