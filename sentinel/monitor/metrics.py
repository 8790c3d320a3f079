"""Prometheus metrics. Every number is read from the store on request, so that no restart resets it.

Only the latency histograms are kept in memory. They start again with the newest cadences when the web program starts,
which Prometheus handles as a counter reset. `deploy/alerts.yaml` and `deploy/grafana.json` use these names; a test
compares them.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Connection, case, func, select

from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.monitor.latency import NEWEST, STAGES, newest
from sentinel.monitor.status import read_status
from sentinel.store.queue import Store
from sentinel.store.schema import (
    attempt,
    cadence,
    cadences_below,
    candidate,
    heartbeat,
    injected_label,
    injection,
    label,
    now,
)

BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
TOTALS = {
    "attempts": ("Search attempts by outcome", "outcome", func.coalesce(attempt.c.outcome, "running")),
    "labels": ("Labels given by people", "label", label.c.label),
    "candidates": ("Recorded candidates by release", "release", candidate.c.release_name),
    "reviewed_injections": ("Injected signals in the queue by the label of a person", "label", injected_label.c.label),
}


class StageHistograms:
    """A latency histogram of each stage since the program started, beginning with the newest cadences that are done."""

    def __init__(self) -> None:
        text = "Seconds from one step of a cadence to the next"
        self.histogram = Histogram("sentinel_stage_seconds", text, ["stage"], buckets=BUCKETS, registry=None)
        self._counted: set[tuple[int, str]] = set()
        self._lock = Lock()

    def observe(self, rows: Connection, canaries: Path) -> None:
        """Add the stages that have ended since the last call, without those of cadences below the folder `canaries`."""
        with self._lock:
            attempts = {attempt_id: seconds for attempt_id, *seconds in newest(rows, attempt.c.id, canaries)}
            for attempt_id, seconds in attempts.items():
                for stage, duration_s in zip(STAGES, seconds, strict=True):
                    if duration_s is not None and (attempt_id, stage) not in self._counted:
                        self._counted.add((attempt_id, stage))
                        self.histogram.labels(stage).observe(max(0.0, duration_s))
            # Attempts of canaries are deleted, so the newest id may be lower than at the last call.
            oldest = max(attempts, default=0) - 2 * NEWEST
            self._counted = {key for key in self._counted if key[0] > oldest}


def exposition(config: Config, store: Store, stages: StageHistograms) -> bytes:
    """Return every metric in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Reader(config, store))
    registry.register(stages.histogram)
    with contextlib.suppress(StoreError), store.read() as rows:  # the check `store` reports it
        stages.observe(rows, config.canaries)
    return generate_latest(registry)


class _Reader(Collector):
    def __init__(self, config: Config, store: Store) -> None:
        self.config, self.store = config, store

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status = read_status(self.config, lambda: self.store)
        facts = status.facts
        yield _gauge("status_level", "0 ok, 1 warning, 2 critical, 3 the store cannot be read", status.level)
        yield _gauge_by("check_level", "Each check: 0 ok, 1 warning, 2 critical", "check", status.checks)
        places = facts["machines"][facts["host"]]
        free = {name: places[name].get("free_gib", 0) * 2**30 for name in ("state", "pictures")}
        yield _gauge_by("disk_free_bytes", "Free space where state and pictures are kept", "place", free)
        if "ledger" not in facts:
            return
        outbox = facts["outbox"]
        yield _gauge("oldest_ready_seconds", "Age of the oldest cadence waiting for a worker", facts["oldest_ready_s"])
        yield _gauge("oldest_message_seconds", "Age of the oldest unsent message", outbox["oldest_s"])
        stamps, memory = facts["stamps"], facts["memory"]
        yield _gauge("stamps", "Written stamps", stamps["count"])
        used = {"all": stamps["bytes"], "candidate": stamps["kept_bytes"]}
        yield _gauge_by("stamp_bytes", "Disk space of stamps: of all, and of those labeled candidate", "label", used)
        yield _gauge("stamp_budget_bytes", "Disk space that stamps may take", stamps["budget_bytes"])
        yield _gauge("remembered_cadences", "Cadences in the memory of interference", memory["cadences"])
        yield _gauge("remembered_cadences_limit", "Cadences that the memory of interference keeps", memory["limit"])
        for name, text, counts in (
            ("cadences", "Cadences by state", facts["cadences"]),
            ("files", "Present files by state", facts["files"]),
            ("messages", "Messages by state", outbox["states"]),
        ):
            yield _gauge_by(name, text, "state", counts)
        with self.store.read() as rows:
            yield from _totals(rows, self.config.canaries)
            yield from _programs(rows)
            yield from _injections(rows)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"sentinel_{name}", text, value=value or 0)


