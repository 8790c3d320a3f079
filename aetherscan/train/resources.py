"""TODO."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil

Note = Callable[[Mapping[str, Any]], object]
"""Takes a finished stage of a training: its name, seconds, what the machine spent on it, and what came of it."""
GPU_USE = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=5")
"""What is asked of NVIDIA's own tool: percent and MiB of each GPU, every five seconds."""


@contextmanager
def stage(name: str, note: Note) -> Iterator[dict[str, Any]]:
    """Time what is done inside, and note it with what is put into the dict."""
    began, (cpu_s, _), found = time.monotonic(), _held(), dict[str, Any]()
    with _gpus() as gpus:
        yield found
    now_s, ram_bytes = _held()
    spent = {"seconds": round(time.monotonic() - began, 3), "cpu_s": round(now_s - cpu_s, 3), "ram_bytes": ram_bytes}
    note({"stage": name, **spent, **gpus, **found})


@contextmanager
def _gpus() -> Iterator[dict[str, float]]:
    """Fill the dict with how busy the GPUs were meanwhile, 0-1, and the most memory that one had in use."""
    used, tool = dict[str, float](), shutil.which("nvidia-smi")
    if tool is None:
        yield used
        return
    with TemporaryFile("w+") as said:
        with subprocess.Popen([tool, *GPU_USE], stdout=said, stderr=subprocess.DEVNULL) as looking:
            try:
                yield used
            finally:
                looking.terminate()
        said.seek(0)
        pairs = [line.split(", ") for line in said if line.replace(", ", "").strip().isdigit()]  # some tell [N/A]
    if pairs:
        busy, mib = np.array(pairs, dtype=float).T
        used |= {"gpu_load": round(float(busy.mean()) / 100, 3), "gpu_bytes": int(mib.max()) * 2**20}


def _held() -> tuple[float, int]:
    """Return the CPU seconds of this process and all below it, ended ones too, and the bytes that each has alone."""
    me, cpu_s, ram_bytes = psutil.Process(), 0.0, 0
    for one in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory = one.memory_info()
            cpu_s, ram_bytes = cpu_s + sum(one.cpu_times()[:4]), ram_bytes + memory.rss - getattr(memory, "shared", 0)
    return cpu_s, ram_bytes
