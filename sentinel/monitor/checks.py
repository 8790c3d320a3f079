"""The checks of the service, in one table.

`status`, `/readyz`, `/metrics`, the alert rules and `doctor` use this table. A check is a pure function of facts: it
returns a level and a text, or None. The facts come from the store, from supervisord, from the heartbeats of the
programs and from a look at the machine. Each check has a section in docs/operating.md and an alert in
deploy/alerts.yaml; tests hold the three together, and break each check.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sentinel import COMMAND

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("ok", "warning", "critical", "unknown")
LATE = 3
"""Periods without a heartbeat after which a program counts as silent."""
SLOW_S = 3600.0
"""Age of a ready cadence or an unsent message that is a warning."""
LOW_GIB, FULL_GIB = 2.0, 0.2
MOST_KEPT = 0.9
"""Share of the budget of stamps, taken by those that are never deleted, that is a warning."""
AHEAD_S = 5.0
"""Difference between the clocks of a host and of the store that is a warning, seconds."""
Facts = Mapping[str, Any]
Problem = tuple[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: of the check, in the label of its metric and in the runbook.
        about: what it looks at.
        level: the highest that it returns.
        alert: name of its rule in deploy/alerts.yaml; empty if only `doctor` has the facts.
        problem: returns level and text of what is wrong.
        machine: whether `doctor` can check it before the service runs.
    """

    name: str
    about: str
    level: int
    alert: str
    problem: Callable[[Facts], Problem | None]
    machine: bool = False


def is_late(beat: Facts) -> bool:
    """Return whether a program is silent. A time far ahead was written before the clock was set back."""
    return not -LATE * beat["period_s"] <= beat["age_s"] <= LATE * beat["period_s"]


def _gone_hosts(facts: Facts) -> list[str]:
    """Return the hosts, other than this one, whose programs all send no heartbeats."""
    heard = {beat["host"] for beat in facts["heartbeats"] if not is_late(beat)}
    return sorted({beat["host"] for beat in facts["heartbeats"]} - heard - {facts["host"]}) if heard else []


def _beats(facts: Facts, program: str) -> list[Facts]:
    """Return the heartbeats of a program, without hosts that are gone."""
    gone = _gone_hosts(facts)
    return [beat for beat in facts["heartbeats"] if beat["name"].startswith(program) and beat["host"] not in gone]


def _join(texts: list[str]) -> str:
    return "; ".join(texts)


def _service(facts: Facts) -> Problem | None:
    if facts["programs"]:
        return None
    if silent := facts.get("supervisord"):
        return CRITICAL, f"{silent}: its socket was deleted or it hangs; its programs may run: {COMMAND} restart"
    return CRITICAL, f"the service is not running: {COMMAND} up"


def _programs(facts: Facts) -> Problem | None:
    down = [name for name, state in facts["programs"].items() if state != "RUNNING"]
    return (CRITICAL, f"not running: {', '.join(down)}: {COMMAND} logs {' '.join(down)}") if down else None


def _watcher(facts: Facts) -> Problem | None:
    if not facts["programs"]:
        return None
    beats = _beats(facts, "watcher")
    if not beats:
        return CRITICAL, f"no heartbeat from the watcher: {COMMAND} logs watcher"
    late = [beat for beat in beats if is_late(beat)]
    if not late:
        return None
    long = any(beat["age_s"] > 2 * LATE * beat["period_s"] or beat["age_s"] < 0 for beat in late)
    names = ", ".join(f"{beat['name']} ({beat['age_s']:.0f} s)" for beat in late)
    return (CRITICAL if long else WARNING), f"no heartbeat from {names}, new files are not seen"


def _heartbeats(facts: Facts) -> Problem | None:
    late = [beat["name"] for beat in _beats(facts, "") if is_late(beat) and not beat["name"].startswith("watcher")]
    return (WARNING, f"no heartbeat from {', '.join(late)}") if late and facts["programs"] else None


def _errors(facts: Facts) -> Problem | None:
    failing = [
        f"{beat['name']} fails: {beat['facts']['error']}"
        for beat in _beats(facts, "")
        if beat["facts"].get("error") and not is_late(beat)
    ]
    return (CRITICAL, _join(failing)) if failing else None


def _workers(facts: Facts) -> Problem | None:
    workers = [beat for beat in _beats(facts, "worker") if not is_late(beat)]
    if workers or not facts["programs"]:
        return None
    return CRITICAL, f"no worker has loaded a release: {COMMAND} logs cluster"


def _hosts(facts: Facts) -> Problem | None:
    gone = _gone_hosts(facts)
    return (WARNING, f"no heartbeat from any program on {', '.join(gone)}") if gone else None


def _store(facts: Facts) -> Problem | None:
    return (CRITICAL, facts["store"]) if facts["store"] else None


