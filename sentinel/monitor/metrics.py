"""What Prometheus is told: every number is read from the store when it asks, so that a restart forgets nothing.

Only the histograms of latency are kept by the program that answers: they begin with the newest cadences when it does,
which Prometheus takes for what it is, a counter that was reset.

The names are what `deploy/alerts.yaml` and `deploy/grafana.json` are written against; a test holds them together.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from threading import Lock

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Connection, case, func, select

from sentinel.config import Config
from sentinel.monitor.latency import NEWEST, STAGES, newest
from sentinel.monitor.status import look
from sentinel.store.queue import Store
from sentinel.store.schema import CANARY, attempt, cadence, candidate, heartbeat, injection, label, now

BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
TOTALS = {
    "attempts": ("Attempts at a search, by how they ended", "outcome", func.coalesce(attempt.c.outcome, "running")),
    "labels": ("Labels that people gave", "label", label.c.label),
    "candidates": ("Candidates recorded, by release", "release", candidate.c.release_name),
}


class Stages:
    """A histogram of each stage, for as long as a program runs; it begins with the newest that were done before."""

    def __init__(self) -> None:
        self.histogram = Histogram(
            "sentinel_stage_seconds", "From one step to the next", ["stage"], buckets=BUCKETS, registry=None
        )
        self._seen: set[tuple[int, str]] = set()
        self._one_at_a_time = Lock()

    def observe(self, rows: Connection) -> None:
        """Count what has come to its end, or been announced, since the last time."""
        with self._one_at_a_time:
            lives = newest(rows, attempt.c.id)
            took = [((one[0], stage), s) for one in lives for stage, s in zip(STAGES, one[1:], strict=True)]
            fresh = {of: s for of, s in took if s is not None and of not in self._seen}
            for (_, stage), s in fresh.items():
                self.histogram.labels(stage).observe(max(0.0, s))
            # A canary's attempts are removed, so that the newest may be an older one than the last time.
            oldest = max((one[0] for one in lives), default=0) - 2 * NEWEST
            self._seen = {one for one in self._seen | fresh.keys() if one[0] > oldest}


def exposition(config: Config, store: Store, stages: Stages) -> bytes:
    """Return every metric as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Reader(config, store))
    registry.register(stages.histogram)
    with store.read() as rows:
        stages.observe(rows)
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
        for name, text, counts in (
            ("cadences", "Cadences by state", seen.facts["cadences"]),
            ("files", "Files that are there, by state", seen.facts["files"]),
            ("messages", "Messages by state", seen.facts["outbox"]["states"]),
        ):
            yield _by(name, text, "state", counts)
        with self.store.read() as rows:
            yield from _counted(rows)
            yield from _programs(rows)
            yield from _injected(rows)


def _one(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"sentinel_{name}", text, value=value or 0)


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    gauge = GaugeMetricFamily(f"sentinel_{name}", text, labels=[label])
    for which, count in counts.items():
        gauge.add_metric([which], count)
    return gauge


def _counted(rows: Connection) -> Iterator[Metric]:
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
    whys = rows.scalars(select(cadence.c.why).where(cadence.c.state == "quarantined"))
    kinds = ((why or "unknown").split(":")[0] for why in whys)  # the error's class: the rest is of one cadence
    reasons = Counter(kind if kind.isidentifier() else "other" for kind in kinds)
    yield _by("quarantined", "Cadences set aside, by the class of error", "reason", reasons)


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
