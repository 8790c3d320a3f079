"""Only regular files are opened, and a file that replaces another is searched."""

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest
from factories import make_power, write_observation
from sqlalchemy import select, update
from watched import Folder, headers, land

from sentinel.ingest import cadences, watcher
from sentinel.ingest.watcher import open_stable
from sentinel.store.filesystem import content_digest, open_regular, read_regular
from sentinel.store.schema import cadence, cadence_file, file, now


def fifo(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def link_loop(path):
    path.symlink_to(path)


def link_to_device(path):
    path.symlink_to("/dev/zero")


def link_to_fifo(path):
    os.mkfifo(path.with_name(".fifo"))
    path.symlink_to(path.with_name(".fifo"))


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        at = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)
        os.chdir(at)


def large(path):
    with path.open("wb") as sparse:
        sparse.truncate(10 << 30)


def no_text(path):
    path.write_bytes(os.urandom(4096))


SPECIAL = [fifo, folder, link_loop, link_to_device, link_to_fifo, a_socket]


def in_time(action, seconds=20.0):
    """Check that an action ends in time."""
    failures = []

    def run():
        try:
            action()
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it never ends"
    assert failures == []


@pytest.mark.fault(56, promise="P1")
@pytest.mark.fault(16, promise="P1")
@pytest.mark.parametrize("make", [*SPECIAL, large, no_text])
@pytest.mark.parametrize("name", ["zmanifest.csv", "move.done", "a.rawspec.done", "a.fil", "a.h5"])
def test_a_special_file_of_any_name_stops_no_watcher(tmp_path, store, make, name):
    watched = Folder(tmp_path / "in", store)
    land(watched, headers())
    make(watched.root / name)
    in_time(lambda: watched.passes(3))
    assert watched.states() == ["ready"]


@pytest.mark.parametrize("make", SPECIAL[:1] + SPECIAL[2:])
def test_a_special_file_is_named_once(tmp_path, store, make, caplog):
    watched = Folder(tmp_path / "in", store)
    make(watched.root / "a.fil")
    watched.passes(3)
    (line,) = [text for text in caplog.messages if "expected a regular file, found" in text]
    assert "a.fil" in line


@pytest.mark.fault(56, promise="P1")
@pytest.mark.parametrize("make", SPECIAL)
def test_a_signal_of_completion_is_a_regular_file(tmp_path, store, make):
    watched = Folder(tmp_path / "in", store, settle_s=1000)
    write_observation(watched.root / "a.rawspec.0000.fil", headers()[0])
    for name in ("move.done", "a.rawspec.done"):
        make(watched.root / name)
        for leftover in watched.root.glob(".fifo"):
            leftover.unlink()
    watched.passes()
    assert watched.files()["a.rawspec.0000.fil"].state == "seen"


@pytest.mark.fault(56, promise="P1")
@pytest.mark.parametrize("make", [fifo, a_socket, folder])
def test_a_file_that_becomes_a_special_one_before_it_is_opened_stops_no_watcher(tmp_path, store, make):
    watched = Folder(tmp_path / "in", store)
    path = watched.root / "a.fil"
    write_observation(path, headers()[0])
    watcher.scan_roots(store, watched.watch)
    watcher.scan_roots(store, watched.watch)
    path.unlink()
    make(path)
    in_time(lambda: open_stable(store, watched.watch, lambda path: path.read_bytes()))
    assert "expected a regular file" in watched.files()["a.fil"].cause


@pytest.mark.parametrize("make", [fifo, folder, link_loop, link_to_device, a_socket, large])
def test_a_small_file_is_read_only_if_it_is_regular_and_small(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OSError, match=r"expected|symbolic"):
        read_regular(tmp_path / "a", 1000)


def test_a_small_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert read_regular(tmp_path / "a", 1000) == b"x" * 1000
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with open_regular(tmp_path / "link") as descriptor:
        assert os.read(descriptor, 1) == b"x"


def search(store):
    lease = store.claim(60)
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.id == lease.cadence_id).values(state="done", ended_at=now()))


def paths_of(watched):
    return sorted(watched.root.glob("*.fil"))


def rewrite(path, header, seed):
    """Replace a file by one with the same header and size, in another inode."""
    size = path.stat().st_size
    write_observation(path.with_name(".new.fil"), header, make_power(header, seed))
    path.with_name(".new.fil").replace(path)
    assert path.stat().st_size == size


