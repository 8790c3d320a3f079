"""Measure what each stage of a training costs: time, CPU, memory and GPU use."""

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
"""Receives a finished stage of a training: `stage` (its name), `seconds`, resources and results."""
GPU_USE = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=5")
"""Options of nvidia-smi: utilization (%) and memory (MiB) of each GPU, every five seconds."""


@contextmanager
def stage(name: str, note: Note) -> Iterator[dict[str, Any]]:
    """Measure the body of a `with` statement, and pass the stage to `note` with the results put into the dict."""
    began, (cpu_s, _), results = time.monotonic(), _process_tree(), dict[str, Any]()
    with _gpus() as gpus:
        yield results
    now_s, ram_bytes = _process_tree()
    spent = {"seconds": round(time.monotonic() - began, 3), "cpu_s": round(now_s - cpu_s, 3), "ram_bytes": ram_bytes}
    note({"stage": name, **spent, **gpus, **results})


@contextmanager
def _gpus() -> Iterator[dict[str, float]]:
    """Yield a dict that holds, on exit, the mean load of the GPUs (0-1) and the peak memory of one GPU (bytes)."""
    used, tool = dict[str, float](), shutil.which("nvidia-smi")
    if tool is None:
        yield used
        return
    with TemporaryFile("w+") as output:
        with subprocess.Popen([tool, *GPU_USE], stdout=output, stderr=subprocess.DEVNULL) as monitor:
            try:
                yield used
            finally:
                monitor.terminate()
        output.seek(0)
        pairs = [line.split(", ") for line in output if line.replace(", ", "").strip().isdigit()]  # skips [N/A]
    if pairs:
        load, mib = np.array(pairs, dtype=float).T
        used |= {"gpu_load": round(float(load.mean()) / 100, 3), "gpu_bytes": int(mib.max()) * 2**20}


def _process_tree() -> tuple[float, int]:
    """Return CPU seconds and unshared bytes of this process and its descendants; the seconds include ended ones."""
    own, cpu_s, ram_bytes = psutil.Process(), 0.0, 0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_info()
            cpu_s += sum(process.cpu_times()[:4])
            ram_bytes += memory.rss - getattr(memory, "shared", 0)
    return cpu_s, ram_bytes
