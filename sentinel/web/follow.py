"""Where to look for a candidate again, as text: predicted in a process of its own, which ends.

astropy takes as much memory as the whole web program, and seconds to load, so it stays out of it. One prediction is
made at a time, and used for a minute.
"""

import json
import subprocess
import sys
import threading
import time
from functools import lru_cache

from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sentinel.store.injected import injected_row
from sentinel.store.schema import cadence, candidate
from sentinel.web.candidate import candidate_id
from sentinel.web.desk import Desk, Visitor, refuse

ONE_AT_A_TIME = threading.Lock()
LONGEST_S = 60.0
MINUTE_S = 60
NEEDED = (
    *("frequency_mhz", "drift_rate_hz_s", "curvature_hz_s2", "bandwidth_hz", "tstart_mjd", "target", "telescope"),
    *("ra_deg", "dec_deg", "on_separation_arcmin"),
)


def respond(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Return the line for the observer and the table of the next hours."""
    if desk.exports.exceeded(visitor.name or "anyone"):
        return refuse(request, 429, "too many predictions: wait a minute")
    number = candidate_id(request)
    known = select(*(candidate.c[name] for name in NEEDED), cadence.c.run).join(cadence)
    with desk.store.read() as rows:
        row = rows.execute(known.where(candidate.c.id == number)).mappings().first()
        if row is None and injected_row(rows, number):
            raise HTTPException(404, f"candidate {number} is an injected signal: there is nothing to follow")
    if row is None:
        raise HTTPException(404, f"no candidate {number}")
    roles = (row["run"] or {}).get("roles")
    asked = {"row": {name: row[name] for name in NEEDED}, "run": {"roles": roles}}
    with ONE_AT_A_TIME:
        text = _predicted(json.dumps(asked), int(time.time()) // MINUTE_S)
    return PlainTextResponse(text)


@lru_cache(maxsize=64)
def _predicted(asked: str, minute: int) -> str:
    command = [sys.executable, "-P", "-m", "sentinel.notify.followup", str(minute * MINUTE_S)]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=LONGEST_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HTTPException(503, f"no prediction: {type(error).__name__}") from error
    return done.stdout
