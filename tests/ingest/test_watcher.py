"""Files that land in a folder become cadences, or are listed with the reason why not."""

import os
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from bad_files import BAD
from factories import write_observation
from sqlalchemy import select, update
from watched import Folder, headers, land

from aetherscan.errors import TruncatedFileError
from aetherscan.io import verify_complete
from sentinel.commands.candidates import set_aside
from sentinel.config import Complete, Signals, Watch
from sentinel.ingest.watcher import Scanner, _path_pattern, listen, scan
from sentinel.store.schema import cadence, cadence_file, file, now


@pytest.fixture
def folder(tmp_path, store):
    return Folder(tmp_path / "incoming", store)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_six_files_of_a_cadence_are_queued_once(folder, suffix):
    land(folder, headers(), suffix)
    assert folder.passes(5) == ["ready"]


def test_files_that_come_out_of_time_order_and_one_by_one_make_one_cadence(folder):
    for header in (headers()[i] for i in (4, 1, 5, 0, 3, 2)):
        land(folder, [header])
        folder.passes()
    assert folder.states() == ["ready"]
    with folder.store.read() as rows:
        starts = rows.scalars(
            select(file.c.tstart)
            .join(cadence_file, cadence_file.c.observation == file.c.observation)
            .order_by(cadence_file.c.position)
        ).all()
    assert starts == sorted(starts)


def test_a_cadence_without_a_file_is_forming_and_becomes_ready_when_the_file_lands(folder):
    six = headers()
    land(folder, six[:3] + six[4:])
    assert folder.passes() == ["forming"]
    assert "position 3" in folder.whys()[0]
    with folder.store.read() as rows:
        forming = rows.scalars(select(cadence.c.id)).one()
    land(folder, six[3:4])
    assert folder.passes() == ["ready"]
    with folder.store.read() as rows:
        assert rows.scalars(select(cadence.c.id)).one() == forming


def test_each_node_slice_of_a_pointing_is_a_separate_cadence(folder):
    land(folder, headers() + headers(fch1=8233.88))
    assert folder.passes() == ["ready", "ready"]


@pytest.mark.fault(13, promise="P1")
def test_a_file_still_being_copied_is_left_until_it_settles(tmp_path, store):
    folder = Folder(tmp_path / "in", store, settle_s=1000)
    land(folder, headers()[:1])
    folder.passes(3)
    assert [row.state for row in folder.files().values()] == ["seen"]
    folder.age(1001)
    folder.passes(1)
    assert [row.state for row in folder.files().values()] == ["valid"]


@pytest.mark.fault(14, promise="P1")
@pytest.mark.fault(15, promise="P1")
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize("lacking", ["cut", "zeros"])
def test_an_incomplete_file_is_checked_again_until_it_is_complete(folder, suffix, lacking):
    land(folder, headers(), suffix)
    path = min(folder.root.iterdir())
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    path.write_bytes(half if lacking == "cut" else half.ljust(len(whole), b"\0"))
    assert folder.passes(3) == ["forming"]
    row = folder.files()[path.name]
    assert row.state == "stable"
    assert "TruncatedFileError" in row.cause
    path.write_bytes(whole)
    assert folder.passes() == ["ready"]


@pytest.mark.fault(14, promise="P1")
def test_a_file_that_stays_cut_short_is_invalid_after_the_time_out(folder):
    def cut_short(path):
        raise TruncatedFileError(f"{path}: half of it")

    land(folder, headers()[:1])
    folder.passes(2, cut_short)
    folder.age(folder.watch.give_up_s + 1)
    folder.passes(1, cut_short)
    (row,) = folder.files().values()
    assert (row.state, row.cause.endswith("half of it")) == ("invalid", True)


@pytest.mark.fault(16, promise="P4")
@pytest.mark.fault(16, promise="P1")
def test_every_kind_of_bad_file_is_set_aside_or_waits_with_its_cause_while_a_good_cadence_is_ready(folder):
    land(folder, headers())
    for name, (make, _, _) in BAD.items():
        make(folder.root / name)
    before = {path: path.lstat() for path in folder.root.iterdir()}
    folder.passes(3)
    assert folder.passes() == ["ready"]
    seen = folder.files()
    for name, (_, error, _) in BAD.items():
        if (folder.root / name).is_file():
            assert seen[name].state == ("stable" if error is TruncatedFileError else "invalid")
            assert error.__name__ in seen[name].cause
    after = {path: path.lstat() for path in folder.root.iterdir()}
    assert {path: (at.st_mtime_ns, at.st_size, at.st_ino) for path, at in after.items()} == {
        path: (at.st_mtime_ns, at.st_size, at.st_ino) for path, at in before.items()
    }


