"""A disk that is not mounted is told from a folder that is empty."""

import pytest
from sqlalchemy import text

from sentinel import cli
from sentinel.config import ROOT
from sentinel.errors import StoreAwayError
from sentinel.monitor.probes import folder, root_problem
from sentinel.store import filesystem
from sentinel.store.filesystem import missing_mount
from sentinel.store.queue import open_store
from sentinel.workers.pictures import write_file


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The mount point of a disk that /etc/fstab lists and nobody mounted."""
    point = tmp_path / "my disk"
    point.mkdir()
    escaped = str(point).replace(" ", "\\040")
    lines = (
        "# a comment",
        "",
        "/dev/sda1 / ext4 defaults 0 1",
        "/dev/sda2 none swap sw 0 0",
        f"#/dev/x {tmp_path} ext4",
    )
    (tmp_path / "fstab").write_text("\n".join((*lines, f"/dev/sdb1 {escaped} xfs noatime 0 2")) + "\n")
    monkeypatch.setattr(filesystem, "FSTAB", tmp_path / "fstab")
    return point


def test_a_listed_disk_is_missed_below_its_mount_point_only(disk, tmp_path, monkeypatch):
    missing = f"expected a disk mounted at {disk}, found none"
    (tmp_path / "link").symlink_to(disk)
    assert [missing_mount(path) for path in (disk, disk / "new" / "file", tmp_path / "link" / "a")] == [missing] * 3
    assert [missing_mount(path) for path in (tmp_path, tmp_path / "my", tmp_path / "my disk2")] == [""] * 3
    for mount in (disk, disk / "new"):  # the disk, or another one below its mount point
        monkeypatch.setattr(filesystem, "mount_point", lambda _, mount=mount: mount)
        assert missing_mount(disk / "new" / "file") == ""
    monkeypatch.undo()
    monkeypatch.setattr(filesystem, "FSTAB", tmp_path / "none")
    assert missing_mount(disk) == ""


@pytest.mark.fault(26, promise="P5")
@pytest.mark.parametrize("shadowed", [False, True])
def test_no_store_is_created_or_used_where_a_disk_is_not_mounted(disk, monkeypatch, shadowed):
    state, found = disk / "state", []
    if shadowed:  # an earlier start left a store at the mount point
        with monkeypatch.context() as mounted:
            mounted.setattr(filesystem, "mount_point", lambda _: disk)
            open_store(f"sqlite:///{state}/sentinel.db").engine.dispose()
        found = sorted(str(path) for path in disk.rglob("*"))
    for create in (True, False):
        with pytest.raises(StoreAwayError, match="cannot be used now: expected a disk mounted at"):
            open_store(f"sqlite:///{state}/sentinel.db", create=create)
    store = open_store(f"sqlite:///{state}/sentinel.db", upgrade=False)
    with pytest.raises(StoreAwayError), store.read() as rows:
        rows.execute(text("SELECT 1"))
    assert sorted(str(path) for path in disk.rglob("*")) == found


@pytest.mark.fault(26, promise="P5")
@pytest.mark.parametrize(
    ("command", "status"),
    [(["up"], 1), (["config", "check"], 1), (["doctor"], 1), (["status"], 3), (["candidates", "ls"], 1)],
)
def test_a_state_directory_on_a_disk_that_is_not_mounted_is_named_and_stays_empty(
    disk, tmp_path, monkeypatch, capsys, command, status
):
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    roots, release = f"watch: {{roots: [{tmp_path}/in]}}", f"release: {ROOT / 'models' / 'equinox'}"
    (tmp_path / "config.yaml").write_text(f"state_dir: {disk}/state\n{roots}\n{release}\n")
    (tmp_path / "in").mkdir()
    assert cli.main(command) == status
    lines = [line for line in "".join(capsys.readouterr()).splitlines() if command != ["doctor"] or "FAIL  sta" in line]
    assert len(lines) == 1
    assert f"expected a disk mounted at {disk}, found none" in lines[0]
    assert list(disk.iterdir()) == []


@pytest.mark.fault(41, promise="P5")
def test_a_root_or_a_picture_folder_on_a_disk_that_is_not_mounted_is_named(disk):
    assert root_problem(disk) == f"expected a disk mounted at {disk}, found none"
    with pytest.raises(OSError, match="expected a disk mounted at"):
        folder(disk / "pictures")
    with pytest.raises(OSError, match="expected a disk mounted at"):
        write_file(disk / "pictures" / "1.png", b"PNG")
    assert list(disk.iterdir()) == []
