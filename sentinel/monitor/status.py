"""The state of the service: facts from the store and supervisord, and the problems in them.

`status`, `/readyz` and the metrics all use `read_status`, so that they agree.
"""

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
"""Age of a ready cadence or an unsent message that is a warning."""
DAY_S = 86_400.0
LISTED = 20
"""Rows of each kind that are listed with their causes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `status` prints. `level` is its exit code."""

    level: int
    remarks: tuple[str, ...]
    facts: Mapping[str, Any]


def read_status(config: Config, store: Store) -> Status:
    """Collect the facts and list the problems in them."""
    beats = select(
        heartbeat.c.name,
        (now() - heartbeat.c.at).label("age_s"),
        heartbeat.c.period_s,
        heartbeat.c.pid,
        heartbeat.c.host,
        heartbeat.c.facts,
    )
    age_s = now() - func.min(cadence.c.ready_at)
    why, cause = select(cadence.c.target, cadence.c.why), select(file.c.path, file.c.cause)
    unopened = file.c.state.in_(("seen", "stable")) & file.c.present.is_(True) & file.c.cause.is_not(None)
    quarantined = cadence.c.state == "quarantined"
    with store.read() as rows:
        facts: dict[str, Any] = {
            "programs": {name: program["statename"] for name, program in program_states(config).items()},
            "heartbeats": [dict(row) for row in rows.execute(beats.order_by(heartbeat.c.name)).mappings()],
            "files": _by_state(rows, file.c.state, file.c.present.is_(True)),
            "cadences": _by_state(rows, cadence.c.state),
            "newest_mjd": rows.scalar(select(func.max(file.c.tstart))),
            "oldest_ready_s": rows.scalar(select(age_s).where(cadence.c.state.in_(("ready", "retry_at")))),
            "waiting_for": _causes(
                rows, why.where(cadence.c.state.in_(("forming", "retry_at"))).order_by(cadence.c.tstart.desc())
            ),
            "files_waiting": _causes(rows, cause.where(unopened).order_by(file.c.id.desc())),
            "invalid": _causes(rows, cause.where(file.c.state == "invalid").order_by(file.c.id.desc())),
            "quarantined": _causes(rows, why.where(quarantined).order_by(cadence.c.ended_at.desc())),
            "quarantined_today": rows.scalar(
                select(func.count()).where(quarantined, cadence.c.ended_at > now() - DAY_S)
            ),
            "latency_s": percentiles(rows),
            "canary": _last_canary(rows)
            | {
                "every_s": config.sends_canaries * config.injections.canary_s,
                "alarm_s": config.injections.alarm_s,
            },
            "injections": _injections(rows),
        }
    facts |= {"ledger": store.ledger(), "outbox": undelivered(store), "slack": "on" if config.slack_channel else "off"}
    problems = _problems(facts)
    level = max((level for level, _ in problems), default=OK)
    return Status(level=level, remarks=tuple(text for _, text in problems), facts=facts)


def not_ready(config: Config, store: Store) -> str:
    """Return why a service that is starting cannot search yet, or an empty string if it can."""
    states = {name: program["statename"] for name, program in program_states(config).items()}
    here = socket.gethostname()
    alive = {name for name, host, _ in _alive(store) if host == here or config.cluster.scheduler}
    if stopped := [f"{name} {state}" for name, state in states.items() if state != "RUNNING"]:
        return f"starting {', '.join(stopped)}"
    if not states:
        return "starting supervisord"
    missing = [name for name in states if f"{name}@{here}" not in alive]
    if missing or not any(name.startswith("worker") for name in alive):
        return f"waiting for {', '.join(missing) or 'a worker to load the detector'}"
    return ""


def other_hosts(config: Config, store: Store) -> list[str]:
    """Return the other hosts whose services use the same store.

    Raises:
        BusyError: another service on this host uses it.
    """
    alive = _alive(store)
    here, state_dir = socket.gethostname(), str(config.state_dir)
    for name, host, facts in alive:
        if host == here and facts.get("state", state_dir) != state_dir:
            raise BusyError(
                f"{name}, with its state in {facts['state']}, is on the same store: expected one service a host"
            )
    return sorted({host for _, host, _ in alive} - {here})


def _alive(store: Store) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return name, host and facts of each program with a recent heartbeat."""
    recent = heartbeat.c.at > now() - LATE * heartbeat.c.period_s
    with store.read() as rows:
        beats = rows.execute(select(heartbeat.c.name, heartbeat.c.host, heartbeat.c.facts).where(recent))
        return [(row.name, row.host, row.facts) for row in beats]


def _by_state(rows: Connection, state: Any, *where: Any) -> dict[str, int]:
    counts = rows.execute(select(state, func.count()).where(*where).group_by(state))
    return {row[0]: row[1] for row in counts}


def _causes(rows: Connection, query: Any) -> list[str]:
    return [one_line(f"{name}: {cause}") for name, cause in rows.execute(query.limit(LISTED))]


def _last_canary(rows: Connection) -> dict[str, Any]:
    """Return the last canary's age, whether its tone was recovered (None: not searched yet), and how long that took."""
    age_s, took_s = now() - injection.c.made_at, injection.c.ended_at - injection.c.made_at
    canaries = select(age_s.label("age_s"), injection.c.recovered, took_s.label("took_s"))
    newest = canaries.where(injection.c.kind == "canary").order_by(injection.c.id.desc()).limit(1)
    row = rows.execute(newest).mappings().one_or_none()
    return dict(row) if row else {"age_s": None, "recovered": None, "took_s": None}


