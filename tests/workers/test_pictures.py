"""A search is recorded first; pictures and training examples are written afterwards, or later."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector
from matplotlib.image import imread
from rows import count, owed_count, row
from sqlalchemy import delete, select, update
from watched import Folder

from aetherscan.errors import AetherscanError
from aetherscan.header import gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands.candidates import draw
from sentinel.config import ROOT, Config
from sentinel.errors import StoreError
from sentinel.notify.outbox import deliver_all, undelivered
from sentinel.notify.slack import SlackPoster
from sentinel.store.queue import OWED, open_store
from sentinel.store.schema import artefact, attempt, cadence, candidate, now, outbox
from sentinel.workers import pictures
from sentinel.workers.pictures import draw_owed
from sentinel.workers.search import search_files
from sentinel.workers.task import search_lease


@pytest.fixture
def sky(tmp_path):
    """Return six files with one tone in the ONs, found by the watcher of a store."""
    header = gbt_header(4096)
    tone = Emitter(frequency_mhz=header.frequency(1200), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
    folder = Folder(tmp_path / "in", open_store(f"sqlite:///{tmp_path}/sentinel.db"))
    write_cadence(folder.root, Sky(header=header, emitters=(tone,)), 1, suffix=".fil")
    folder.passes()
    yield folder
    folder.store.engine.dispose()


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(pictures, "EXAMPLES", {})
    monkeypatch.setattr(pictures, "_waits", {})


def searched(folder, config):
    lease = folder.store.claim(600)

    def search(claimed, progress):
        return search_files(claimed.paths, "ABACAD", progress, config, make_detector(), lease.cadence_id)

    return search_lease(folder.store, config, lease.cadence_id, lease.token, search)


def later(store):
    """Advance the clock past the time in which only the worker that recorded a search writes its files."""
    with store.write() as rows:
        rows.execute(update(cadence).values(ended_at=now() - pictures.WRITER_S - 1))


def deliver(folder, slack):
    with folder.store.write() as rows:
        rows.execute(update(outbox).values(posted_at=outbox.c.posted_at - 10))
    return deliver_all(folder.store, SlackPoster("C1", slack.url, "xoxb-test"), "slack", 0)


def config_of(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test")
    monkeypatch.setenv("SLACK_CHANNEL", "C1")
    return Config(state_dir=tmp_path, picture_dir=tmp_path / "pictures")


def unwritable(tmp_path, monkeypatch):
    (tmp_path / "pictures").write_text("a file in the place of the folder")
    return (tmp_path / "pictures").unlink


def full(tmp_path, monkeypatch):
    write = Path.write_bytes

    def no_space(path, content):
        if path.parent.name == "pictures":
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", no_space)
    return lambda: monkeypatch.setattr(Path, "write_bytes", write)


def no_drawing(tmp_path, monkeypatch):
    draw = pictures.waterfall_png
    monkeypatch.setattr(pictures, "waterfall_png", lambda *_, **__: 1 / 0)
    return lambda: monkeypatch.setattr(pictures, "waterfall_png", draw)


def no_memory(tmp_path, monkeypatch):
    draw = pictures.waterfall_png

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pictures, "waterfall_png", fails)
    return lambda: monkeypatch.setattr(pictures, "waterfall_png", draw)


def files_away(tmp_path, monkeypatch):
    def fails(_):
        raise FileNotFoundError(2, "No such file or directory")

    opened = pictures.open_cadence
    monkeypatch.setattr(pictures, "open_cadence", fails)
    return lambda: monkeypatch.setattr(pictures, "open_cadence", opened)


@pytest.mark.fault(43, promise="P3")
@pytest.mark.fault(25, promise="P3")
@pytest.mark.parametrize("cause", [unwritable, full, no_drawing, no_memory, files_away])
def test_a_detection_without_a_picture_is_recorded_and_announced_and_drawn_when_the_cause_has_gone(
    sky, tmp_path, slack, monkeypatch, cause
):
    config = config_of(sky, tmp_path, monkeypatch)
    mend = cause(tmp_path, monkeypatch)
    assert searched(sky, config) == "done"
    assert row(sky.store, attempt).outcome == "done"
    assert row(sky.store, candidate).picture is None
    assert deliver(sky, slack) == 1
    assert (len(slack.messages), slack.files) == (1, [])
    assert row(sky.store, outbox).state == "sent"
    later(sky.store)
    assert draw_owed(sky.store, wait_s=0) == 0
    mend()
    assert draw_owed(sky.store, wait_s=0) in (1, 2)  # the example needs no drawing, so it may be written before
    assert owed_count(sky.store) == 0
    assert Path(row(sky.store, candidate).picture).read_bytes().startswith(b"\x89PNG")
    (example,) = (tmp_path / "pictures").glob("*.npz")
    assert np.load(io.BytesIO(example.read_bytes()))["snippet"].size
    assert undelivered(sky.store)["oldest_s"] is None
    deliver(sky, slack)
    assert (len(slack.messages), len(slack.files)) == (1, 1)
    assert slack.files[0]["thread_ts"] == slack.messages[0]["ts"]
    deliver(sky, slack)
    assert len(slack.files) == 1


def test_pictures_drawn_at_once_are_those_that_are_drawn_later(sky, tmp_path, monkeypatch):
    config = config_of(sky, tmp_path, monkeypatch)
    assert searched(sky, config) == "done"
    first = row(sky.store, artefact, kind="waterfall")
    assert owed_count(sky.store) == 0
    Path(first.path).unlink()
    with sky.store.write() as rows:
        rows.execute(update(artefact).where(artefact.c.kind == "waterfall").values(sha256=OWED))
    assert draw_owed(sky.store) == 0  # the worker of the record may be drawing
    later(sky.store)
    assert draw_owed(sky.store) == 1
    assert row(sky.store, artefact, kind="waterfall") == first


@pytest.mark.fault(43, promise="P3")
def test_one_candidate_that_cannot_be_drawn_does_not_hold_up_the_pictures_of_others(sky, tmp_path, monkeypatch):
    config = config_of(sky, tmp_path, monkeypatch)
    lease, draw = sky.store.claim(600), pictures.waterfall_png

    def search(claimed, progress):
        found = search_files(claimed.paths, "ABACAD", progress, config, make_detector(), lease.cadence_id)
        rows = [{**found.candidates[0], "frequency_mhz": mhz} for mhz in (8421.0, 8421.001)]
        paths = [str(tmp_path / "pictures" / name) for name in ("a.png", "b.png")]

        def message(recorded):
            return {**found.message(recorded), "state": "sent", "posters": ["slack"], "pictures": paths}

        return replace(found, candidates=rows, pictures=list(enumerate(paths)), examples=[], message=message)

    def first_fails(observations, candidate, on, **how):
        if candidate.frequency_mhz == 8421.0:
            raise ValueError("no ticks")
        return draw(observations, replace(candidate, frequency_mhz=found_mhz), on, **how)

    found_mhz = gbt_header(4096).frequency(1200)
    monkeypatch.setattr(pictures, "waterfall_png", first_fails)
    assert search_lease(sky.store, config, lease.cadence_id, lease.token, search) == "done"
    assert row(sky.store, artefact, path=str(tmp_path / "pictures" / "b.png")).sha256 != OWED
    assert [Path(path).name for path in row(sky.store, outbox).pictures] == ["b.png", "a.png"]
    with sky.store.write() as rows:
        rows.execute(update(cadence).values(ended_at=now() - pictures.GIVE_UP_S - 1))
    draw_owed(sky.store)
    assert owed_count(sky.store) == 0
    assert [Path(path).name for path in row(sky.store, outbox).pictures] == ["b.png"]
    assert count(sky.store, candidate) == 2


FULL_DISK = """
import subprocess, sys, time
from pathlib import Path
sys.path[:0] = ["tests"]
place = Path(sys.argv[1])
(place / "pictures").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place / "pictures"], check=True)
(place / "pictures" / "filler").write_bytes(b"x" * 60000)
from factories import make_detector
from rows import count, owed_count, row
from watched import Folder
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from aetherscan.header import gbt_header
from sentinel.config import Config
from sentinel.store.queue import open_store
from sentinel.store.schema import artefact, cadence, candidate
from sentinel.workers import pictures
from sentinel.workers.search import search_files
from sentinel.workers.task import search_lease
header = gbt_header(4096)
tone = Emitter(frequency_mhz=header.frequency(1200), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
folder = Folder(place / "in", open_store(f"sqlite:///{place}/sentinel.db"))
write_cadence(folder.root, Sky(header=header, emitters=(tone,)), 1, suffix=".fil")
folder.passes()
lease, config = folder.store.claim(600), Config(state_dir=place)
def search(claimed, progress):
    return search_files(claimed.paths, "ABACAD", progress, config, make_detector(), lease.cadence_id)
assert search_lease(folder.store, config, lease.cadence_id, lease.token, search) == "done"
assert (row(folder.store, cadence).state, count(folder.store, candidate)) == ("done", 1)
assert owed_count(folder.store) > 0
assert [path.name for path in (place / "pictures").iterdir()] == ["filler"], "a half-written file is left"
pictures.WRITER_S = 0.0
subprocess.run(["mount", "-o", "remount,size=4m", place / "pictures"], check=True)
assert pictures.draw_owed(folder.store) == 2
assert owed_count(folder.store) == 0
"""


@pytest.mark.fault(43, promise="P2")
@pytest.mark.fault(25, promise="P2")
def test_a_full_picture_disk_costs_no_detection_and_no_attempt(tmp_path):
    unshare = ("unshare", "--map-root-user", "--mount")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("expected unshare with mounts of its own, found no right to it")
    command = [*unshare, sys.executable, "-P", "-c", FULL_DISK, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0, ran.stderr


def test_a_lost_example_is_not_waited_for_by_another_worker(sky, tmp_path, monkeypatch):
    config = config_of(sky, tmp_path, monkeypatch)
    mend = unwritable(tmp_path, monkeypatch)
    assert searched(sky, config) == "done"
    pictures.EXAMPLES.clear()
    mend()
    later(sky.store)
    assert draw_owed(sky.store) == 1
    with sky.store.read() as rows:
        assert list(rows.scalars(select(artefact.c.kind).where(artefact.c.sha256 == OWED))) == ["example", "stamp"]
    assert draw_owed(sky.store) == 0


def test_a_picture_is_drawn_again_without_the_lines_beside_the_track(sky, tmp_path, monkeypatch):
    searched(sky, config_of(sky, tmp_path, monkeypatch))
    draw(sky.store, 1, tmp_path / "again.png")
    draw(sky.store, 1, tmp_path / "bare.png", track=False)
    again, bare = ((tmp_path / name).read_bytes() for name in ("again.png", "bare.png"))
    assert again == Path(row(sky.store, candidate).picture).read_bytes() != bare
    for path in sky.root.iterdir():
        path.unlink()
    with pytest.raises((AetherscanError, OSError)):
        draw(sky.store, 1, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == again
    sky.passes()
    draw(sky.store, 1, tmp_path / "stamp.png")  # the 4,096 channels of a stamp are the whole band here
    drawn, kept = (imread(tmp_path / name)[..., :3] for name in ("again.png", "stamp.png"))
    assert np.abs(drawn - kept).max() < 0.1
    with sky.store.write() as rows:
        rows.execute(delete(artefact).where(artefact.c.kind == "stamp"))
    with pytest.raises(StoreError, match="expected the 6 files of its cadence, found 0, and no stamp was kept"):
        draw(sky.store, 1, tmp_path / "again.png")
    with pytest.raises(StoreError, match="candidate 9: no such row"):
        draw(sky.store, 9, tmp_path / "again.png")
