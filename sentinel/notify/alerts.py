"""Alerts for machines: what a message says, as JSON that `alert-v1.schema.json` describes.

An alert lists the candidates of a message with their state. A later alert with the same `uid` replaces the earlier one:
`initial` is the first, `update` follows when a label, a picture or a late slice changed it, and `retraction` when no
candidate of it stands any more, because all are superseded by a later search or labeled RFI. An undone label makes it
an `update` again. An alert that is sent twice because its receipt was lost has the same `alert_id`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentinel.notify.messages import rank

SCHEMA = Path(__file__).with_name("alert-v1.schema.json")
NAME, VERSION = "sentinel-alert", 1
MOST = 100
"""Candidates in an alert: those that stand first, of these the labeled ones, then by rank. `counts` has all."""
SAME = (
    *("id", "cadence_id", "frequency_mhz", "drift_rate_hz_s", "curvature_hz_s2", "bandwidth_hz", "barycentric_mhz"),
    *("barycentric_drift_hz_s", "drift_nhz", "snr", "valid", "joint_snr", "probability", "probability_spread"),
    *("strangeness", "scored_by", "tstart_mjd", "target", "telescope", "ra_deg", "dec_deg", "on_separation_arcmin"),
    *("note", "allocations", "clock", "comb_spacing_hz", "comb_teeth", "neighbours", "nearest_hz", "seen_before"),
    *("seen_cadences", "seen_of", "seen_targets", "last_seen_mjd", "label"),
    *("release_name", "release_sha256", "code_version", "config_sha256"),
)
"""Fields of a candidate that are columns of the table `candidate`, with the label in force."""

Alert = Mapping[str, Any]


def alert_of(
    uid: str,
    cadences: Sequence[Mapping[str, Any]],
    candidates: Sequence[Mapping[str, Any]],
    *,
    revision: str,
    issued_s: float,
    pictures: Sequence[str] = (),
    follow_up: str = "",
    url: str = "",
) -> dict[str, Any]:
    """Return the alert of a message.

    Args:
        uid: of the message.
        cadences: rows of its cadences, the first one first.
        candidates: rows of all their candidates that were measured, with `label` and `superseded`.
        revision: what distinguishes this alert from others of the message; "0" for the first.
        issued_s: time of the alert, seconds since 1970.
        pictures: paths of the pictures that have been sent with the message.
        follow_up: line for the observer.
        url: of the page with the candidates, or an empty string.
    """
    listed = sorted(map(_candidate, candidates), key=_order)
    standing = sum(each["status"] == "current" for each in listed)
    first = cadences[0]
    alert = {
        "schema": NAME,
        "version": VERSION,
        "alert_id": f"{uid}-{revision}",
        "uid": uid,
        "kind": "initial" if revision == "0" else "update" if standing else "retraction",
        "issued_utc": datetime.fromtimestamp(issued_s, UTC).isoformat(timespec="milliseconds"),
        "target": first["target"],
        "tstart_mjd": first["tstart"],
        "band_mhz": [min(row["band_low_mhz"] for row in cadences), max(row["band_high_mhz"] for row in cadences)],
        "cadences": [row["id"] for row in cadences],
        "counts": {"current": standing, "retracted": len(listed) - standing},
        "candidates": listed[:MOST],
        "pictures": [Path(path).name for path in pictures],
        "follow_up": follow_up if standing else "",
        "url": url,
    }
    return {name: _plain(value) for name, value in alert.items()}


def with_picture(alert: Alert, picture: str) -> dict[str, Any]:
    """Return the alert that comes with a picture."""
    name = Path(picture).name
    kind = "retraction" if alert["kind"] == "retraction" else "update"
    names = [*(known for known in alert["pictures"] if known != name), name]
    return {**alert, "alert_id": f"{alert['uid']}-{name}", "kind": kind, "pictures": names}


def released(alert: Alert) -> dict[str, Any]:
    """Return the alert with those candidates only that people have labeled `candidate`; a retraction if none is."""
    labeled = [each for each in alert["candidates"] if each["label"] == "candidate" and each["status"] == "current"]
    kind = alert["kind"] if labeled else "retraction"
    follow_up = alert["follow_up"] if labeled else ""
    counts = {"current": len(labeled), "retracted": 0}
    return {**alert, "kind": kind, "candidates": labeled, "counts": counts, "follow_up": follow_up}


def as_json(alert: Alert) -> str:
    """Return an alert as the text that is sent."""
    return json.dumps(alert, allow_nan=False, ensure_ascii=False)


def _candidate(row: Mapping[str, Any]) -> dict[str, Any]:
    status = "superseded" if row.get("superseded") else "RFI" if row.get("label") == "RFI" else "current"
    return {"status": status, **{name: row.get(name) for name in SAME}}


def _order(candidate: Mapping[str, Any]) -> tuple[bool, bool, float]:
    return candidate["status"] != "current", candidate["label"] != "candidate", -rank(candidate)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: a number that is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