def _injections(rows: Connection) -> dict[str, str]:
    """Return for each kind of injection how many of the searched ones were recovered."""
    recovered = func.count().filter(injection.c.recovered.is_(True))
    counts = select(injection.c.kind, recovered, func.count(injection.c.recovered)).group_by(injection.c.kind)
    return {kind: f"{hits} of {searched} recovered" for kind, hits, searched in rows.execute(counts)}


def _problems(facts: Mapping[str, Any]) -> Sequence[tuple[int, str]]:
    """Return level and text of each problem."""
    ledger, outbox, running = facts["ledger"], facts["outbox"], facts["programs"]
    late = [beat["name"] for beat in facts["heartbeats"] if beat["age_s"] > LATE * beat["period_s"]]
    names = [beat["name"] for beat in facts["heartbeats"] if beat["name"] not in late]
    workers = [name for name in names if name.startswith("worker")]
    down = [name for name, state in running.items() if state != "RUNNING"]
    counted = ledger["done"] + ledger["quarantined"] + ledger["skipped"] + ledger["waiting"]
    canary = facts["canary"]
    out_s = canary["age_s"] or 0.0
    overdue = canary["recovered"] is None and out_s > canary["alarm_s"]
    unsent = (outbox["oldest_s"] or 0) > SLOW_S or outbox["cause"]
    rules = (
        (CRITICAL, not running, "the service is not running: ./sentinel.py up"),
        (CRITICAL, down, f"not running: {', '.join(down)}: ./sentinel.py logs {' '.join(down)}"),
        (CRITICAL, running and not workers, "no worker has loaded a release: ./sentinel.py logs cluster"),
        (
            CRITICAL,
            ledger["seen"] != counted,
            f"cadence counts disagree: {ledger['seen']} seen, {counted} done, quarantined, skipped or waiting",
        ),
        (CRITICAL, canary["recovered"] is False, "the tone of the last canary was not found: ./sentinel.py demo"),
        (CRITICAL, running and overdue, f"a canary sent {out_s:.0f} s ago is not searched: ./sentinel.py logs cluster"),
        (
            WARNING,
            canary["every_s"] and out_s > LATE * canary["every_s"],
            f"no canary was sent for {out_s:.0f} s: ./sentinel.py logs web",
        ),
        (WARNING, late and running, f"no heartbeat from {', '.join(late)}"),
        (WARNING, (facts["oldest_ready_s"] or 0) > SLOW_S, "a cadence has waited for a worker for more than an hour"),
        (WARNING, unsent, f"messages wait: {outbox['cause'] or 'for more than an hour'}"),
        (
            WARNING,
            facts["quarantined_today"],
            f"{facts['quarantined_today']} cadences quarantined in the last 24 hours",
        ),
    )
    return [(level, text) for level, holds, text in rules if holds]


def lines(status: Status) -> list[str]:
    """Return the status as lines of text; the first is a summary."""
    facts, ledger = status.facts, dict(status.facts["ledger"])
    hosts = sorted({beat["host"] for beat in facts["heartbeats"]})
    text = [
        f"{WORDS[status.level]}: {'; '.join(status.remarks) or 'no problems'}",
        f"programs   {_counts(facts['programs'])}",
        *(
            f"  {beat['name']:<12} {beat['age_s']:.0f} s ago, process {beat['pid']}  {_counts(beat['facts'])}"
            for beat in facts["heartbeats"]
        ),
        *([f"hosts      {', '.join(hosts)} share the store"] if len(hosts) > 1 else []),
        f"files      {_counts(facts['files'])}, newest data MJD {facts['newest_mjd'] or '-'}",
        f"cadences   {_counts(facts['cadences'])}",
        f"ledger     {ledger.pop('seen')} seen = {' + '.join(f'{count} {name}' for name, count in ledger.items())}",
        f"messages   Slack is {facts['slack']}; {_counts(facts['outbox']['states'])}",
        f"injected   {_counts(facts['injections'])}",
        *(f"  {stage.replace('_', ' '):<22} {_counts(figures)}" for stage, figures in facts["latency_s"].items()),
    ]
    for name in ("waiting_for", "files_waiting", "invalid", "quarantined"):
        if facts[name]:
            text += [f"{name.replace('_', ' ')}:", *(f"  {cause}" for cause in facts[name])]
    return text


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
