"""Write a synthetic cadence into a watched folder and follow it to its candidate, picture and message.

The cadence holds a drifting tone that is present in the ONs only, and interference in all six observations. Each demo
has the current time and a telescope number of its own, so it forms no cadence with other files. The demo follows the
files that it wrote, not a target name, so it cannot report a cadence of an earlier demo.
"""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sentinel import COMMAND
from sentinel.config import Config
from sentinel.errors import SentinelError
from sentinel.injection.tone import is_tone, tone_columns, write_sky
from sentinel.monitor.status import not_ready
from sentinel.notify.messages import score_text
from sentinel.store.queue import Store
from sentinel.store.schema import cadence, cadences_below, candidate, outbox

GIVE_UP_S = 600.0
PICTURE_S = 30.0
"""Pictures are drawn after the candidates are recorded."""
SETTLED = ("done", "quarantined", "skipped")


def land(paths: tuple[Path, ...], folder: Path, slow_s: float) -> None:
    """Move files into a watched folder, or copy them in pieces over `slow_s` seconds each; the last scan first."""
    folder.mkdir()
    for path in reversed(paths):
        if not slow_s:
            shutil.move(path, folder / path.name)
            continue
        with path.open("rb") as whole, (folder / path.name).open("wb") as part:
            while piece := whole.read(max(1, path.stat().st_size // 4)):
                part.write(piece)
                part.flush()
                os.fsync(part.fileno())
                time.sleep(slow_s / 4)


def run(
    config: Config, store: Store, *, seed: int, suffix: str, slow_s: float, keep: bool, tell: Callable[[str], object]
) -> bool:
    """Write a cadence, follow it and report the result; return whether the tone was found.

    Args:
        config: of the running service; the files go to its first root that can be written.
        store: of the running service.
        seed: of the synthetic sky.
        suffix: of the files, .h5 or .fil.
        slow_s: seconds over which each file is copied; 0: moved at once.
        keep: leave the files there.
        tell: receives each line of the report.

    Raises:
        SentinelError: the service is not ready, the watched folder is missing, or no cadence formed in time.
    """
    if reason := not_ready(config, store):
        raise SentinelError(f"the service is not ready: {reason}")
    # Recordings may be mounted read-only, as in the container, beside a folder for demos.
    root = next((root for root in config.watch.roots if os.access(root, os.W_OK)), config.watch.roots[0])
    if not root.is_dir():
        raise SentinelError(f"{root}: expected a watched folder, found none; mount or make it")
    folder = root / f"demo-{seed}-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        paths, tone = write_sky(Path(scratch), seed, suffix, f"DEMO{seed}")
        tell(f"landing {len(paths)} files in {folder}")
        land(paths, folder, slow_s)
    ended = _follow(store, folder, tell)
    for row in (unsearched := [row for row in ended if row.state != "done"]):
        tell(f"the cadence is {row.state}: {row.why}; the files stay in {folder}")
    if unsearched:
        return False
    try:
        return _compare(store, [row.id for row in ended], tone, tell)
    finally:
        if not keep:
            for path in paths:
                (folder / path.name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other files are in it
                folder.rmdir()


def _follow(store: Store, folder: Path, tell: Callable[[str], object]) -> list[Any]:
    """Return the rows of the cadences of the files in a folder, once they have ended.

    There are several if `cadence.scans` is less than 6.

    Raises:
        SentinelError: they have not ended after `GIVE_UP_S`; the files stay where they are.
    """
    last, end = "", time.monotonic() + GIVE_UP_S
    own = select(cadence).where(cadence.c.id.in_(cadences_below(folder))).order_by(cadence.c.id)
    while True:
        with store.read() as rows:
            found = rows.execute(own).all()
        state = ", ".join(f"{row.state} {row.why or ''}".strip() for row in found) or "files are settling"
        if state != last:
            tell(f"  {state}")
            last = state
        ended = [row for row in found if row.state in SETTLED]
        if ended and all(row.state in (*SETTLED, "forming") for row in found):
            return ended
        if time.monotonic() > end:
            raise SentinelError(f"not searched in {GIVE_UP_S:.0f} s ({last}); the files stay in {folder}; see status")
        time.sleep(0.5)


def _compare(store: Store, cadence_ids: Sequence[int], tone: Any, tell: Callable[[str], object]) -> bool:
    """Report the injected tone and the candidates, once the picture is drawn; return whether the tone was found."""
    end = time.monotonic() + PICTURE_S
    of_cadences = select(candidate).where(candidate.c.cadence_id.in_(cadence_ids)).order_by(candidate.c.id)
    while True:
        with store.read() as rows:
            found = rows.execute(of_cadences).mappings().all()
        if not found or any(row["picture"] for row in found) or time.monotonic() > end:
            break
        time.sleep(0.2)
    with store.read() as rows:
        sent = select(outbox.c.poster, outbox.c.state, outbox.c.cause).where(outbox.c.cadence_id.in_(cadence_ids))
        messages = rows.execute(sent.order_by(outbox.c.id)).all()
    tell(f"injected  {tone.frequency_mhz:.6f} MHz  {tone.drift_hz_s:+.3f} Hz/s")
    columns = tone_columns(tone, tone.frequency_mhz)
    close = None
    for row in found:
        off_hz = (row["frequency_mhz"] - tone.frequency_mhz) * 1e6
        same = is_tone(columns, row["frequency_mhz"], row["drift_rate_hz_s"])
        close = row if same else close
        tell(
            f"{'found' if same else 'other'}     {row['frequency_mhz']:.6f} MHz  {row['drift_rate_hz_s']:+.3f} Hz/s  "
            f"{score_text(dict(row))}  SNR {' '.join(f'{snr:.1f}' for snr in row['snr'])}  off by {off_hz:+.1f} Hz"
        )
    if close is None:
        tell("the tone was not found")
        return False
    tell(f"candidate {close['id']}, picture {close['picture'] or f'not drawn yet: {COMMAND} status'}")
    for message in messages:
        why = "no channel is configured" if message.state == "off" else message.cause or ""
        tell(f"message   {message.poster}: {message.state} {why}".rstrip())
    if not messages:
        tell("message   none")
    return True
