"""Run a scheduler whose workers are jobs of Slurm, as many as there is work for: docs/clusters.md.

It takes the place of `sentinel-scheduler.service`, on the host where the service runs, and needs `pip install
dask-jobqueue`. `--least` and `--most` are numbers of workers; `--print` shows the job of a worker and ends. Everything
after `--` is passed to sbatch, such as a partition.
"""

import argparse
import os
import time
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed.security import Security


def cluster(home: Path, tls: Path, port: int, directives: list[str]) -> SLURMCluster:
    """Return a cluster of which no worker runs yet.

    Args:
        home: the checkout, with its environment, on a file system that all nodes mount.
        tls: folder of ca.pem, worker.pem and worker.key, on such a file system, readable for this user only.
        port: of the scheduler; `cluster.scheduler` in the configuration names it.
        directives: further options of sbatch.
    """
    own = {"tls_ca_file": tls / "ca.pem"}
    own |= {f"tls_{role}_{part}": tls / f"worker.{suffix}" for role in ("scheduler", "worker", "client")
            for part, suffix in (("cert", "pem"), ("key", "key"))}  # fmt: skip
    variables = {
        "SENTINEL_WORKER": "1",
        "SENTINEL_CONFIG": str(home / "config.yaml"),
        "NUMBA_CACHE_DIR": str(Path.home() / ".cache" / "sentinel" / "numba"),
        "PGPASSFILE": os.environ.get("PGPASSFILE", str(Path.home() / ".sentinel" / "pgpass")),
    }
    return SLURMCluster(
        n_workers=0,
        cores=2,
        processes=1,
        memory="4GB",
        walltime="12:00:00",
        death_timeout=600,  # the first worker on a kind of processor compiles for a minute
        python=str(home / ".venv" / "bin" / "python"),
        job_script_prologue=[f"export {name}={value}" for name, value in variables.items()],
        job_extra_directives=["--requeue", *directives],
        worker_extra_args=["--nthreads", "1", "--preload", "sentinel.workers.preload", "--lifetime", "11h",
                           "--lifetime-stagger", "10m"],
        protocol="tls",
        security=Security(require_encryption=True, **{name: str(path) for name, path in own.items()}),
        scheduler_options={"port": port, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


def main() -> None:
    """Run until interrupted, or print the job of a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--tls", type=Path, default=Path.home() / ".sentinel" / "tls")
    parser.add_argument("--port", type=int, default=8786)
    parser.add_argument("--least", type=int, default=1)
    parser.add_argument("--most", type=int, default=16)
    parser.add_argument("--print", action="store_true")
    parser.add_argument("directives", nargs="*", metavar="OPTION", help="of sbatch, after --")
    chosen = parser.parse_args()
    with cluster(chosen.home, chosen.tls, chosen.port, chosen.directives) as made:
        if chosen.print:
            print(made.job_script())
            return
        made.adapt(
            minimum=chosen.least, maximum=chosen.most, wait_count=60
        )  # a worker idles for a minute before it ends
        print(f"scheduler at {made.scheduler_address}", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