@pytest.mark.fault(16, promise="P1")
def test_a_reader_that_fails_on_one_file_does_not_delay_the_others(folder):
    def fragile(path):
        if path.name == "odd.h5":
            raise ZeroDivisionError("a bug")
        return verify_complete(path)

    land(folder, headers())
    shutil.copy(next(folder.root.glob("*.h5")), folder.root / "odd.h5")
    assert folder.passes(2, fragile) == ["ready"]
    assert folder.files()["odd.h5"].cause == "ZeroDivisionError: a bug"


@pytest.mark.fault(18, promise="P1")
def test_a_folder_moved_in_whole_is_found(folder, tmp_path):
    outside = Folder(tmp_path / "elsewhere", folder.store)
    land(outside, headers(), below="session")
    shutil.move(outside.root / "session", folder.root / "session")
    assert folder.passes() == ["ready"]


@pytest.mark.fault(18, promise="P2")
def test_a_cadence_that_is_moved_stays_one_cadence_and_is_found_where_it_is_now(folder):
    land(folder, headers(), below="a")
    folder.passes()
    (folder.root / "a").rename(folder.root / "b")
    assert folder.passes() == ["ready"]
    lease = folder.store.claim(60)
    assert {path.parent.name for path in folder.store.paths(lease.cadence_id)} == {"b"}


@pytest.mark.fault(21, promise="P2")
def test_the_same_content_twice_is_one_cadence(folder):
    land(folder, headers(), below="a")
    shutil.copytree(folder.root / "a", folder.root / "b")
    assert folder.passes() == ["ready"]


@pytest.mark.fault(21, promise="P1")
def test_a_cadence_written_again_with_other_rows_is_searched_again(folder):
    land(folder, headers())
    folder.passes()
    for path, header in zip(sorted(folder.root.glob("*.h5")), headers(), strict=True):
        path.unlink()
        write_observation(path, replace(header, ntime=15))
    assert folder.passes() == ["ready", "ready"]


def test_wide_channels_are_skipped_by_rule(folder):
    land(folder, headers(foff=-2.86e-3))
    assert folder.passes() == ["skipped"]
    assert "2860 Hz" in folder.whys()[0]
    assert folder.store.ledger()["skipped"] == 1


def test_temporary_names_and_other_files_are_not_looked_at(tmp_path):
    for name in (".scan.h5.Xy12", ".h5", "scan.creating.h5", "notes.txt", "deep/er/scan.fil", "ok.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for patterns, wanted in (
        ({}, ["ok.h5", "scan.fil"]),
        ({"include": ("deep/**/*.fil", "*.txt")}, ["notes.txt", "scan.fil"]),
        ({"exclude": ("deep/**",)}, ["ok.h5", "scan.creating.h5"]),
    ):
        found = scan(tmp_path, Watch(**patterns), [])
        assert sorted(Path(stat.path).name for stat in found) == wanted


@pytest.mark.fault(24, promise="P1")
def test_a_missing_root_changes_nothing(folder):
    land(folder, headers())
    folder.passes()
    folder.root.rename(folder.root.with_name("unmounted"))
    assert folder.passes() == ["ready"]
    assert all(row.present for row in folder.files().values())


@pytest.mark.fault(1, promise="P1")
def test_a_watcher_continues_where_a_killed_one_stopped(tmp_path, store):
    first = Folder(tmp_path / "in", store)
    land(first, headers())
    first.scan()  # killed between scan and grouping
    store.engine.dispose()
    assert Folder(tmp_path / "in", store).passes() == ["ready"]


@pytest.mark.fault(40, promise="P1")
def test_files_with_hostile_names_are_processed_like_any_other(folder):
    land(folder, headers())
    for i, path in enumerate(sorted(folder.root.glob("*.h5"))):
        path.rename(path.with_name(f"<!channel>\n'; DROP TABLE file; --%s{i}.h5"))
    assert folder.passes() == ["ready"]