def _ledger(facts: Facts) -> Problem | None:
    ledger = facts["ledger"]
    counted = ledger["done"] + ledger["quarantined"] + ledger["skipped"] + ledger["waiting"]
    if ledger["seen"] == counted:
        return None
    return CRITICAL, f"cadence counts disagree: {ledger['seen']} seen, {counted} done, quarantined, skipped or waiting"


def _root_facts(facts: Facts) -> Iterator[tuple[str, Facts, float]]:
    """Yield each watched root with its facts and the age of these, seconds."""
    for name, root in facts.get("roots", {}).items():  # of this machine, before the service runs
        yield name, root, 0.0
    for beat in _beats(facts, "watcher"):
        if not is_late(beat):
            for name, root in beat["facts"].get("roots", {}).items():
                yield name, root, beat["age_s"]


def _roots(facts: Facts) -> Problem | None:
    texts = [f"{name}: {root['problem']}" for name, root, _ in _root_facts(facts) if root["problem"]]
    return (CRITICAL, _join(texts)) if texts else None


def _folders(facts: Facts) -> Problem | None:
    texts = [
        f"{root['unread_count']} folders below {name} cannot be read, among them {', '.join(root['unread'])}"
        for name, root, _ in _root_facts(facts)
        if root.get("unread_count")
    ]
    return (WARNING, _join(texts)) if texts else None


def _scans(facts: Facts) -> Problem | None:
    texts = [
        f"{name}: no complete scan for {root['scan_age_s'] + age_s:.0f} s"
        for name, root, age_s in _root_facts(facts)
        if root.get("scan_age_s", 0) + age_s > root.get("limit_s", 0) and not root["problem"]
    ]
    return (CRITICAL, _join(texts)) if texts and facts["programs"] else None


def _at(facts: Facts, place: str) -> Iterator[tuple[str, Facts]]:
    """Yield what was found in a place of each machine, with a prefix that names the machine if it is another one."""
    for host, machine in facts["machines"].items():
        if place in machine:
            yield ("" if host == facts["host"] else f"{host}: "), machine[place]


def _writable(place: str, level: int, text: str) -> Callable[[Facts], Problem | None]:
    def problem(facts: Facts) -> Problem | None:
        texts = [f"{host}{text}: {found['error']}" for host, found in _at(facts, place) if found.get("error")]
        return (level, _join(texts)) if texts else None

    return problem


def _disk(facts: Facts) -> Problem | None:
    low = {
        f"{host}{found['path']}: {found['free_gib']:.1f} GiB free": found["free_gib"]
        for place in ("state", "pictures")
        for host, found in _at(facts, place)
        if found.get("free_gib", LOW_GIB) < LOW_GIB
    }
    if not low:
        return None
    level = CRITICAL if min(low.values()) < FULL_GIB else WARNING
    return level, f"{_join(list(low))}, expected at least {LOW_GIB:g} GiB"


def _stamps(facts: Facts) -> Problem | None:
    kept, budget = facts["stamps"]["kept_bytes"], facts["stamps"]["budget_bytes"]
    if not budget or kept < MOST_KEPT * budget:
        return None
    return WARNING, (
        f"stamps labeled candidate, which stay, take {kept / 1e9:.2f} of {budget / 1e9:g} GB: "
        "soon no more are written: raise stamps.budget_gb"
    )


def _web(facts: Facts) -> Problem | None:
    texts = [
        f"{beat['name']} is {beat['facts']['web']}"
        for beat in _beats(facts, "web")
        if str(beat["facts"].get("web", "")).startswith("not listening")
    ]
    texts += [facts["setup"]["web"]] if facts.get("setup", {}).get("web") else []
    return (WARNING, _join(texts)) if texts else None


def _clock(facts: Facts) -> Problem | None:
    texts = [
        f"{host}the clock {text}"
        for host, clock in _at(facts, "clock")
        for text, wrong in (
            (f"jumped by {clock.get('jump_s', 0):+.0f} s", clock.get("jump_s")),
            (f"differs by {clock.get('ahead_s', 0):+.0f} s from the store's", abs(clock.get("ahead_s", 0)) > AHEAD_S),
        )
        if wrong
    ]
    return (WARNING, _join(texts)) if texts else None


def _canary(facts: Facts) -> Problem | None:
    canary = facts["canary"]
    out_s = canary["age_s"] or 0.0
    if canary["recovered"] is False:
        return CRITICAL, f"the tone of the last canary was not found: {COMMAND} demo"
    if facts["programs"] and canary["recovered"] is None and out_s > canary["alarm_s"]:
        return CRITICAL, f"a canary sent {out_s:.0f} s ago is not searched: {COMMAND} logs cluster"
    if canary["every_s"] and out_s > LATE * canary["every_s"]:
        return WARNING, f"no canary was sent for {out_s:.0f} s: {COMMAND} logs web"
    return None


