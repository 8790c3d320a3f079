"""Build, check, start and stop the container with docker compose. Imports the standard library only."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sentinel.errors import SentinelError

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "docker-compose.override.yml")
PASSED = ("PGPASSWORD", "SENTINEL_WEBHOOK_TOKEN", "SENTINEL_WEBHOOK_URL", "SLACK_CHANNEL")
OWN = ("SENTINEL__STATE_DIR",)
"""Variables that the container sets itself: its state is in a volume."""
MOUNTS = Path("/proc/self/mountinfo")
SAME_S, TRY_S = 300.0, 2.0
"""A state that does not change for this long is a failure, and the time between two looks, seconds."""
MOST_RESTARTS = 2
TAIL = "20"
"""Lines of the log of a container that does not start."""
NEXT = """\
the container searches new files in {data}
next: docker compose exec sentinel ./sentinel.py demo (status, candidates ls)
logs: docker compose logs -f; stop: ./sentinel.py down --docker"""


def up(tell: Callable[[str], object] = print) -> int:
    """Build the image, check the configuration inside it, start the container and wait until it is ready.

    Returns:
        0; that of the check if it finds a mistake; 1 if the container is not ready in time, with its last lines.

    Raises:
        SentinelError: there is no docker or no compose plugin, or the image cannot be built.
    """
    with _compose() as compose:
        if compose("build").returncode:
            raise SentinelError("the image was not built; the lines above say why")
        if status := compose("run", "--rm", "--no-deps", "-T", "sentinel", "config", "check").returncode:
            tell("not started: the container sees the mistakes above; docker-compose.yml says which folders it has")
            return status
        if compose("up", "--detach", "--no-build").returncode:
            raise SentinelError("the container was not started; the lines above say why")
        if problem := _wait_ready(compose, tell):
            compose("logs", "--no-log-prefix", "--tail", TAIL, "sentinel")
            tell(f"not ready: {problem}")
            return 1
    tell(NEXT.format(data=data_folder()))
    return 0


def down() -> int:
    """Stop and remove the container; its state stays in the volume."""
    with _compose() as compose:
        return compose("down").returncode


Compose = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def _compose() -> Iterator[Compose]:
    """Yield a function that runs docker compose on this checkout; with `capture` its output is returned, not shown.

    Raises:
        SentinelError: there is no docker or no compose plugin.
    """
    if not shutil.which("docker"):
        raise SentinelError("expected docker, found none on the path: install Docker Engine with its compose plugin")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        raise SentinelError("expected the compose plugin of docker, found none: install docker-compose-v2 or its like")
    named = os.environ.get("COMPOSE_FILE")
    files = named.split(":") if named else [str(CHECKOUT / name) for name in FILES if (CHECKOUT / name).exists()]
    with TemporaryDirectory() as folder:
        passed = Path(folder) / "environment.json"
        passed.write_text(json.dumps({"services": {"sentinel": {"environment": passed_on(os.environ)}}}))
        environment = {**os.environ, "COMPOSE_FILE": ":".join([*files, str(passed)])}
        if is_shared(data_folder(), MOUNTS.read_text() if MOUNTS.exists() else ""):
            environment.setdefault("SENTINEL_PROPAGATION", "rslave")
        base = ["docker", "compose", "--project-directory", str(CHECKOUT)]

        def run(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
            command = [*base, *arguments]
            return subprocess.run(command, env=environment, capture_output=capture, text=True, check=False)

        yield run


def data_folder() -> Path:
    """Return the folder of recordings on the host."""
    return CHECKOUT / os.environ.get("SENTINEL_DATA", "data/incoming")


def is_shared(folder: Path, mounts: str) -> bool:
    """Return whether disks that are mounted below a folder later can appear in a container: the engine refuses others.

    Args:
        folder: on the host.
        mounts: text of /proc/self/mountinfo (proc(5)).
    """
    real, best, shared = os.path.realpath(folder), "", False
    for line in mounts.splitlines():
        fields = line.split(" - ")[0].split()
        point = fields[4]
        if (f"{real}/".startswith(f"{point.rstrip('/')}/")) and len(point) >= len(best):
            best, shared = point, any(field.startswith(("shared:", "master:")) for field in fields[6:])
    return shared


def passed_on(environment: Mapping[str, str]) -> dict[str, None]:
    """Return the variables that the container gets from this shell, without values: compose reads those itself."""
    names: Iterable[str] = (name for name in environment if name.startswith("SENTINEL__") or name in PASSED)
    return dict.fromkeys(name for name in names if name not in OWN)


def _wait_ready(compose: Compose, tell: Callable[[str], object]) -> str:
    """Wait until `status` in the container is ok or a warning; return what is wrong if it does not get there."""
    seen, since = "", time.monotonic()
    while time.monotonic() - since < SAME_S:
        probe = compose("exec", "-T", "sentinel", "./sentinel.py", "status", "--probe", capture=True)
        if probe.returncode <= 1 and probe.stdout:
            return ""
        names = compose("ps", "--all", "--quiet", "sentinel", capture=True).stdout.split()
        ask = ["docker", "inspect", "--format", "{{.RestartCount}}", *names]
        restarts = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
        if not restarts.isdigit() or int(restarts) > MOST_RESTARTS:
            return "the container does not run"
        state = probe.stdout.strip() or "starting"
        if state != seen:
            tell(state)
            seen, since = state, time.monotonic()
        time.sleep(TRY_S)
    return seen