def test_a_pattern_matches_through_folders_and_at_the_beginning_of_names():
    for pattern, path, like in (
        ("**/*.h5", "/a.h5", True),
        ("**/*.h5", "/deep/er/a.h5", True),
        ("**/blc*.h5", "/night/xblc1.h5", False),
        ("night/**/a.h5", "/night/a.h5", True),
        ("night/**/a.h5", "/nightly/a.h5", False),
        ("*.fil", "/deep/a.fil", True),
    ):
        assert not _path_pattern(()).match(path)
        assert bool(_path_pattern((pattern,)).match(path)) is like, (pattern, path)


@pytest.mark.fault(18, promise="P1")
@pytest.mark.parametrize("how", ["mv", "hard link", "link", "linked folder", "rsync", "nested"])
def test_a_cadence_is_found_however_its_files_arrive(folder, tmp_path, how):
    outside = Folder(tmp_path / "elsewhere", folder.store)
    land(outside, headers(), below="session")
    session = outside.root / "session"
    if how == "linked folder":
        (session / "again").symlink_to(session)  # a circle
        (folder.root / "night").symlink_to(session)
    target = folder.root / "new" / "and" / "deeper" if how == "nested" else folder.root
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(session.glob("*.h5")) if how != "linked folder" else ():
        match how:
            case "hard link":
                (target / path.name).hardlink_to(path)
            case "link":
                (target / path.name).symlink_to(path)
            case "rsync":
                shutil.copy2(path, target / f".{path.name}.Xy12")
                folder.passes(1)
                (target / f".{path.name}.Xy12").rename(target / path.name)
            case _:
                shutil.move(path, target / path.name)
    assert folder.passes() == ["ready"]
    assert len(folder.files()) == 6


@pytest.mark.fault(24, promise="P1")
def test_a_mount_that_disappears_and_returns_loses_no_waiting_cadence(folder):
    land(folder, headers())
    folder.passes()
    away = folder.root.with_name("away")
    folder.root.rename(away)
    folder.root.mkdir()  # what an unmounted folder looks like
    assert folder.passes() == ["ready"]
    assert folder.store.claim(60) is None
    folder.root.rmdir()
    away.rename(folder.root)
    folder.passes()
    assert folder.store.claim(60)


@pytest.mark.fault(24, promise="P1")
def test_a_folder_that_cannot_be_read_hides_no_other_and_loses_nothing(folder, monkeypatch):
    land(folder, headers()[:3], below="a")
    folder.passes()
    listing = os.scandir

    def broken(path):
        if str(path).endswith("/a"):
            raise OSError(116, "Stale file handle")
        return listing(path)

    monkeypatch.setattr(os, "scandir", broken)
    land(folder, headers()[3:], below="b")
    assert folder.passes() == ["ready"]
    assert all(row.present for row in folder.files().values())


def test_files_of_one_cadence_may_be_in_several_roots(tmp_path, store):
    (tmp_path / "in").mkdir()
    (tmp_path / "west").mkdir()
    folder = Folder(tmp_path / "in", store, roots=(tmp_path / "in", tmp_path / "west"))
    land(folder, headers()[:2])
    land(folder, headers()[2:], below="../west")
    assert folder.passes() == ["ready"]


def settling(tmp_path, store, **watch):
    """Return a folder whose files settle only after a very long time."""
    return Folder(tmp_path / "in", store, settle_s=1e6, **watch)


def state_of(folder, name, content=None, **signals):
    """Land one file and a signal of completion; return the state of the file after two passes."""
    folder.watch = folder.watch.model_copy(update={"signals": Signals(**signals)})
    write_observation(folder.root / "blc0.rawspec.0000.h5", headers()[0])
    if content is not None:
        (folder.root / name).write_text(content)
    folder.passes()
    return folder.files()["blc0.rawspec.0000.h5"].state


@pytest.mark.parametrize(
    ("name", "content", "signals", "state"),
    [
        ("", None, {}, "seen"),
        ("blc0.rawspec.done", "", {}, "valid"),
        ("blc0.rawspec.done", "", {"done_file": False}, "seen"),
        ("blc1.rawspec.done", "", {}, "seen"),
        ("move.done", "", {}, "valid"),
        ("move.done", "", {"move_done": False}, "seen"),
        ("zmanifest.csv", "name,size\nblc0.rawspec.0000.h5,{size}\n", {}, "valid"),
        ("zmanifest.csv", "blc0.rawspec.0000.h5,{size}\n", {"manifest": False}, "seen"),
        ("", None, {"renamed": True}, "valid"),
    ],
)
def test_a_trusted_signal_of_completion_skips_the_settling_time(tmp_path, name, content, signals, state, store):
    folder = settling(tmp_path, store)
    write_observation(tmp_path / "same.h5", headers()[0])
    content = content and content.format(size=(tmp_path / "same.h5").stat().st_size)
    assert state_of(folder, name, content, **signals) == state


