"""Latency percentiles and histograms."""

from pathlib import Path

from rows import record
from sqlalchemy import update

from sentinel.monitor.latency import percentiles
from sentinel.monitor.metrics import StageHistograms
from sentinel.store.schema import attempt, cadence, now, outbox

CANARIES = Path("/canary")


def test_latency_is_reported_for_each_stage_from_stable_to_announced(store):
    for seconds in range(1, 101):
        made = record(store, f"T{seconds}")
        with store.write() as rows:
            times = {"landed_at": -12, "stable_at": -2, "ready_at": -1, "ended_at": seconds}
            for name, offset in times.items():
                rows.execute(update(cadence).where(cadence.c.id == made).values({name: now() + offset}))
            rows.execute(update(attempt).where(attempt.c.cadence_id == made).values(started_at=now()))
            rows.execute(update(outbox).where(outbox.c.cadence_id == made).values(posted_at=now() + seconds + 3))
    with store.read() as rows:
        summary = percentiles(rows, CANARIES)
    assert [round(summary["leased_to_recorded"][q]) for q in ("p50", "p95", "p99", "of")] == [50, 95, 99, 100]
    assert [
        round(summary[stage]["p50"]) for stage in ("landed_to_stable", "stable_to_recorded", "stable_to_announced")
    ] == [*(10, 52, 55)]


def of_stage(stages, store, stage):
    """How many cadences took at most a minute for a stage, how many there were, and the sum."""
    with store.read() as rows:
        stages.observe(rows, CANARIES)
    (metric,) = stages.histogram.collect()
    samples = [sample for sample in metric.samples if sample.labels["stage"] == stage]
    values = {(sample.name, sample.labels.get("le")): sample.value for sample in samples}
    return [values.get((f"sentinel_stage_seconds_{part}", le), 0) for part, le in (("bucket", "60.0"), ("count", None))]


def test_each_cadence_is_counted_once_in_the_histograms_and_old_cadences_are_not_read(store, monkeypatch):
    stages = StageHistograms()
    for seconds in (10, 100, 20):
        made = record(store, f"T{seconds}")
        with store.write() as rows:
            rows.execute(update(attempt).where(attempt.c.cadence_id == made).values(started_at=now()))
            rows.execute(update(cadence).where(cadence.c.id == made).values(ended_at=now() + seconds))
    assert of_stage(stages, store, "leased_to_recorded") == of_stage(stages, store, "leased_to_recorded") == [2, 3]
    assert of_stage(stages, store, "recorded_to_announced") == [0, 0]
    with store.write() as rows:
        rows.execute(update(outbox).values(posted_at=now() + 100))
    assert of_stage(stages, store, "recorded_to_announced") == [1, 3]
    monkeypatch.setattr("sentinel.monitor.latency.NEWEST", 1)
    assert of_stage(StageHistograms(), store, "leased_to_recorded") == [1, 1]
