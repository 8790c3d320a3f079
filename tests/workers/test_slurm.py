"""The jobs of workers on a cluster start them as Dask understands it, with what a worker of Sentinel needs."""

import os
import shlex
import subprocess
import sys

import pytest
from distributed.cli.dask_worker import main as dask_worker

from sentinel.config import ROOT

SLURM = ROOT / "deploy" / "slurm"
DASK = """#!/bin/sh
printf '%s\\n' "$@" > "$ARGUMENTS"
env > "$ARGUMENTS.env"
ls -d "$MPLCONFIGDIR" >> "$ARGUMENTS.env"
"""


def options(command):
    """Return the options of a `dask worker`, as its own parser reads them; an unknown one is an error."""
    return dask_worker.make_context("dask worker", list(command)).params


def test_a_job_of_slurm_is_one_worker_with_a_detector_that_ends_before_its_time_is_up(tmp_path):
    files = {name: tmp_path / "tls" / name for name in ("ca.pem", "worker.pem", "worker.key")}
    program = tmp_path / "home" / ".venv" / "bin" / "dask"
    program.parent.mkdir(parents=True)
    program.write_text(DASK)
    program.chmod(0o755)
    (tmp_path / "tls").mkdir()
    for file in files.values():
        file.touch()
    slurm = {"SLURM_JOB_ID": "17", "SLURM_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    own = {"SENTINEL_HOME": tmp_path / "home", "SENTINEL_TLS": tmp_path / "tls", "ARGUMENTS": tmp_path / "arguments"}
    environment = slurm | {name: str(value) for name, value in own.items()}
    subprocess.run(["bash", SLURM / "worker.sbatch"], env=environment, check=True)
    verb, *arguments = (tmp_path / "arguments").read_text().splitlines()
    found = options(arguments)
    assert (verb, found["scheduler"], found["nthreads"]) == ("worker", "tls://sky1:8786", 1)
    assert found["preload"] == ("sentinel.workers.preload",)
    assert found["tls_key"] == str(files["worker.key"])
    assert found["lifetime"] == "11h"
    seen = (tmp_path / "arguments.env").read_text()
    assert f"SENTINEL_CONFIG={tmp_path}/home/config.yaml\n" in seen
    assert "SENTINEL_WORKER=1\n" in seen
    assert not (tmp_path / "sentinel-17").exists()  # the scratch folder is removed


def test_dask_jobqueue_writes_a_job_with_the_same_worker(tmp_path):
    pytest.importorskip("dask_jobqueue")
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"
    subprocess.run(
        [*make.split(), "-keyout", "worker.key", "-out", "ca.pem"], cwd=tmp_path, check=True, capture_output=True
    )
    (tmp_path / "worker.pem").symlink_to("ca.pem")
    command = [sys.executable, "-P", SLURM / "jobqueue.py", "--tls", tmp_path, "--port", "0", "--print", "--", "-p low"]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {"#SBATCH --requeue", "#SBATCH -p low", "export SENTINEL_WORKER=1"} <= set(job.splitlines())
    arguments = shlex.split(job.strip().splitlines()[-1])
    assert arguments[:3] == [f"{ROOT}/.venv/bin/python", "-m", "distributed.cli.dask_worker"]
    found = options(arguments[3:])
    assert (found["preload"], found["nthreads"]) == (("sentinel.workers.preload",), 1)
    assert found["scheduler"].startswith("tls://")
