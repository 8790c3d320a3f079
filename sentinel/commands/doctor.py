"""Check what the service needs from the machine; report one line for each check."""

import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sentinel.config import Config
from sentinel.errors import PostError
from sentinel.store.filesystem import file_system, is_network
from sentinel.store.queue import open_store
from sentinel.store.releases import read_active_release

FREE_GIB = 2.0
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
FEW_WATCHES = 8192


def examine(config: Config) -> Iterator[tuple[str, bool, str]]:
    """Yield for each check its name, whether it passed, and what was found."""
    checks: tuple[tuple[str, Callable[[Config], str]], ...] = (
        ("python", lambda _: f"{sys.version.split()[0]} at {sys.executable}"),
        ("state", _state),
        *((f"root {root}", lambda _, root=root: _root(root)) for root in config.watch.roots),
        ("inotify", _inotify),
        ("store", lambda config: f"{open_store(config.store_url).ledger()['seen']} cadences seen"),
        ("release", _release),
        ("slack", _slack),
        ("web", _web),
    )
    for name, check in checks:
        try:
            yield name, True, check(config)
        except Exception as error:  # noqa: BLE001
            yield name, False, f"{type(error).__name__}: {error}"


def _state(config: Config) -> str:
    config.state_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=config.state_dir) as probe:
        probe.write(b"can be written")
    free_gib = shutil.disk_usage(config.state_dir).free / 2**30
    if free_gib < FREE_GIB:
        raise OSError(f"{config.state_dir}: expected at least {FREE_GIB} GiB free, found {free_gib:.1f}")
    return f"{config.state_dir} on {file_system(config.state_dir)}, {free_gib:.0f} GiB free"


def _root(root: Path) -> str:
    if not os.access(root, os.R_OK | os.X_OK):
        raise OSError("expected a readable folder, found none; `up` creates it if it may")
    kind = file_system(root)
    return f"{kind}, {'scans only: writes of other hosts cause no events' if is_network(kind) else 'scans and events'}"


def _inotify(_: Config) -> str:
    if not WATCHES.exists():
        return "not on this system: scans only"
    count = int(WATCHES.read_text())
    if count < FEW_WATCHES:
        raise OSError(f"expected at least {FEW_WATCHES} watches, found {count}: raise fs.inotify.max_user_watches")
    return f"{count} watches"


def _release(config: Config) -> str:
    from aetherscan.detector.release import read_release

    folder = read_active_release(config)
    release = read_release(folder)
    over = f", promoted over {config.release.name}" if folder != config.release else ""
    return f"{release.name}{over}, sha256 {release.sha256[:12]}"


def _slack(config: Config) -> str:
    if not config.slack_channel:
        return "off: set SLACK_BOT_TOKEN, and SLACK_CHANNEL or slack.channel"
    from sentinel.notify.slack import SlackPoster

    try:
        return f"{config.slack_channel} in {SlackPoster(config.slack_channel, config.slack.api_url).check()}"
    except PostError as error:
        raise OSError(f"{error}: check the token, and that the bot is in the channel") from error


def _web(config: Config) -> str:
    web = config.web
    if web.certificate:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(web.certificate, web.key)
    return "off" if web.port is None else f"{'TLS' if web.certificate else 'plain HTTP'} on {web.host}, port {web.port}"