@pytest.mark.fault(14, promise="P1")
def test_a_file_shorter_than_its_manifest_says_is_never_opened(tmp_path, store):
    folder = Folder(tmp_path / "in", store)
    assert state_of(folder, "zmanifest.csv", "blc0.rawspec.0000.h5,999999999\n") == "seen"


@pytest.mark.fault(14, promise="P1")
def test_a_file_with_fewer_rows_than_those_of_other_nodes_waits_until_it_has_them(folder):
    land(folder, headers()[:1])
    folder.passes()
    cut = replace(headers()[0], fch1=8233.88, ntime=12)
    write_observation(folder.root / "cut.h5", cut)
    folder.passes()
    row = folder.files()["cut.h5"]
    assert row.state == "stable"
    assert "expected 16 rows as in its scan's other files, found 12" in row.cause
    folder.watch = folder.watch.model_copy(update={"complete": Complete(siblings=False)})
    folder.passes()
    assert folder.files()["cut.h5"].state == "valid"


def test_rules_that_are_switched_off_do_not_delay_a_file(tmp_path, store):
    folder = settling(tmp_path, store, complete={"settled": False})
    land(folder, headers()[:1])
    folder.passes(2, partial(verify_complete, decode=False))
    assert [row.state for row in folder.files().values()] == ["valid"]


def test_a_cadence_that_lacks_an_off_is_searched_without_it_after_a_time_if_that_is_the_policy(tmp_path, store):
    folder = Folder(tmp_path / "in", store, partial="search", partial_after_s=1000)
    six = headers()
    land(folder, six[:3] + six[4:])
    assert folder.passes() == ["forming"]
    folder.age(1001)
    assert folder.passes(1) == ["ready"]
    claimed = folder.store.claimed(folder.store.claim(60).token)
    assert (len(claimed.paths), claimed.pattern, claimed.on) == (5, "ABA.AD", (0, 2, 4))
    land(folder, six[3:4])
    assert folder.passes() == ["leased", "ready"]


def test_a_partial_cadence_that_is_not_leased_becomes_complete_when_the_missing_file_lands(tmp_path, store):
    folder = Folder(tmp_path / "in", store, partial="search", partial_after_s=1000)
    six = headers()
    land(folder, six[:3] + six[4:])
    folder.passes()
    folder.age(1001)
    folder.passes(1)
    land(folder, six[3:4])
    assert folder.passes() == ["ready"]
    assert folder.store.claimed(folder.store.claim(60).token).pattern == "ABACAD"


def test_a_cadence_of_wide_channels_that_lacks_an_off_is_skipped_by_rule(tmp_path, store):
    folder = Folder(tmp_path / "in", store, partial="search", partial_after_s=1000)
    six = headers(foff=-2.86e-3)
    land(folder, six[:3] + six[4:])
    assert folder.passes() == ["forming"]
    folder.age(1001)
    assert folder.passes() == ["skipped"]
    assert "2860 Hz" in folder.whys()[0]
    land(folder, six[3:4])
    assert folder.passes() == ["skipped"]


@pytest.mark.parametrize("lost", [0, 2, 4])
def test_a_cadence_that_lacks_an_on_is_held_whatever_the_policy(tmp_path, lost, store):
    folder = Folder(tmp_path / "in", store, partial="search", partial_after_s=1000)
    six = headers()
    land(folder, six[:lost] + six[lost + 1 :])
    folder.passes()
    folder.age(1001)
    assert set(folder.passes(1)) == {"forming"}


@pytest.mark.fault(40, promise="P1")
def test_files_whose_names_are_not_valid_text_are_processed_like_any_other(folder):
    land(folder, headers())
    for path in list(folder.root.glob("*.h5")):
        path.rename(os.fsdecode(os.fsencode(path).replace(b"scan", b"caf\xe9 ")))
    assert folder.passes() == ["ready"]
    paths = folder.store.paths(folder.store.claim(60).cadence_id)
    assert all(path.exists() and b"caf\xe9" in os.fsencode(path) for path in paths)
    (folder.root / os.fsdecode(b"caf\xe9.h5")).write_bytes(b"nothing of the kind")
    folder.passes()
    (line,) = set_aside(folder.store)
    assert "caf\\xe9.h5" in line.encode().decode()


