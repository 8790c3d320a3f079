"""A training says how far it is, on a terminal or not, and TensorFlow says nothing about GPUs that are absent."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aetherscan.train.progress import Progress, duration
from aetherscan.train.quiet import is_noise

ROOT = Path(__file__).parents[2]
NOTICES = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    b"I0000 00:00:1795958255.948239    8989 port.cc:153] oneDNN custom operations are on.",
    b"I0000 00:00:1795958255.949287    8989 cudart_stub.cc:31] Could not find cuda drivers on your machine",
)
NO_CUDA = b"E0000 00:00:1795958260.730611    8989 cuda_platform.cc:52] failed call to cuInit: CUDA error: UNKNOWN ERROR"
FAULT = b"E0000 00:00:1795958260.730611    8989 gpu_device.cc:52] out of memory"


def test_a_line_a_minute_says_how_far_a_step_is_where_there_is_no_terminal():
    lines, now = [], iter(range(0, 1000, 25))
    with closing(Progress("rounds", 10, lines.append, lambda: next(now))) as progress:
        progress.describe("round 1/2, epoch 3", "loss 12.5")
        for _ in range(6):
            progress.advance()
    assert lines == ["round 1/2, epoch 3: 30%, loss 12.5, 3 min left", "round 1/2, epoch 3: 60%, loss 12.5, 2 min left"]


def test_a_step_that_goes_back_counts_the_time_left_from_there():
    lines, now = [], iter([0, 100, 300, 400])
    with closing(Progress("rounds", 10, lines.append, lambda: next(now))) as progress:
        progress.advance(6)
        progress.restart_at(2)
        progress.advance(2)
    assert lines == ["rounds: 60%, 1 min left", "rounds: 40%, 5 min left"]
    assert [duration(seconds) for seconds in (20, 3500, 3700)] == ["0 min", "58 min", "1 h 2 min"]


def test_only_notices_and_absent_gpus_are_dropped():
    assert all(is_noise(line, driver=driver) for line in NOTICES for driver in (True, False))
    assert is_noise(NO_CUDA, driver=False)
    assert not is_noise(NO_CUDA, driver=True)
    for line in (FAULT, b"Traceback (most recent call last):", b"", b"WARNING: of ours", b"I/O error"):
        assert not is_noise(line, driver=False)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="TensorFlow has a GPU to talk about")
def test_loading_tensorflow_is_silent_and_our_own_lines_are_not():
    code = """import os, sys
from aetherscan.train.quiet import quiet_tensorflow
with quiet_tensorflow():
    import keras
    keras.distribution.list_devices()
    os.write(2, b"of ours\\n")
    print("of Python", file=sys.stderr)
"""
    there = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=there, capture_output=True, text=True, check=True)
    assert ran.stderr == "of ours\nof Python\n"