@pytest.fixture
def searched(tmp_path, store):
    """Return a folder whose one cadence has been searched."""
    watched = Folder(tmp_path / "in", store)
    for i, header in enumerate(headers()):
        write_observation(watched.root / f"{i}.fil", header, make_power(header, i))
    assert watched.passes() == ["ready"]
    search(store)
    return watched


@pytest.mark.fault(57, promise="P1")
@pytest.mark.fault(21, promise="P1")
def test_files_replaced_by_others_of_the_same_header_and_size_are_searched(searched):
    for i, header in enumerate(headers()):
        rewrite(searched.root / f"{i}.fil", header, 100 + i)
    assert searched.passes() == ["done", "ready"]


@pytest.mark.fault(57, promise="P2")
@pytest.mark.fault(21, promise="P2")
def test_files_that_are_replaced_one_by_one_are_searched_once(searched):
    for i, header in enumerate(headers()):
        rewrite(searched.root / f"{i}.fil", header, 100 + i)
        assert searched.passes() == (["done", "forming"] if i < 5 else ["done", "ready"])


@pytest.mark.fault(57, promise="P1")
def test_one_replaced_file_is_searched_with_the_old_ones_after_a_wait(searched):
    rewrite(searched.root / "2.fil", headers()[2], 100)
    assert searched.passes() == ["done", "forming"]
    assert "some files of cadence 1 were replaced" in "".join(filter(None, searched.whys()))
    searched.age(cadences.REPLACING_S + 1)
    assert searched.passes() == ["done", "ready"]
    assert searched.passes() == ["done", "ready"]
    assert set(searched.whys()) == {None}


@pytest.mark.fault(32, promise="P1")
def test_a_file_that_was_replaced_before_the_clock_was_set_back_is_searched(searched):
    rewrite(searched.root / "2.fil", headers()[2], 100)
    assert searched.passes() == ["done", "forming"]
    searched.age(-3600)
    assert searched.passes() == ["done", "ready"]


@pytest.mark.fault(21, promise="P2")
def test_a_file_that_is_touched_copied_or_moved_is_not_searched_again(searched):
    for path in paths_of(searched):
        os.utime(path)
    assert searched.passes() == ["done"]
    for path in paths_of(searched):
        (path.with_name("copy-" + path.name)).write_bytes(path.read_bytes())
    assert searched.passes() == ["done"]
    (searched.root / "moved").mkdir()
    for path in paths_of(searched):
        path.rename(searched.root / "moved" / path.name)
    assert searched.passes() == ["done"]


def test_a_copy_of_a_file_that_an_earlier_version_recorded_is_not_searched_again(searched):
    with searched.store.write() as rows:
        for row in rows.execute(select(file)).all():
            earlier = f"{row.observation[:20]}-{row.size}"
            members = update(cadence_file).where(cadence_file.c.observation == row.observation)
            rows.execute(members.values(observation=earlier))
            rows.execute(update(file).where(file.c.id == row.id).values(observation=earlier))
        names = sorted(rows.scalars(select(cadence_file.c.observation)))
        rows.execute(update(cadence).values(key=hashlib.sha256("\n".join(names).encode()).hexdigest()))
    for path in paths_of(searched):
        path.with_name("copy-" + path.name).write_bytes(path.read_bytes())
    assert searched.passes() == ["done"]
    for i, header in enumerate(headers()):
        for name in (f"{i}.fil", f"copy-{i}.fil"):
            rewrite(searched.root / name, header, 100 + i)
    assert searched.passes() == ["done", "ready"]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
def test_a_digest_covers_both_ends_and_the_size(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(b"\0" * size)
    first = content_digest(path, size)
    assert len(first) == 19
    assert content_digest(path, size) == first
    for at in {0, size - 1} if size else ():
        path.write_bytes(b"\0" * at + b"\1" + b"\0" * (size - at - 1))
        assert content_digest(path, size) != first
    path.write_bytes(b"\0" * (size + 1))
    assert content_digest(path, size + 1) != first


@pytest.mark.fault(47, promise="P1")
def test_a_file_that_may_not_be_read_is_not_given_up(tmp_path, store):
    watched = Folder(tmp_path / "in", store, give_up_s=1)
    write_observation(watched.root / "a.fil", headers()[0])

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    watched.passes(verify=denied)
    watched.age(1000)
    watched.passes(verify=denied)
    assert watched.files()["a.fil"].state == "stable"
    assert "Permission denied" in watched.files()["a.fil"].cause
    watched.age(1)
    watched.passes()
    assert watched.files()["a.fil"].state == "valid"