def _gauge_by(name: str, text: str, label: str, counts: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(f"sentinel_{name}", text, labels=[label])
    for value, count in counts.items():
        gauge.add_metric([value], count)
    return gauge


def _totals(rows: Connection, canaries: Path) -> Iterator[Metric]:
    for name, (text, kind, column) in TOTALS.items():
        totals = CounterMetricFamily(f"sentinel_{name}", text, labels=[kind])
        real = [attempt.c.cadence_id.not_in(cadences_below(canaries))] if name == "attempts" else []
        for value, count in rows.execute(select(column, func.count()).where(*real).group_by(column)):
            totals.add_metric([value], count)
        yield totals
    causes = rows.scalars(select(cadence.c.why).where(cadence.c.state == "quarantined"))
    classes = ((cause or "unknown").split(":")[0] for cause in causes)
    reasons = Counter(name if name.isidentifier() else "other" for name in classes)
    yield _gauge_by("quarantined", "Quarantined cadences by class of error", "reason", reasons)


def _programs(rows: Connection) -> Iterator[Metric]:
    ages = GaugeMetricFamily("sentinel_heartbeat_age_seconds", "Age of the last heartbeat", labels=["program"])
    periods = GaugeMetricFamily("sentinel_heartbeat_period_seconds", "Period of the heartbeats", labels=["program"])
    kinds = ["program", "release", "sha256"]
    releases = GaugeMetricFamily("sentinel_release_info", "Release loaded by a worker", labels=kinds)
    scan = overflowed = 0.0
    columns = (heartbeat.c.name, (now() - heartbeat.c.at).label("age_s"), heartbeat.c.period_s, heartbeat.c.facts)
    for row in rows.execute(select(*columns)):
        ages.add_metric([row.name], row.age_s)
        periods.add_metric([row.name], row.period_s)
        if "sha256" in row.facts:
            releases.add_metric([row.name, row.facts["release"], row.facts["sha256"]], 1)
        if row.name.startswith("watcher"):  # one on each host
            scan, overflowed = max(scan, row.age_s), overflowed + row.facts.get("overflowed", 0)
    yield from (ages, periods, releases, _gauge("scan_age_seconds", "Time since the last complete scan", scan))
    text = "Times that the kernel dropped file events"
    yield CounterMetricFamily("sentinel_events_overflowed", text, value=overflowed)


def _injections(rows: Connection) -> Iterator[Metric]:
    made = CounterMetricFamily("sentinel_injections", "Injected signals by result", labels=["kind", "end"])
    found = injection.c.recovered
    end = case((found.is_(True), "recovered"), (found.is_(False), "missed"), else_="open")
    counted = select(injection.c.kind, end, func.count()).group_by(injection.c.kind, end)
    for kind, result, count in rows.execute(counted):
        made.add_metric([kind, result], count)
    yield made
    took = injection.c.ended_at - injection.c.made_at
    recovered = select((now() - injection.c.ended_at).label("age"), took.label("took"))
    recovered = recovered.where(injection.c.kind == "canary", found.is_(True))
    if last := rows.execute(recovered.order_by(injection.c.id.desc()).limit(1)).first():
        yield _gauge("canary_age_seconds", "Time since a canary was recovered", last.age)
        yield _gauge("canary_seconds", "Time from landing to recording of the last recovered canary", last.took)
