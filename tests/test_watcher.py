"""What lands in a folder, how it becomes a cadence, and what is said of what does not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_header, write_observation
from sqlalchemy import select, update

from aetherscan.errors import TruncatedFileError
from aetherscan.io import verify_complete
from sentinel.config import Watch
from sentinel.grouping import group
from sentinel.schema import cadence, cadence_file, file, now
from sentinel.store import open_store
from sentinel.watcher import look, scan

STEP_DAYS = 341 / 86_400
NAMES = ("HIP99427", "HIP1", "HIP99427", "HIP2", "HIP99427", "HIP3")


def headers(start=59103.023, **changes):
    """Six scans of an ABACAD cadence."""
    away = {"HIP99427": 0, "HIP1": 2, "HIP2": 4, "HIP3": 6}
    return [
        make_header(source_name=name, tstart=start + i * STEP_DAYS, src_dej=-12.75 + away[name], **changes)
        for i, name in enumerate(NAMES)
    ]


class Folder:
    """A watched folder, its store, and passes made by hand."""

    def __init__(self, root: Path, state: Path, **watch):
        root.mkdir(exist_ok=True)
        self.root, self.store = root, open_store(f"sqlite:///{state}/sentinel.db")
        self.watch = Watch(**{"roots": (root,), "settle_s": 0, "look_again_s": 0.001, **watch})

    def passes(self, count=2, verify=verify_complete):
        for _ in range(count):
            look(self.store, self.watch, verify)
            group(self.store, self.watch.max_channel_hz)
        return self.states()

    def states(self):
        with self.store.read() as rows:
            return sorted(rows.scalars(select(cadence.c.state)))

    def files(self):
        with self.store.read() as rows:
            return {Path(one.path).name: one for one in rows.execute(select(file))}

    def whys(self):
        with self.store.read() as rows:
            return list(rows.scalars(select(cadence.c.why)))

    def age(self, seconds):
        with self.store.write() as rows:
            rows.execute(update(file).values(changed_at=now() - seconds, look_at=now() - 1))


@pytest.fixture
def folder(tmp_path):
    made = Folder(tmp_path / "incoming", tmp_path)
    yield made
    made.store.engine.dispose()


def land(folder, wanted, suffix=".h5", below="."):
    (folder.root / below).mkdir(exist_ok=True, parents=True)
    for i, header in enumerate(wanted):
        write_observation(folder.root / below / f"scan{header.tstart:.5f}_{header.fch1:.0f}_{i}{suffix}", header)


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


def test_a_missing_file_leaves_a_cadence_forming_and_its_coming_makes_the_same_row_ready(folder):
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


def test_node_slices_of_one_pointing_are_cadences_of_their_own(folder):
    land(folder, headers() + headers(fch1=8233.88))
    assert folder.passes() == ["ready", "ready"]


@pytest.mark.fault(13, promise="P1")
def test_a_file_still_being_copied_is_left_until_it_settles(tmp_path):
    folder = Folder(tmp_path / "in", tmp_path, settle_s=1000)
    land(folder, headers()[:1])
    folder.passes(3)
    assert [one.state for one in folder.files().values()] == ["seen"]
    folder.age(1001)
    folder.passes(1)
    assert [one.state for one in folder.files().values()] == ["valid"]
    folder.store.engine.dispose()


@pytest.mark.fault(14, promise="P1")
def test_a_file_cut_short_is_looked_at_again_until_it_is_complete(folder):
    land(folder, headers()[:1])
    whole = next(folder.root.glob("*.h5"))
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    folder.passes(3)
    one = folder.files()[whole.name]
    assert one.state == "stable"
    assert "TruncatedFileError" in one.cause
    whole.write_bytes(content)
    folder.passes()
    assert folder.files()[whole.name].state == "valid"


@pytest.mark.fault(14, promise="P1")
def test_a_file_that_stays_cut_short_is_invalid_after_the_time_out(folder):
    def cut_short(path):
        raise TruncatedFileError(f"{path}: half of it")

    land(folder, headers()[:1])
    folder.passes(2, cut_short)
    folder.age(folder.watch.give_up_s + 1)
    folder.passes(1, cut_short)
    (one,) = folder.files().values()
    assert (one.state, one.cause.endswith("half of it")) == ("invalid", True)


@pytest.mark.fault(16, promise="P4")
@pytest.mark.fault(16, promise="P1")
def test_garbage_is_invalid_with_its_cause_and_never_touched(folder):
    (folder.root / "garbage.h5").write_bytes(b"these are not the bytes" * 9)
    before = (folder.root / "garbage.h5").stat()
    folder.passes()
    one = folder.files()["garbage.h5"]
    assert one.state == "invalid"
    assert "FormatError" in one.cause
    after = (folder.root / "garbage.h5").stat()
    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (after.st_mtime_ns, after.st_size, after.st_ino)


@pytest.mark.fault(16, promise="P1")
def test_a_reader_that_breaks_on_one_file_does_not_hold_up_the_others(folder):
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
    outside = Folder(tmp_path / "elsewhere", tmp_path)
    land(outside, headers(), below="session")
    outside.store.engine.dispose()
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
    found = scan(tmp_path, Watch().include, Watch().exclude)
    assert sorted(Path(one.path).name for one in found) == ["ok.h5", "scan.fil"]


@pytest.mark.fault(24, promise="P1")
def test_a_root_that_is_away_changes_nothing(folder):
    land(folder, headers())
    folder.passes()
    folder.root.rename(folder.root.with_name("unmounted"))
    assert folder.passes() == ["ready"]
    assert all(one.present for one in folder.files().values())


@pytest.mark.fault(1, promise="P1")
def test_a_second_watcher_after_a_death_goes_on_where_the_first_was(tmp_path):
    first = Folder(tmp_path / "in", tmp_path)
    land(first, headers())
    look(first.store, first.watch, verify_complete)  # dies between two passes
    first.store.engine.dispose()
    second = Folder(tmp_path / "in", tmp_path)
    assert second.passes() == ["ready"]
    second.store.engine.dispose()


@pytest.mark.fault(40, promise="P1")
def test_hostile_names_land_like_any_other(folder):
    land(folder, headers())
    for i, path in enumerate(sorted(folder.root.glob("*.h5"))):
        path.rename(path.with_name(f"<!channel>\n'; DROP TABLE file; --%s{i}.h5"))
    assert folder.passes() == ["ready"]
