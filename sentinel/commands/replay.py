"""Search recorded cadences again and report every difference.

With the same release, code and settings there is none: rows are compared as text, including the last digit of each
number, and pictures by checksum. Nothing is written to the store.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from aetherscan.errors import AetherscanError
from aetherscan.header import UNIX_EPOCH_MJD
from sentinel import VERSION
from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.store.queue import OWED, SearchRecord, Store
from sentinel.store.releases import active_release
from sentinel.store.schema import artefact, cadence, candidate, superseded
from sentinel.workers.pictures import waterfalls
from sentinel.workers.process import detector_for
from sentinel.workers.search import scan_count, search_files

SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
OWN = (
    *("id", "cadence_id", "attempt_id", "picture", "seen_before", "seen_cadences", "seen_of", "seen_targets"),
    *("last_seen_mjd", "label_in_force", "latents"),
)
"""Columns that do not depend on the search, and the latents of version 9 of the store."""
ADDED = {
    "drift_nhz": {
        *("ra_deg", "dec_deg", "telescope", "barycentric_mhz", "barycentric_drift_hz_s", "drift_nhz", "joint_snr"),
        *("valid_share", "muted", "kind", "kind_probability"),
    },
    "rfi_density": {"rfi_density"},
}
"""Columns that versions 10 and 13 of the store added, by one of them that is null only in rows of earlier versions."""


def moment(text: str) -> float:
    """Return seconds since 1970 (UTC) for a date, an MJD, or an age such as 12h.

    Raises:
        ConfigError: the text is none of these.
    """
    if length := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([mhd])", text):
        return time.time() - float(length[1]) * SECONDS[length[2]]
    try:
        if re.fullmatch(r"\d{5}(\.\d+)?", text):
            return (float(text) - UNIX_EPOCH_MJD) * SECONDS["d"]
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--since: expected a date, an MJD or an age such as 12h, found {text!r}") from error
    return at.replace(tzinfo=at.tzinfo or UTC).timestamp()


def replay(config: Config, store: Store, since: float, tell: Callable[[str], object]) -> bool:
    """Search cadences again with the active release; return whether there are results and all are the same.

    Args:
        config: of the service.
        store: that holds the cadences.
        since: start of the period, seconds since 1970: cadences recorded from then on.
        tell: receives each difference, and a summary.
    """
    detector = detector_for(active_release(store, config.release))
    recorded = select(cadence).where(cadence.c.state == "done", cadence.c.ended_at >= since).order_by(cadence.c.id)
    with store.read() as rows:
        cadences = rows.execute(recorded).all()
    changed = away = 0
    for entry in cadences:
        paths = store.paths(entry.id)
        if len(paths) != scan_count(entry.pattern):
            away += 1
            tell(f"cadence {entry.id}: {entry.target}: its files are missing")
            continue
        try:
            found = search_files(paths, entry.pattern, lambda _: None, config, detector, entry.id)
            said = list(differences(store, entry, found, paths))
        except (AetherscanError, OSError) as error:
            said = [f"{type(error).__name__}: {error}"]
        changed += bool(said)
        for line in said:
            tell(f"cadence {entry.id}: {entry.target}: {line}")
    by = f"release {detector.release.name} ({detector.release.sha256[:12]}), code {VERSION}"
    tell(f"{len(cadences) - away} cadences searched again by {by}: {changed} differ; {away} have missing files")
    return len(cadences) > away and not changed  # what was not compared is not the same


def differences(store: Store, entry: Row[Any], found: SearchRecord, paths: Sequence[Path]) -> Iterator[str]:
    """Yield one line for each difference between a new search of a cadence and its record.

    Args:
        store: that holds the record.
        entry: row of the cadence.
        found: result of the new search.
        paths: files of the cadence, in time order; the pictures are drawn from them again.
    """
    with store.read() as rows:
        current = select(candidate).where(candidate.c.cadence_id == entry.id, ~superseded())
        old = [dict(row) for row in rows.execute(current).mappings()]
        drawn = rows.execute(select(artefact.c.path, artefact.c.sha256).where(artefact.c.cadence_id == entry.id)).all()
    before, after = _by_frequency(old), _by_frequency(found.candidates)
    for place in sorted(before.keys() - after.keys()):
        yield f"missing: {place} MHz, {_brief(before[place])}"
    for place in sorted(after.keys() - before.keys()):
        yield f"new: {place} MHz, {_brief(after[place])}"
    for place in sorted(before.keys() & after.keys()):
        was, now = before[place], after[place]
        unknown = set[str]().union(*(added for name, added in ADDED.items() if was[name] == "null"))
        for name in sorted((was.keys() & now.keys()) - unknown):
            if was[name] != now[name]:
                yield f"{place} MHz: {name} was {was[name]:.80}, is {now[name]:.80}"
    pictures = {path: sha256 for path, sha256 in drawn if sha256 != OWED}
    rows_drawn = [found.candidates[rank] for rank, _ in found.pictures]
    draws = waterfalls(paths, entry.pattern, rows_drawn, found.run["polarization"])
    for (_, path), draw in zip(found.pictures, draws, strict=True):
        if path in pictures and pictures[path] != hashlib.sha256(draw()).hexdigest():
            yield f"different picture: {Path(path).name}"


def _by_frequency(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the columns of each row as text, by frequency; several rows at one frequency get different keys."""
    texts: dict[str, dict[str, str]] = {}
    for row in rows:
        place = repr(float(row["frequency_mhz"]))
        place += "+" * sum(1 for other in texts if other.rstrip("+") == place)
        texts[place] = {name: json.dumps(value, default=float) for name, value in row.items() if name not in OWN}
    return texts


def _brief(row: Mapping[str, str]) -> str:
    return f"probability {row['probability']}, drift {row['drift_rate_hz_s']} Hz/s"
