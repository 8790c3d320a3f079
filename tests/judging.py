"""Candidates to look at, for tests of the desk."""

from rows import CANDIDATE
from sqlalchemy import func, select, update

from sentinel.store.occupancy import Occupancy
from sentinel.store.queue import InjectedRecord
from sentinel.store.schema import attempt, injected_candidate


def looks_like(i, **changes):
    """Return the row of a candidate; a smaller number is more probable."""
    own = {"frequency_mhz": 1420.0 + i, "probability": 0.9 - i / 20, "latents": [], "latents_f32": [float(i)] * 48}
    return {**CANDIDATE, "target": f"HIP{i + 1}", "joint_snr": 30.0, **own, **changes}


def inject(store, name="a", snr=30.0, **changes):
    """Record a blind injection in the first cadence, and its candidate for the queue of labels; return its number."""
    row = {**{key: value for key, value in looks_like(0).items() if key != "latents"}, **changes}
    lines = Occupancy(telescope_id=6, target="T", tstart=59103.0, band_mhz=(1.0, 2.0), lines_mhz=())
    tone = {"frequency_mhz": row["frequency_mhz"], "drift_rate_hz_s": 0.35, "width_hz": 4.0, "snr": snr}
    with store.read() as rows:
        token = rows.scalars(select(attempt.c.token).order_by(attempt.c.id)).first()
    found = InjectedRecord(row=row, files={}, occupancy=lines)
    with store.write() as rows:
        rows.execute(update(attempt).where(attempt.c.token == token).values(token=name))
    store.record_injection(found=found, kind="blind", name=name, recovered=True, **tone)
    with store.write() as rows:
        rows.execute(update(attempt).where(attempt.c.token == name).values(token=token))
        return rows.scalar(select(func.max(injected_candidate.c.id)))
