"""The state of the service: facts from the store, supervisord and the machine, and the problems in them.

`status`, `/readyz` and the metrics all use `read_status`, so that they agree. The checks are in `checks`.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, false, func, select, update

from sentinel.config import Config
from sentinel.errors import BusyError, StoreError
from sentinel.monitor.checks import CRITICAL, LATE, OK, UNKNOWN, WARNING, WORDS, applicable, is_late, problems
from sentinel.monitor.latency import percentiles
from sentinel.monitor.probes import machine
from sentinel.notify.messages import one_line
from sentinel.notify.outbox import undelivered
from sentinel.programs.supervisor import current_run, program_states, silent_supervisord
from sentinel.store.queue import OWED, Store, open_store
from sentinel.store.schema import artefact, cadence, candidate, file, heartbeat, injection, meta, now, occupancy

__all__ = ["CRITICAL", "OK", "UNKNOWN", "WARNING", "WORDS", "Status", "lines", "quick_store", "read_status"]
DAY_S = 86_400.0
LOCKED_S = 10.0
"""A record of 5,000 candidates holds the lock of SQLite for less, seconds."""
LISTED = 20
"""Rows of each kind that are listed with their causes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `status` prints. `level` is its exit code.

    Attributes:
        checks: level of each check, by name; a check whose facts could not be read is absent.
        remarks: text of each problem.
    """

    level: int
    checks: Mapping[str, int]
    remarks: tuple[str, ...]
    facts: Mapping[str, Any]


def quick_store(config: Config, *, upgrade: bool = True, create: bool = False) -> Store:
    """Open the store; a lock held for longer than `LOCKED_S` is reported instead of waited for."""
    return open_store(config.store_url, upgrade=upgrade, create=create, busy_s=LOCKED_S)


def read_status(config: Config, open_store: Callable[[], Store]) -> Status:
    """Collect the facts and list the problems in them. The level is unknown if the store cannot be read."""
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "programs": {name: program["statename"] for name, program in program_states(config).items()},
        "supervisord": silent_supervisord(config),
        "heartbeats": [],
        "store": "",
    }
    store, readable = None, False
    try:
        store = open_store()
        facts |= _recorded(config, store)
        readable = True
        with store.write() as rows:
            rows.execute(update(meta).where(false()).values(value=""))
    except (StoreError, OSError) as error:
        facts["store"] = f"store: {one_line(error)}"
    facts["machines"] = {
        beat["host"]: beat["facts"]["machine"]
        for beat in facts["heartbeats"]
        if "machine" in beat["facts"] and not is_late(beat)
    }
    if facts["host"] not in facts["machines"]:
        facts["machines"] |= {facts["host"]: machine(config, store if readable else None)}
    found = problems(facts, readable=readable)
    levels = {
        check.name: found[check.name][0] if check.name in found else OK
        for check in applicable(readable=readable)
        if check.alert
    }
    level = max((level for level, _ in found.values()), default=OK) if readable else UNKNOWN
    return Status(level=level, checks=levels, remarks=tuple(text for _, text in found.values()), facts=facts)


def _recorded(config: Config, store: Store) -> dict[str, Any]:
    """Return the facts that are in the store."""
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
            "heartbeats": [dict(row) for row in rows.execute(beats.order_by(heartbeat.c.name)).mappings()],
            "files": _by_state(rows, file.c.state, file.c.present.is_(True)),
            "cadences": _by_state(rows, cadence.c.state),
            "newest_mjd": rows.scalar(select(func.max(file.c.tstart))),
            "oldest_ready_s": rows.scalar(select(age_s).where(cadence.c.state.in_(("ready", "retry_at")))),
            "waiting_for": _causes(
                rows, why.where(cadence.c.state.in_(("forming", "retry_at"))).order_by(cadence.c.tstart.desc())
            ),
            "warnings": _causes(
                rows,
                why.where(cadence.c.state.in_(("ready", "done")), cadence.c.why.is_not(None)).order_by(
                    cadence.c.tstart.desc()
                ),
            ),
            "files_waiting": _causes(rows, cause.where(unopened).order_by(file.c.id.desc())),
            "invalid": _causes(rows, cause.where(file.c.state == "invalid").order_by(file.c.id.desc())),
            "quarantined": _causes(rows, why.where(quarantined).order_by(cadence.c.ended_at.desc())),
            "quarantined_today": rows.scalar(
                select(func.count()).where(quarantined, cadence.c.ended_at > now() - DAY_S)
            ),
            "latency_s": percentiles(rows, config.canaries),
            "canary": _last_canary(rows)
            | {
                "every_s": config.sends_canaries * config.injections.canary_s,
                "alarm_s": config.injections.alarm_s,
            },
            "injections": _injections(rows),
            "stamps": {**_stamps(rows), "budget_bytes": config.stamp_bytes},
            "memory": {**_memory(rows), "limit": config.memory.keep, "compared": config.memory.cadences},
            "pictures_owed": rows.scalar(
                select(func.count()).where(artefact.c.kind == "waterfall", artefact.c.sha256 == OWED)
            ),
        }
    slack = "on" if config.slack_channel else "off"
    return facts | {"ledger": store.ledger(), "outbox": undelivered(store), "slack": slack}


def not_ready(config: Config, store: Store) -> str:
    """Return why a service that is starting cannot search yet, or an empty string if it can.

    Heartbeats of an earlier start do not count.
    """
    states = {name: program["statename"] for name, program in program_states(config).items()}
    run = current_run(config)
    beats = [(name, facts.get("run", "")) for name, _, facts in _alive(store)]
    alive = {name.split("@")[0] for name, of_run in beats if of_run == run}
    if config.cluster.scheduler:  # its workers are started elsewhere
        alive |= {name for name, _ in beats if name.startswith("worker")}
    if stopped := [f"{name} {state}" for name, state in states.items() if state != "RUNNING"]:
        return f"starting {', '.join(stopped)}"
    if not states:
        return "starting supervisord"
    missing = [name for name in states if name not in alive]
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
    recent = func.abs(now() - heartbeat.c.at) < LATE * heartbeat.c.period_s
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


def _stamps(rows: Connection) -> dict[str, int]:
    """Return the number of written stamps, their bytes, and those of stamps that are never deleted."""
    kept = func.sum(artefact.c.bytes).filter(candidate.c.label_in_force == "candidate")
    columns = select(func.count(), func.sum(artefact.c.bytes), kept)
    written = (artefact.c.kind == "stamp") & (artefact.c.sha256 != OWED)
    joined = columns.select_from(artefact).outerjoin(candidate, candidate.c.id == artefact.c.candidate_id)
    count, used, held = rows.execute(joined.where(written)).one()
    return {"count": int(count), "bytes": int(used or 0), "kept_bytes": int(held or 0)}


def _memory(rows: Connection) -> dict[str, Any]:
    """Return how many cadences the memory of interference holds, and the start of the newest, MJD."""
    count, newest = rows.execute(select(func.count(), func.max(occupancy.c.tstart))).one()
    return {"cadences": int(count), "newest_mjd": newest}


def lines(status: Status) -> list[str]:
    """Return the status as lines of text; the first is a summary."""
    facts = status.facts
    failed = [name for name, level in status.checks.items() if level]
    details = [
        f"  {WORDS[status.checks[name]]:<8} {one_line(text)}: see docs/operating.md#{name}"
        for name, text in zip(failed, status.remarks, strict=True)
    ]
    summary = f"{WORDS[status.level]}: {'; '.join(map(one_line, status.remarks)) or 'no problems'}"
    if "ledger" not in facts:  # the store cannot be read
        return [summary, *details, f"programs   {_counts(facts['programs'])}"]
    ledger = dict(facts["ledger"])
    hosts = sorted({beat["host"] for beat in facts["heartbeats"]})
    text = [
        summary,
        *details,
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
        f"pictures   {facts['pictures_owed']} to be drawn",
        f"stamps     {_budget(facts['stamps'])}",
        f"memory     {_remembered(facts['memory'])}",
        f"injected   {_counts(facts['injections'])}",
        *(f"  {stage.replace('_', ' '):<22} {_counts(figures)}" for stage, figures in facts["latency_s"].items()),
    ]
    for name in ("waiting_for", "files_waiting", "invalid", "quarantined", "warnings"):
        if facts[name]:
            text += [f"{name.replace('_', ' ')}:", *(f"  {cause}" for cause in facts[name])]
    return text


def _budget(stamps: Mapping[str, int]) -> str:
    used, kept, budget = (stamps[name] / 1e9 for name in ("bytes", "kept_bytes", "budget_bytes"))
    if not budget:
        return f"none are written: stamps.budget_gb is 0; {stamps['count']} from before, {used:.2f} GB"
    return f"{stamps['count']}, {used:.2f} of {budget:g} GB, {kept:.2f} GB of them labeled candidate, which stay"


def _remembered(memory: Mapping[str, Any]) -> str:
    if not memory["limit"]:
        return "off: memory.keep is 0"
    newest = f", the newest of MJD {memory['newest_mjd']:.4f}" if memory["newest_mjd"] else ""
    return f"rejected lines of {memory['cadences']} of at most {memory['limit']} cadences{newest}"


def _counts(counts: Mapping[str, Any]) -> str:
    """Return the entries that are one value; `--json` has the others."""
    return (
        ", ".join(f"{name} {one_line(count)}" for name, count in counts.items() if not isinstance(count, dict))
        or "none"
    )
