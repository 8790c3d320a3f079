"""Load the detector, start the heartbeat and compile the search when a Dask worker starts.

Dask imports this module before the worker joins the cluster (`--preload sentinel.workers.preload`). If the detector
cannot be loaded, the import fails and the worker does not start. A worker joins before it has compiled the search,
which takes a minute of a processor after an installation. The searches that it is given meanwhile wait.
"""

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from distributed import Worker

from sentinel.config import config_path, load_config
from sentinel.programs import logs
from sentinel.programs.program import RUN
from sentinel.workers.process import COMPILED, cached_store, detector_for, loaded_detector

LOG = logging.getLogger(__name__)
BEAT_S = 10.0
DRAW_S = 30.0
WARM_UP_CHANNELS = 2**15
COMPILING = "being compiled, cadences wait"


def dask_setup(worker: Worker) -> None:
    """Start three threads: one records a heartbeat with the loaded release, one compiles, one draws owed pictures."""
    from sentinel.workers.pictures import draw_owed

    config = load_config(config_path())
    run = os.environ.get(RUN, "")
    # The configured release, since the store may be away. A promoted release is loaded with the first cadence.
    detector = detector_for(config.release)

    def beat() -> None:
        while True:
            try:
                store, host = cached_store(config.store_url), socket.gethostname()  # a host may be renamed
                facts = heartbeat_facts() | {"address": worker.address, "run": run}
                store.record_heartbeat(f"worker-{worker.name}@{host}", BEAT_S, pid=os.getpid(), host=host, **facts)
            except Exception:
                LOG.exception("heartbeat failed; next attempt in %g s", BEAT_S)
            time.sleep(BEAT_S)

    def draw() -> None:
        while True:
            time.sleep(DRAW_S)
            try:
                draw_owed(cached_store(config.store_url), stamp_bytes=config.stamp_bytes)
            except Exception:
                LOG.exception("pictures not drawn; next attempt in %g s", DRAW_S)

    COMPILED.clear()
    for action in (beat, draw, lambda: compile_search(detector, Path(worker.local_directory))):
        threading.Thread(target=action, daemon=True).start()


def heartbeat_facts() -> dict[str, str]:
    """Return the loaded release, and that searches wait while they do."""
    release = loaded_detector().release
    facts = {"release": release.name, "sha256": release.sha256}
    return facts if COMPILED.is_set() else facts | {"search": COMPILING}


def compile_search(detector: Any, scratch: Path) -> None:
    """Compile the search or load what is compiled, and then let the searches of this process begin.

    Args:
        detector: the release in memory.
        scratch: folder of this worker, whose rest Dask removes if the worker ends meanwhile.
    """
    began = time.monotonic()
    try:
        with _first_of_machine():
            warm_up(detector, scratch)
        LOG.info("the search was compiled or loaded in %.0f s", time.monotonic() - began)
    except Exception:  # searches report what is wrong, each for itself
        LOG.exception("the search was not compiled")
    finally:
        COMPILED.set()


@contextlib.contextmanager
def _first_of_machine() -> Iterator[None]:
    """Wait until no other process compiles into the same folder, so that several workers compile once."""
    from aetherscan.search.bandpass import normalize_bandpass

    folder = Path(normalize_bandpass.stats.cache_path)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # of another user, or on a network file system without locks
            lock = held.enter_context((folder / "compiling.lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def warm_up(detector: Any, scratch: Path | None = None) -> None:
    """Search a small simulated cadence, so that every kernel is compiled before the first real cadence.

    Args:
        detector: the release in memory.
        scratch: where the cadence is written (default: the folder for temporary files).
    """
    from aetherscan.header import gbt_header
    from aetherscan.io import open_cadence
    from aetherscan.search.barycenter import pointing_of
    from aetherscan.search.pipeline import search_cadence
    from aetherscan.simulate.interference import random_signal
    from aetherscan.simulate.sky import Sky, write_cadence

    rng, header = np.random.default_rng(1), gbt_header(WARM_UP_CHANNELS)
    tones = tuple(random_signal(rng, header.frequency(WARM_UP_CHANNELS * k / 4), 20.0, 0.5) for k in (1, 2, 3))
    with TemporaryDirectory(prefix="sentinel-warm-up-", dir=scratch) as folder:
        paths = write_cadence(Path(folder), Sky(header=header, emitters=tones), seed=1)
        with open_cadence(paths) as observations:
            search_cadence(observations, detector)
    pointing_of(header)  # reads the tables of astropy


if os.environ.get("SENTINEL_WORKER"):
    logs.log_as_json("worker")
    detector_for(load_config(config_path()).release)