@pytest.mark.fault(20, promise="P1")
@pytest.mark.parametrize("why", ["exhausted", "nfs4"])
def test_the_scan_finds_files_without_events(folder, monkeypatch, why, caplog):
    caplog.set_level("INFO")
    if why == "exhausted":
        full = OSError(28, "inotify watch limit reached")
        monkeypatch.setattr("watchdog.observers.Observer.start", lambda _: (_ for _ in ()).throw(full))
    else:
        monkeypatch.setattr("sentinel.ingest.watcher.file_system", lambda _: why)
    woken = []
    stop = listen([folder.root], lambda: woken.append(1))
    land(folder, headers())
    assert folder.passes() == ["ready"]
    stop()
    assert woken == []
    assert "scanned only" in caplog.text


@pytest.mark.fault(19, promise="P1")
@pytest.mark.slow
def test_a_burst_that_overflows_the_kernels_queue_is_found_by_the_scan(tmp_path, store):
    folder = Folder(tmp_path / "in", store)
    stalled = threading.Event()
    stop = listen([folder.root], lambda: stalled.wait(60))
    land(folder, headers())
    for i in range(3 * int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2):
        (folder.root / f"{i}.txt").touch()
    land(folder, headers(fch1=8233.88), below="late")
    stalled.set()
    stop()
    assert folder.passes() == ["ready", "ready"]


@pytest.mark.fault(21, promise="P2")
def test_the_same_names_in_two_folders_are_two_cadences_if_they_were_observed_apart(folder):
    land(folder, headers(), below="a")
    for path, header in zip(sorted((folder.root / "a").glob("*.h5")), headers(59105.0), strict=True):
        (folder.root / "b").mkdir(exist_ok=True)
        write_observation(folder.root / "b" / path.name, header)
    assert folder.passes() == ["ready", "ready"]


@pytest.mark.fault(32, promise="P1")
def test_a_clock_that_is_set_back_delays_no_file(tmp_path, store):
    folder = Folder(tmp_path / "in", store, settle_s=100)
    land(folder, headers())
    folder.passes()
    folder.age(-3600)
    with folder.store.write() as rows:
        rows.execute(update(file).values(look_at=now() + 3600))
    assert folder.passes() == ["ready"]


@pytest.mark.fault(22, promise="P1")
def test_the_scanner_scans_at_its_interval_or_after_an_event_but_not_all_the_time(tmp_path, store):
    folder, woken = Folder(tmp_path / "in", store, scan_s=1e6), []
    scanner = Scanner(store=store, watch=folder.watch, verify=verify_complete, wake=lambda: woken.append(1))
    seen = []
    for took, event in ((0, False), (0, False), (0, True), (1e6, True), (0, False)):
        land(folder, headers(59103.0 + len(seen))[:1])
        if event:
            scanner.on_event()
        scanner._took = took
        scanner.scan_and_open()
        seen.append(len(folder.files()))
    assert seen == [1, 1, 3, 3, 5]
    assert len(woken) == 2


@pytest.mark.fault(26, promise="P1")
def test_a_scan_that_waited_for_long_does_not_delay_the_next_one(tmp_path, store):
    folder = Folder(tmp_path / "in", store)
    watch = folder.watch.model_copy(update={"scan_s": 1e-9})
    scanner = Scanner(store=store, watch=watch, verify=verify_complete, wake=lambda: None)
    scanner.scan_and_open()
    scanner._took = 1e6
    land(folder, headers()[:1])
    scanner.on_event()
    scanner.scan_and_open()
    assert len(folder.files()) == 1


@pytest.mark.fault(22, promise="P1")
def test_the_next_pass_follows_at_once_if_more_files_are_stable_than_one_pass_opens(folder, monkeypatch):
    monkeypatch.setattr("sentinel.ingest.watcher.FILES_PER_PASS", 4)
    woken = []
    scanner = Scanner(
        store=folder.store,
        watch=folder.watch.model_copy(update={"scan_s": 1e-9}),
        verify=verify_complete,
        wake=lambda: woken.append(1),
    )
    land(folder, headers())
    for rings in (0, 1, 1):
        scanner.scan_and_open()
        assert len(woken) == rings
    assert {row.state for row in folder.files().values()} == {"valid"}