def _backlog(facts: Facts) -> Problem | None:
    waits = (facts["oldest_ready_s"] or 0) > SLOW_S
    return (WARNING, "a cadence has waited for a worker for more than an hour") if waits else None


def _messages(facts: Facts) -> Problem | None:
    outbox = facts["outbox"]
    if (outbox["oldest_s"] or 0) > SLOW_S or outbox["cause"]:
        return WARNING, f"messages wait: {outbox['cause'] or 'for more than an hour'}"
    return None


def _quarantine(facts: Facts) -> Problem | None:
    count = facts["quarantined_today"]
    return (WARNING, f"{count} cadences quarantined in the last 24 hours") if count else None


def _setup(name: str) -> Callable[[Facts], Problem | None]:
    def problem(facts: Facts) -> Problem | None:
        text = facts.get("setup", {}).get(name)
        return (CRITICAL, text) if text else None

    return problem


def _check(name: str, about: str, level: int, alert: str, problem: Callable[[Facts], Problem | None]) -> Check:
    return Check(name=name, about=about, level=level, alert=alert, problem=problem)


def _machine(name: str, about: str, level: int, alert: str, problem: Callable[[Facts], Problem | None]) -> Check:
    return Check(name=name, about=about, level=level, alert=alert, problem=problem, machine=True)


_STATE = _writable("state", CRITICAL, "the state directory cannot be written")
_PICTURES = _writable("pictures", WARNING, "no picture can be written")
_CACHE = _writable("cache", CRITICAL, "no folder for compiled functions can be written")
CHECKS = (
    _check("service", "supervisord runs and answers", CRITICAL, "SentinelDown", _service),
    _check("programs", "each program is running", CRITICAL, "SentinelProgramDown", _programs),
    _machine("store", "the store can be read and written", CRITICAL, "SentinelStoreAway", _store),
    _check("watcher", "the watcher sends heartbeats", CRITICAL, "SentinelWatcherSilent", _watcher),
    _check("heartbeats", "the other programs send heartbeats", WARNING, "SentinelProgramSilent", _heartbeats),
    _check("errors", "the last pass of each program succeeded", CRITICAL, "SentinelProgramFails", _errors),
    _check("workers", "a worker has loaded a release", CRITICAL, "SentinelNoWorker", _workers),
    _check("hosts", "the other hosts send heartbeats", WARNING, "SentinelHostSilent", _hosts),
    _check("ledger", "each cadence is in one state", CRITICAL, "SentinelLedgerWrong", _ledger),
    _machine("roots", "watched roots are mounted and readable", CRITICAL, "SentinelRootAway", _roots),
    _check("folders", "folders below the roots are readable", WARNING, "SentinelFolderUnreadable", _folders),
    _check("scans", "each root was scanned completely not long ago", CRITICAL, "SentinelScanStopped", _scans),
    _machine("state", "the state directory can be written", CRITICAL, "SentinelStateUnwritable", _STATE),
    _machine("disk", "space for state and pictures", CRITICAL, "SentinelDiskLow", _disk),
    _machine("pictures", "the picture folder can be written", WARNING, "SentinelPicturesUnwritable", _PICTURES),
    _check("stamps", "new stamps fit into their budget", WARNING, "SentinelStampsFull", _stamps),
    _machine("cache", "compiled functions can be kept", CRITICAL, "SentinelCacheUnwritable", _CACHE),
    _machine("web", "the web port can be used", WARNING, "SentinelWebPortTaken", _web),
    _machine("clock", "the clock is steady and agrees with the store's", WARNING, "SentinelClockWrong", _clock),
    _check("canary", "the last canary was found", CRITICAL, "SentinelCanaryLost", _canary),
    _check("backlog", "cadences are searched within an hour", WARNING, "SentinelBacklog", _backlog),
    _check("messages", "messages are delivered", WARNING, "SentinelMessagesWait", _messages),
    _check("quarantine", "no cadence was set aside today", WARNING, "SentinelQuarantine", _quarantine),
    _machine("inotify", "enough watches of folders", CRITICAL, "", _setup("inotify")),
    _machine("release", "the release is whole", CRITICAL, "", _setup("release")),
    _machine("slack", "token and channel of Slack", CRITICAL, "", _setup("slack")),
)


def applicable(*, readable: bool) -> list[Check]:
    """Return the checks that have facts: if the store cannot be read, only those of the machine and supervisord."""
    return [check for check in CHECKS if readable or check.machine or check.name in {"service", "programs"}]


def problems(facts: Facts, *, readable: bool = True) -> dict[str, Problem]:
    """Return level and text of each check that fails, by name.

    Args:
        facts: of the service; those of the set-up are present only in `doctor`.
        readable: whether the store could be read.
    """
    return {check.name: problem for check in applicable(readable=readable) if (problem := check.problem(facts))}
