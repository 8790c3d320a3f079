"""How the service is: read from the store and supervisord, judged in one place, told to people and to monitors."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from sentinel.config import Config
from sentinel.errors import BusyError
from sentinel.monitor.latency import percentiles
from sentinel.notify.messages import one_line
from sentinel.notify.outbox import undelivered
from sentinel.programs.supervisor import program_states
from sentinel.store.queue import Store
from sentinel.store.schema import cadence, file, heartbeat, injection, now

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("ok", "warning", "critical", "unknown")
LATE = 3
"""Periods without a heartbeat after which a program counts as dead."""
SLOW_S = 3600.0
"""A ready cadence or an unsent message older than this is worth a look."""
DAY_S = 86_400.0
SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything `status` tells; `level` is its exit code."""

    level: int
    remarks: tuple[str, ...]
    facts: Mapping[str, Any]


def look(config: Config, store: Store) -> Status:
    """Gather the facts and judge them."""
    with store.read() as rows:
        facts: dict[str, Any] = {
            "programs": {name: one["statename"] for name, one in program_states(config).items()},
            "heartbeats": [
                dict(row._mapping)  # noqa: SLF001
                for row in rows.execute(
                    select(
                        heartbeat.c.name,
                        (now() - heartbeat.c.at).label("age_s"),
                        heartbeat.c.period_s,
                        heartbeat.c.pid,
                        heartbeat.c.host,
                        heartbeat.c.facts,
                    ).order_by(heartbeat.c.name)
                )
            ],
            "files": _by_state(rows, file.c.state, file.c.present.is_(True)),
            "cadences": _by_state(rows, cadence.c.state),
            "newest_mjd": rows.scalar(select(func.max(file.c.tstart))),
            "oldest_ready_s": rows.scalar(
                select(now() - func.min(cadence.c.ready_at)).where(cadence.c.state.in_(("ready", "retry_at")))
            ),
            "waiting_for": _causes(
                rows,
                select(cadence.c.target, cadence.c.why)
                .where(cadence.c.state.in_(("forming", "retry_at")))
                .order_by(cadence.c.tstart.desc()),
            ),
            "files_waiting": _causes(
                rows,
                select(file.c.path, file.c.cause)
                .where(file.c.state.in_(("seen", "stable")), file.c.present.is_(True), file.c.cause.is_not(None))
                .order_by(file.c.id.desc()),
            ),
            "invalid": _causes(
                rows, select(file.c.path, file.c.cause).where(file.c.state == "invalid").order_by(file.c.id.desc())
            ),
            "quarantined": _causes(
                rows,
                select(cadence.c.target, cadence.c.why)
                .where(cadence.c.state == "quarantined")
                .order_by(cadence.c.ended_at.desc()),
            ),
            "quarantined_today": rows.scalar(
                select(func.count()).where(cadence.c.state == "quarantined", cadence.c.ended_at > now() - DAY_S)
            ),
        }
        facts |= {"latency_s": percentiles(rows), "canary": _canary(rows), "injections": _injections(rows)}
    facts |= {"ledger": store.ledger(), "outbox": undelivered(store), "slack": "on" if config.slack_channel else "off"}
    facts["canary"] |= {
        "every_s": config.sends_canaries * config.injections.canary_s,
        "alarm_s": config.injections.alarm_s,
    }
    judged = list(_judge(facts))
    return Status(
        level=max((level for level, _ in judged), default=OK), remarks=tuple(text for _, text in judged), facts=facts
    )


def lacking(config: Config, store: Store) -> str:
    """Return what a service that starts still lacks, or nothing when it is ready."""
    states = {name: one["statename"] for name, one in program_states(config).items()}
    here = socket.gethostname()
    alive = {name for name, host, _ in _alive(store) if host == here or config.cluster.scheduler}
    if bad := [f"{name} {state}" for name, state in states.items() if state != "RUNNING"]:
        return f"starting {', '.join(bad)}"
    if not states:
        return "starting supervisord"
    missing = [name for name in states if f"{name}@{here}" not in alive]
    if missing or not any(name.startswith("worker") for name in alive):
        return f"waiting for {', '.join(missing) or 'a worker to load the detector'}"
    return ""


def sharing(config: Config, store: Store) -> list[str]:
    """Return the other hosts whose services are on the same store.

    Raises:
        BusyError: there is another service on this host.
    """
    alive = _alive(store)
    here, ours = socket.gethostname(), str(config.state_dir)
    for name, host, facts in alive:
        if host == here and facts.get("state", ours) != ours:
            raise BusyError(f"{name}, with its state in {facts['state']}, is on the same store: one service a host")
    return sorted({host for _, host, _ in alive} - {here})


