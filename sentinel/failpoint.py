"""Failpoints for tests: `SENTINEL_FAILPOINT=name:kill|raise|exit|sleep=5|eat=999` breaks the service at `name`.

Several are separated by commas. `eat` allocates that many megabytes. `name@7` applies to cadence 7 only. The names, in
the order of a cadence's life: seen, file-row, ready, leased, started, mid-read, mid-picture, mid-stamp, before-commit,
after-commit, result-known, before-send, after-accept, mid-upload; and of a label in the browser: before-label.
"""

import os
import signal
import time


def failpoint(name: str, cadence_id: int | None = None) -> None:
    """Do what `SENTINEL_FAILPOINT` sets for `name`; without it, nothing."""
    actions = dict(part.split(":", 1) for part in os.environ.get("SENTINEL_FAILPOINT", "").split(",") if ":" in part)
    action = actions.get(f"{name}@{cadence_id}", actions.get(name, ""))
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(1)
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
    elif action.startswith("eat="):
        blocks = [os.urandom(10 << 20) for _ in range(int(action.removeprefix("eat=")) // 10)]
        time.sleep(len(blocks))
