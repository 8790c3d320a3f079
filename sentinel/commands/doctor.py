"""Check what the service needs from the machine; report one line for each check."""

import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from aetherscan.errors import ReleaseError
from sentinel.config import Config
from sentinel.errors import PostError, StoreError
from sentinel.monitor.checks import CHECKS, problems
from sentinel.monitor.probes import folder, look, root_problem
from sentinel.monitor.status import LOCKED_S, quick_store, read_status
from sentinel.notify.messages import one_line
from sentinel.programs.supervisor import service_pids
from sentinel.store.filesystem import file_system, is_network, missing_mount
from sentinel.store.migrations import create_or_upgrade
from sentinel.store.queue import open_store
from sentinel.store.releases import read_active_release

WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
FEW_WATCHES = 8192


def examine(config: Config) -> Iterator[tuple[str, bool, str]]:
    """Yield for each check that needs no running service its name, whether it passed, and what was found."""
    status = read_status(config, lambda: quick_store(config))
    setup, found = dict[str, str](), {"python": f"{sys.version.split()[0]} at {sys.executable}"}
    facts = dict(status.facts)
    if _starts_store(config):  # its folder is looked at as `state`
        facts["store"], found["store"] = "", f"none yet: a start creates it in {config.state_dir}"
    web = partial(_web, status.facts)
    probes: dict[str, Callable[[Config], str]] = {"inotify": _inotify, "release": _release, "slack": _slack, "web": web}
    for name, probe in probes.items():
        try:
            found[name] = probe(config)
        except Exception as error:  # noqa: BLE001
            setup[name] = f"{type(error).__name__}: {error}"
    roots = {str(root): look(f"root {root}", partial(_root, root)) for root in config.watch.roots}
    roots = {name: {"problem": root.get("error") or root["problem"]} for name, root in roots.items()}
    machine = status.facts["machines"][status.facts["host"]]
    found |= {"roots": ", ".join(map(_kind, config.watch.roots)), "state": _kind(config.state_dir)}
    found["disk"] = ", ".join(f"{at['path']} {at['free_gib']:.0f} GiB free" for at in machine.values() if "path" in at)
    problem = problems({**facts, "setup": setup, "roots": roots}, readable="ledger" in facts)
    yield "python", True, found["python"]
    for check in CHECKS:
        if check.machine or (check.name in problem and status.facts["programs"]):
            text = problem[check.name][1] if check.name in problem else found.get(check.name, check.about)
            yield check.name, check.name not in problem, text


def start_problems(config: Config) -> Iterator[str]:
    """Yield a line for each problem that a start would meet with folders, store, releases or certificate."""
    from aetherscan.detector.detector import load_detector

    release = config.release
    for name, path in {"state_dir": config.state_dir, "picture_dir": config.pictures}.items():
        if missing := missing_mount(path):
            yield f"{name}: {path}: {missing}"
            if name == "state_dir":  # everything below depends on it
                return
    try:
        store = open_store(config.store_url, upgrade=False, create=False, busy_s=LOCKED_S)
        if _starts_store(config):
            folder(Path(make_url(config.store_url).database or "").parent)
        else:
            with store.write() as rows:
                create_or_upgrade(rows)
                rows.rollback()
            release = read_active_release(config)
    except (StoreError, OSError) as error:
        yield f"store: {one_line(error)}"
    for name, folder_ in {"release": release, "shadow": config.shadow, "train.start": config.train.start}.items():
        try:
            if folder_:
                load_detector(folder_)
        except (ReleaseError, OSError) as error:
            yield f"{name}: {one_line(error)}"
    try:
        _load_certificate(config)
    except OSError as error:
        yield f"web.certificate: {one_line(error)}"


def _starts_store(config: Config) -> bool:
    """Return whether a start creates the store: there is none, and no service uses it."""
    return not config.has_store and not service_pids(config)


def _root(root: Path) -> dict[str, str]:
    return {"problem": root_problem(root)}


def _kind(path: Path) -> str:
    kind = file_system(path)
    return f"{path} on {kind}{', scans only: writes of other hosts cause no events' if is_network(kind) else ''}"


def _inotify(_: Config) -> str:
    if not WATCHES.exists():
        return "not on this system: scans only"
    count = int(WATCHES.read_text())
    if count < FEW_WATCHES:
        raise OSError(f"expected at least {FEW_WATCHES} watches, found {count}: raise fs.inotify.max_user_watches")
    return f"{count} watches"


def _release(config: Config) -> str:
    from aetherscan.detector.release import read_release

    active = read_active_release(config)
    release = read_release(active)
    over = f", promoted over {config.release.name}" if active != config.release else ""
    text = f"{release.name}{over}, sha256 {release.sha256[:12]}"
    if not config.shadow:
        return text
    try:
        return f"{text}; shadow {read_release(config.shadow).name}"
    except ReleaseError as error:
        raise ReleaseError(f"shadow: {error}") from error


def _slack(config: Config) -> str:
    if not config.slack_channel:
        return "off: set SLACK_BOT_TOKEN, and SLACK_CHANNEL or slack.channel"
    from sentinel.notify.slack import SlackPoster

    try:
        return f"{config.slack_channel} in {SlackPoster(config.slack_channel, config.slack.api_url).check()}"
    except PostError as error:
        raise OSError(f"{error}: check the token, and that the bot is in the channel") from error


def _load_certificate(config: Config) -> None:
    """Load certificate and key of the web pages, if there are any; what is wrong is an OSError."""
    if config.web.certificate:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.web.certificate, config.web.key)


def _web(facts: Mapping[str, Any], config: Config) -> str:
    web = config.web
    _load_certificate(config)
    if web.port is None:
        return "off"
    if not facts["programs"]:  # else the port is ours, or the heartbeat of `web` says that it is not
        family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
        with socket.create_server((web.host, web.port), family=family):
            pass
    return f"{'TLS' if web.certificate else 'plain HTTP'} on {web.host}, port {web.port}"
