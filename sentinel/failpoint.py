"""Places where a test may break the service: `SENTINEL_FAILPOINT=name:kill|raise|exit|sleep=5`, inert unless set.

Several are separated by commas. The names, along a cadence's life: seen, file-row, ready, leased, mid-read, before-
commit, after-commit, before-send, after-accept, mid-upload.
"""

import os
import signal
import time


def failpoint(name: str) -> None:
    """Do what `SENTINEL_FAILPOINT` asks for at `name`; most of the time, nothing."""
    wanted = dict(part.split(":", 1) for part in os.environ.get("SENTINEL_FAILPOINT", "").split(",") if ":" in part)
    action = wanted.get(name, "")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(1)
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