def _alive(store: Store) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return name, host and facts of whatever has been heard of in time."""
    begun = select(heartbeat.c.name, heartbeat.c.host, heartbeat.c.facts)
    with store.read() as rows:
        heard = rows.execute(begun.where(heartbeat.c.at > now() - LATE * heartbeat.c.period_s))
        return [(row.name, row.host, row.facts) for row in heard]


def _by_state(rows: Connection, state: Any, *only: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in rows.execute(select(state, func.count()).where(*only).group_by(state))}


def _causes(rows: Connection, chosen: Any) -> list[str]:
    return [one_line(f"{what}: {why}") for what, why in rows.execute(chosen.limit(SHOWN))]


def _canary(rows: Connection) -> dict[str, Any]:
    """Return how long the last canary has been out, whether it came back (None: not yet), and how long that took."""
    age, took = now() - injection.c.made_at, injection.c.ended_at - injection.c.made_at
    of = select(age.label("age_s"), injection.c.recovered, took.label("took_s")).where(injection.c.kind == "canary")
    last = rows.execute(of.order_by(injection.c.id.desc()).limit(1)).mappings().one_or_none()
    return dict(last) if last else {"age_s": None, "recovered": None, "took_s": None}


def _injections(rows: Connection) -> dict[str, str]:
    """Return how many of each kind came back, of those that have ended."""
    back = func.count().filter(injection.c.recovered.is_(True))
    ended = select(injection.c.kind, back, func.count(injection.c.recovered)).group_by(injection.c.kind)
    return {kind: f"{some} of {count} recovered" for kind, some, count in rows.execute(ended)}


def _judge(facts: Mapping[str, Any]) -> Sequence[tuple[int, str]]:
    """Return what is wrong, and how badly."""
    ledger, outbox = facts["ledger"], facts["outbox"]
    late = [one for one in facts["heartbeats"] if one["age_s"] > LATE * one["period_s"]]
    workers = [one for one in facts["heartbeats"] if one["name"].startswith("worker") and one not in late]
    down = [name for name, state in facts["programs"].items() if state != "RUNNING"]
    counted = ledger["done"] + ledger["quarantined"] + ledger["skipped"] + ledger["waiting"]
    canary = facts["canary"]
    out_s = canary["age_s"] or 0.0
    rules = (
        (CRITICAL, not facts["programs"], "the service does not run: ./sentinel.py up"),
        (CRITICAL, down, f"not running: {', '.join(down)}: ./sentinel.py logs {' '.join(down)}"),
        (CRITICAL, facts["programs"] and not workers, "no worker holds a release: ./sentinel.py logs cluster"),
        (
            CRITICAL,
            ledger["seen"] != counted,
            f"the ledger does not add up: {ledger['seen']} seen, {counted} accounted for",
        ),
        (CRITICAL, canary["recovered"] is False, "the last canary came back without its tone, or not at all"),
        (
            CRITICAL,
            facts["programs"] and canary["recovered"] is None and out_s > canary["alarm_s"],
            f"the canary has been out for {out_s:.0f} s: cadences land and are not searched",
        ),
        (
            WARNING,
            canary["every_s"] and out_s > LATE * canary["every_s"],
            f"no canary for {out_s:.0f} s: ./sentinel.py logs web",
        ),
        (WARNING, late and facts["programs"], f"no heartbeat from {', '.join(one['name'] for one in late)}"),
        (WARNING, (facts["oldest_ready_s"] or 0) > SLOW_S, "a cadence has waited for a worker for more than an hour"),
        (
            WARNING,
            (outbox["oldest_s"] or 0) > SLOW_S or outbox["cause"],
            f"messages wait: {outbox['cause'] or 'for more than an hour'}",
        ),
        (WARNING, facts["quarantined_today"], f"{facts['quarantined_today']} cadences quarantined within a day"),
    )
    return [(level, text) for level, holds, text in rules if holds]


def lines(status: Status) -> list[str]:
    """Return the status as a person reads it."""
    facts, ledger = status.facts, dict(status.facts["ledger"])
    hosts = sorted({one["host"] for one in facts["heartbeats"]})
    told = [
        f"{WORDS[status.level]}: {'; '.join(status.remarks) or 'all is well'}",
        f"programs   {_counts(facts['programs'])}",
        *(
            f"  {one['name']:<12} {one['age_s']:.0f} s ago, process {one['pid']}  {_counts(one['facts'])}"
            for one in facts["heartbeats"]
        ),
        *([f"hosts      {', '.join(hosts)} share the store"] if len(hosts) > 1 else []),
        f"files      {_counts(facts['files'])}, newest data MJD {facts['newest_mjd'] or '-'}",
        f"cadences   {_counts(facts['cadences'])}",
        f"ledger     {ledger.pop('seen')} seen = {' + '.join(f'{count} {name}' for name, count in ledger.items())}",
        f"messages   Slack is {facts['slack']}; {_counts(facts['outbox']['states'])}",
        f"injected   {_counts(facts['injections'])}",
        *(f"  {stage.replace('_', ' '):<22} {_counts(one)}" for stage, one in facts["latency_s"].items()),
    ]
    for name in ("waiting_for", "files_waiting", "invalid", "quarantined"):
        told += [f"{name.replace('_', ' ')}:", *(f"  {one}" for one in facts[name])] if facts[name] else []
    return told


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
