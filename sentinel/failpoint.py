"""Places where a test may break the service: `SENTINEL_FAILPOINT=name:kill|raise|exit|sleep=5|eat=999`, else inert.

Several are separated by commas; `eat` takes so many megabytes. The names, along a cadence's life: seen, file-row,
ready, leased, started, mid-read, mid-picture, before-commit, after-commit, result-known, before-send,
after-accept, mid-upload. `name@7` is that place for cadence 7 alone.
"""

import os
import signal
import time


def failpoint(name: str, cadence_id: int | None = None) -> None:
    """Do what `SENTINEL_FAILPOINT` asks for at `name`; most of the time, nothing."""
    wanted = dict(part.split(":", 1) for part in os.environ.get("SENTINEL_FAILPOINT", "").split(",") if ":" in part)
    action = wanted.get(f"{name}@{cadence_id}", wanted.get(name, ""))
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(1)
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
    elif action.startswith("eat="):
        held = [os.urandom(10 << 20) for _ in range(int(action.removeprefix("eat=")) // 10)]
        time.sleep(len(held))
