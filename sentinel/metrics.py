"""What Prometheus is told: every number is read from the store when it asks, so that a restart forgets nothing.

The names are what `deploy/alerts.yaml` and `deploy/grafana.json` are written against; a test holds them together.
"""

import shutil
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Connection, case, func, select

from sentinel.config import Config
from sentinel.latency import histograms
from sentinel.schema import CANARY, attempt, cadence, candidate, file, heartbeat, injection, label, now, outbox
from sentinel.status import look
from sentinel.store import Store

BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
STATES = {
    "cadences": ("Cadences by state", cadence.c.state, ()),
    "files": ("Files that are there, by state", file.c.state, (file.c.present.is_(True),)),
    "messages": ("Messages by state", outbox.c.state, ()),
}
TOTALS = {
    "attempts": ("Attempts at a search, by how they ended", "outcome", func.coalesce(attempt.c.outcome, "running")),
    "labels": ("Labels that people gave", "label", label.c.label),
    "candidates": ("Candidates recorded, by release", "release", candidate.c.release_name),
}


def exposition(config: Config, store: Store) -> bytes:
    """Return every metric as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Reader(config, store))
    return generate_latest(registry)


class _Reader(Collector):
    def __init__(self, config: Config, store: Store) -> None:
        self.config, self.store = config, store

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        seen = look(self.config, self.store)
        yield _one("status_level", "0 well, 1 a warning, 2 critical", seen.level)
        yield _one(
            "oldest_ready_seconds", "Age of the oldest cadence that waits for a worker", seen.facts["oldest_ready_s"]
        )
        yield _one("oldest_message_seconds", "Age of the oldest unsent message", seen.facts["outbox"]["oldest_s"])
        free = shutil.disk_usage(self.config.state_dir).free
        yield _one("disk_free_bytes", "Room left where the state lies", free)
        with self.store.read() as rows:
            yield from _counted(rows)
            yield from _programs(rows)
            yield from _injected(rows)
            stages = HistogramMetricFamily("sentinel_stage_seconds", "From one step to the next", labels=["stage"])
            for stage, (counts, total) in histograms(rows, BUCKETS).items():
                bounds = [*map(str, BUCKETS), "+Inf"]
                stages.add_metric([stage], list(zip(bounds, counts, strict=True)), total)
            yield stages


def _one(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"sentinel_{name}", text, value=value or 0)


def _counted(rows: Connection) -> Iterator[Metric]:
    for name, (text, state, only) in STATES.items():
        states = GaugeMetricFamily(f"sentinel_{name}", text, labels=["state"])
        for which, count in rows.execute(select(state, func.count()).where(*only).group_by(state)):
            states.add_metric([which], count)
        yield states
    for name, (text, kind, column) in TOTALS.items():
        totals = CounterMetricFamily(f"sentinel_{name}", text, labels=[kind])
        real = (
            [attempt.c.cadence_id.not_in(select(cadence.c.id).where(cadence.c.target == CANARY))]
            if name == "attempts"
            else []
        )
        for which, count in rows.execute(select(column, func.count()).where(*real).group_by(column)):
            totals.add_metric([which], count)
        yield totals
    reason: ColumnElement[str] = cadence.c.why  # the error's class, before the first colon: the rest is of one cadence
    aside = GaugeMetricFamily("sentinel_quarantined", "Cadences set aside, by the class of error", labels=["reason"])
    reasons: dict[str, int] = {}
    for why in rows.scalars(select(reason).where(cadence.c.state == "quarantined")):
        known = (why or "unknown").split(":")[0]
        reasons[known if known.isidentifier() else "other"] = reasons.get(known, 0) + 1
    for known, count in reasons.items():
        aside.add_metric([known], count)
    yield aside


def _programs(rows: Connection) -> Iterator[Metric]:
    ages = GaugeMetricFamily("sentinel_heartbeat_age_seconds", "Since each program was heard of", labels=["program"])
    periods = GaugeMetricFamily("sentinel_heartbeat_period_seconds", "How often it wants to be", labels=["program"])
    held = GaugeMetricFamily(
        "sentinel_release_info", "The release that a worker holds", labels=["program", "release", "sha256"]
    )
    scan = overflowed = 0.0
    columns = (heartbeat.c.name, (now() - heartbeat.c.at).label("age_s"), heartbeat.c.period_s, heartbeat.c.facts)
    for row in rows.execute(select(*columns)):
        ages.add_metric([row.name], row.age_s)
        periods.add_metric([row.name], row.period_s)
        if "sha256" in row.facts:
            held.add_metric([row.name, row.facts["release"], row.facts["sha256"]], 1)
        if row.name.startswith("watcher"):  # one a host
            scan, overflowed = max(scan, row.age_s), overflowed + row.facts.get("overflowed", 0)
    yield from (ages, periods, held, _one("scan_age_seconds", "Since the last whole pass over the folders", scan))
    yield CounterMetricFamily("sentinel_events_overflowed", "Times that the kernel lost events", value=overflowed)


def _injected(rows: Connection) -> Iterator[Metric]:
    made = CounterMetricFamily("sentinel_injections", "Signals put in, and what became of them", labels=["kind", "end"])
    end = case(
        (injection.c.recovered.is_(True), "recovered"), (injection.c.recovered.is_(False), "missed"), else_="open"
    )
    for kind, how, count in rows.execute(select(injection.c.kind, end, func.count()).group_by(injection.c.kind, end)):
        made.add_metric([kind, how], count)
    yield made
    canary = injection.c.kind == "canary"
    took = injection.c.ended_at - injection.c.made_at
    back = select((now() - injection.c.ended_at).label("age"), took.label("took"))
    last = rows.execute(
        back.where(canary, injection.c.recovered.is_(True)).order_by(injection.c.id.desc()).limit(1)
    ).first()
    if last:
        yield _one("canary_age_seconds", "Since a canary came back", last.age)
        yield _one("canary_seconds", "From landing to recording, of the last canary that came back", last.took)
