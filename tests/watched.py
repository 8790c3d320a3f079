"""A watched folder with its store, and a cadence of files to write into it."""

from pathlib import Path

from factories import make_header, write_observation
from sqlalchemy import select, update

from aetherscan.io import verify_complete
from aetherscan.options.cadence import CadenceRules
from sentinel.config import Watch
from sentinel.ingest.cadences import group
from sentinel.ingest.watcher import open_stable, scan_roots
from sentinel.store.schema import cadence, file, now

STEP_DAYS = 341 / 86_400
NAMES = ("HIP99427", "HIP1", "HIP99427", "HIP2", "HIP99427", "HIP3")


def headers(start=59103.023, **changes):
    """Return the six headers of an ABACAD cadence."""
    away = {"HIP99427": 0, "HIP1": 2, "HIP2": 4, "HIP3": 6}
    return [
        make_header(source_name=name, tstart=start + i * STEP_DAYS, src_dej=-12.75 + away[name], **changes)
        for i, name in enumerate(NAMES)
    ]


class Folder:
    """A watched folder and its store; a test calls each pass."""

    def __init__(self, root: Path, store, **watch):
        root.mkdir(exist_ok=True)
        self.root, self.store, self.rules = root, store, CadenceRules()
        options = Watch(**{"roots": (root,), "settle_s": 0, **watch})
        self.watch = options.model_copy(update={"look_again_s": watch.get("look_again_s", 0.001)})

    def passes(self, count=2, verify=verify_complete):
        for _ in range(count):
            self.scan(verify)
            group(self.store, self.watch, self.rules)
        return self.states()

    def scan(self, verify=verify_complete):
        scan_roots(self.store, self.watch)
        while open_stable(self.store, self.watch, verify):
            pass  # one call opens files for a limited time only

    def states(self):
        with self.store.read() as rows:
            return sorted(rows.scalars(select(cadence.c.state)))

    def files(self):
        with self.store.read() as rows:
            return {Path(row.path).name: row for row in rows.execute(select(file))}

    def whys(self):
        with self.store.read() as rows:
            return list(rows.scalars(select(cadence.c.why)))

    def age(self, seconds):
        with self.store.write() as rows:
            rows.execute(update(file).values(changed_at=now() - seconds, look_at=now() - 1))


def land(folder, wanted, suffix=".h5", below="."):
    (folder.root / below).mkdir(exist_ok=True, parents=True)
    for i, header in enumerate(wanted):
        write_observation(folder.root / below / f"scan{header.tstart:.5f}_{header.fch1:.0f}_{i}{suffix}", header)
