"""The programs of a running service load nothing of training or evaluation."""

import os
import subprocess
import sys

import pytest
import yaml

from aetherscan.header import gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import ROOT
from sentinel.programs.program import PROGRAMS

REPORT = """
forbidden = ("aetherscan.train", "aetherscan.evaluate", "keras", "tensorflow", "onnx")
loaded = [name for name in sys.modules if f"{name}.".startswith(tuple(f"{package}." for package in forbidden))]
print("loaded", *loaded)
"""
WORKER = """
import sys
from pathlib import Path
import sentinel.workers.preload  # loads the detector and searches a simulated cadence
from sentinel.config import config_path, load_config
from sentinel.workers.process import loaded_detector
from sentinel.workers.search import search_files
config = load_config(config_path())
found = search_files([Path(path) for path in sys.argv[1:]], "ABACAD", print, config, loaded_detector(), 1)
print(len(found.candidates), "candidates", len(found.pictures), "pictures")
"""
PROGRAM = """
import importlib, sys
from sentinel.config import config_path, load_config
from sentinel.programs.program import PROGRAMS, ProgramLoop
from sentinel.store.queue import open_store
config = load_config(config_path())
store = open_store(config.store_url)
loop = ProgramLoop(name=sys.argv[1], store=store, period_s=10, state=str(config.state_dir))
loop.stop()  # the program ends after one pass
importlib.import_module(f"sentinel.{PROGRAMS[sys.argv[1]]}").run(config, store, loop)
"""


def run(tmp_path, code, *arguments, **environment):
    """Run code in a process of its own, and return the last two lines that it prints."""
    settings = {
        "state_dir": str(tmp_path / "var"),
        "release": str(ROOT / "models" / "equinox"),
        "web": {"port": 0},
        "search": {"threshold": 0.0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    environment |= {"SENTINEL_CONFIG": str(tmp_path / "config.yaml"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code + REPORT, *map(str, arguments)]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-2:]


def test_a_worker_that_has_searched_has_loaded_nothing_of_training(tmp_path):
    header = gbt_header(2**15)
    tone = Emitter(frequency_mhz=header.frequency(9000), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(tone,)), 1)
    found, loaded = run(tmp_path, WORKER, *paths, SENTINEL_WORKER="1")
    assert found == "1 candidates 1 pictures"
    assert loaded == "loaded"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_service_loads_nothing_of_training(program, tmp_path):
    elsewhere = {"SENTINEL__CLUSTER__SCHEDULER": "tcp://127.0.0.1:9"} if program == "cluster" else {}
    assert run(tmp_path, PROGRAM, program, **elsewhere)[-1] == "loaded"
