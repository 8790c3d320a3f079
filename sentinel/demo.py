"""Show that the whole path works: one synthetic cadence lands, and is followed to its candidate, picture and message.

A drifting tone that is there only when the telescope points at the target, among interference that is there always.
Each demo is observed just now by a telescope of its own, so that it mixes with no other scans.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from sentinel.config import Config
from sentinel.schema import cadence, candidate, outbox
from sentinel.store import Store

NCHANS = 2**17
TONE_SNR = 40.0
CLEAR_MHZ = 0.02
"""No other emitter starts nearer to the tone than this."""
CLOSE_HZ, CLOSE_HZ_S = 100.0, 0.1
"""How near a candidate must lie to the tone to be the tone."""
GIVE_UP_S = 600.0
SETTLED = ("done", "quarantined", "skipped")
UNIX_EPOCH_MJD = 40587


def write_sky(folder: Path, seed: int, suffix: str, name: str) -> tuple[tuple[Path, ...], Any]:
    """Write the six files of target `name`; return their paths in time order, and the tone."""
    from aetherscan.inject import Emitter
    from aetherscan.simulate import Sky, gbt_header, random_levels, write_cadence, zoo

    rng = np.random.default_rng(seed)
    start = UNIX_EPOCH_MJD + time.time() / 86_400 - 0.1
    telescope = time.time_ns() // 10**6 % 2**31
    header = replace(gbt_header(NCHANS, source_name=name), tstart=start, telescope_id=telescope)
    frequency_mhz = header.frequency(rng.uniform(0.2, 0.45) * NCHANS)
    snr = tuple(TONE_SNR if i % 2 == 0 else 0.0 for i in range(6))
    tone = Emitter(frequency_mhz=frequency_mhz, drift_hz_s=float(rng.uniform(0.2, 1.0)), width_hz=4.0, snr=snr)
    gains, bursts = random_levels(rng)
    # The demo shows that the path works; how the detector does in a crowd is not its question.
    others = [one for one in zoo(rng, header) if abs(one.frequency_mhz - frequency_mhz) > CLEAR_MHZ]
    sky = Sky(header=header, emitters=(tone, *others), gains=gains, bursts=bursts)
    return write_cadence(folder, sky, seed, suffix=suffix), tone


def is_tone(tone: Any, frequency_mhz: float, drift_rate_hz_s: float) -> bool:
    """Return whether what was found there is the tone that was put in."""
    off_hz = (frequency_mhz - tone["frequency_mhz"]) * 1e6
    return abs(off_hz) <= CLOSE_HZ and abs(drift_rate_hz_s - tone["drift_rate_hz_s"]) <= CLOSE_HZ_S


def land(paths: tuple[Path, ...], folder: Path, slow_s: float) -> None:
    """Bring files into a watched folder: moved at once or copied in pieces, the last scan first."""
    folder.mkdir(parents=True)
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
    """Land a cadence, follow it, tell what becomes of it; return whether the tone came back."""
    folder = config.watch.roots[0] / f"demo-{seed}-{int(time.time())}"
    with tempfile.TemporaryDirectory() as scratch:
        paths, tone = write_sky(Path(scratch), seed, suffix, f"DEMO{seed}")
        tell(f"landing {len(paths)} files in {folder}")
        land(paths, folder, slow_s)
    try:
        row = _follow(store, f"DEMO{seed}", tell)
        if row.state != "done":
            tell(f"the cadence is {row.state}: {row.why}")
            return False
        return _compare(store, row.id, tone, tell)
    finally:
        if not keep:
            shutil.rmtree(folder)


def _follow(store: Store, target: str, tell: Callable[[str], object]) -> Any:
    """Return the cadence's row when it has ended, or as it is when patience has."""
    last, end = "", time.monotonic() + GIVE_UP_S
    newest = select(cadence).where(cadence.c.target == target).order_by(cadence.c.tstart.desc()).limit(1)
    while True:
        with store.read() as rows:
            row = rows.execute(newest).one_or_none()
        state = f"{row.state} {row.why or ''}".strip() if row else "files are settling"
        if state != last:
            tell(f"  {state}")
            last = state
        if row and (row.state in SETTLED or time.monotonic() > end):
            return row
        if time.monotonic() > end:
            raise TimeoutError(f"no cadence formed in {GIVE_UP_S:.0f} s: ./sentinel.py status")
        time.sleep(0.5)


def _compare(store: Store, cadence_id: int, tone: Any, tell: Callable[[str], object]) -> bool:
    with store.read() as rows:
        found = rows.execute(select(candidate).where(candidate.c.cadence_id == cadence_id)).all()
        message = rows.execute(
            select(outbox.c.state, outbox.c.cause).where(outbox.c.cadence_id == cadence_id)
        ).one_or_none()
    tell(f"injected  {tone.frequency_mhz:.6f} MHz  {tone.drift_hz_s:+.3f} Hz/s")
    put_in = {"frequency_mhz": tone.frequency_mhz, "drift_rate_hz_s": tone.drift_hz_s}
    close = None
    for one in found:
        off_hz = (one.frequency_mhz - tone.frequency_mhz) * 1e6
        same = is_tone(put_in, one.frequency_mhz, one.drift_rate_hz_s)
        close = one if same else close
        tell(
            f"{'found   ' if same else 'other   '}  {one.frequency_mhz:.6f} MHz  {one.drift_rate_hz_s:+.3f} Hz/s  "
            f"p {one.probability:.3f}  SNR {' '.join(f'{snr:.1f}' for snr in one.snr)}  off by {off_hz:+.1f} Hz"
        )
    if close is None:
        tell("the tone was not found")
        return False
    tell(f"candidate {close.id}, picture {close.picture}")
    tell(f"message   {message.state} {message.cause or ''}".rstrip() if message else "message   none")
    return True
