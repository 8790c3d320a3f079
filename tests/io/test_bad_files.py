"""Incomplete files are retried later and invalid files are named; no file crashes the reader or reads as zeros."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_files import BAD
from factories import GBT, make_header, make_power, write_observation

from aetherscan.errors import ReadError, TruncatedFileError
from aetherscan.io import open_observation, verify_complete, write_fil, write_h5

ROOT = Path(__file__).parents[2]
CHUNKS = (1, 1, 256)


@pytest.mark.fault(15, promise="P1")
@pytest.mark.fault(16, promise="P1")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_raises_an_error_that_says_what_was_expected_and_found(tmp_path, name):
    make, error, message = BAD[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(error, match=message) as raised:
        verify_complete(path)
    assert type(raised.value) is error
    assert re.match(f"{re.escape(str(path))}: .*expected .*found", str(raised.value), re.DOTALL)


@pytest.mark.fault(14, promise="P1")
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_a_file_cut_at_any_byte_is_refused(tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_observation(whole)
    for size in np.linspace(0, whole.stat().st_size - 1, 60, dtype=int):
        path.write_bytes(whole.read_bytes()[:size])
        if suffix == ".fil" and size > 5 * 4096 and (size - (whole.stat().st_size - 16 * 4096)) % 4096 == 0:
            continue  # cut after a whole row: a complete, shorter observation
        with pytest.raises(TruncatedFileError):
            verify_complete(path)


@pytest.mark.parametrize("locking", [True, False])
def test_a_file_that_is_open_for_writing_is_refused_until_it_is_closed(tmp_path, locking):
    path = tmp_path / "growing.h5"
    write_observation(path, chunks=CHUNKS)
    with h5py.File(path, "r+", locking=locking) as file:
        file["data"].resize(20, axis=0)
        file.flush()
        # From another process, because HDF5 shares the files that one process has open.
        script = f"from aetherscan.io import verify_complete; verify_complete({str(path)!r})"
        stderr = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        ).stderr
        assert "TruncatedFileError" in stderr
        assert ("open for writing" if locking else "expected 80 chunks for (20, 1, 1024), found 64") in stderr
        file["data"][16:] = 1
    assert verify_complete(path).ntime == 20


def test_a_writer_can_open_a_file_that_is_being_read(tmp_path):
    path = tmp_path / "shared.h5"
    write_observation(path)
    with open_observation(path) as observation:
        observation.read(0, 8)
        append = f"import h5py; h5py.File({str(path)!r}, 'r+').close()"
        assert subprocess.run([sys.executable, "-c", append], check=False).returncode == 0


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _touch(path):
    os.utime(path, ns=(1, 1))


def _replace(path):
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


@pytest.mark.fault(17, promise="P2")
@pytest.mark.parametrize("change", [_cut, _touch, _replace, os.remove])
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, suffix, change):
    path = tmp_path / f"changed{suffix}"
    write_observation(path)
    with open_observation(path) as observation:
        observation.read(0, 8)
        change(path)
        with pytest.raises(TruncatedFileError, match=r"expected .*found"):
            observation.read(8, 16)


@pytest.mark.fault(23, promise="P4")
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_reading_does_not_change_the_file(tmp_path, suffix):
    path = tmp_path / f"kept{suffix}"
    write_observation(path)
    path.chmod(0o444)
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir()))
    verify_complete(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


@pytest.mark.parametrize(("start", "stop"), [(-1, 8), (0, 1025), (8, 8), (9, 8), (1024, 1025)])
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_channels_outside_the_file_are_refused(tmp_path, suffix, start, stop):
    write_observation(tmp_path / f"band{suffix}")
    with (
        open_observation(tmp_path / f"band{suffix}") as observation,
        pytest.raises(ValueError, match=f"<= 1024, found {start} to {stop}"),
    ):
        observation.read(start, stop)


def test_a_buffer_of_another_shape_is_refused(tmp_path):
    write_observation(tmp_path / "band.h5")
    with open_observation(tmp_path / "band.h5") as observation:
        read_only = np.broadcast_to(np.float32(0), (16, 8)), np.frombuffer(bytes(512), "f4").reshape(16, 8)
        for buffer in (np.empty((16, 9), "f4"), np.empty((16, 16), "f4")[:, ::2], *read_only):
            with pytest.raises(ValueError, match=r"expected contiguous rows of float32 \(16, 8\) .*found"):
                observation.read(0, 8, out=buffer)


@pytest.mark.parametrize("write", [write_h5, write_fil])
def test_blocks_that_do_not_add_up_to_the_band_are_refused(tmp_path, write):
    power = make_power(GBT)
    for blocks, found in (([power[:, :1000]], "1000"), ([power, power[:, :1]], r"\(16, 1\)"), ([power[:9]], r"\(9, ")):
        with pytest.raises(ValueError, match=f"expected .*found {found}"):
            write(tmp_path / "wrong", GBT, blocks)
    with pytest.raises(ValueError, match="found 2"):
        write(tmp_path / "wrong", make_header(nifs=2), [power])


@pytest.mark.fault(40, promise="P1")
@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_the_first_bytes_decide_the_format_whatever_the_name(tmp_path, suffix):
    for name in (b"caf\xe9", b"<!channel>\n" + 200 * b"x"):
        path = tmp_path / os.fsdecode(name + suffix.encode())
        write_observation(path)
        assert verify_complete(path) == verify_complete(path.rename(path.with_suffix(".dat")))
        with pytest.raises(TruncatedFileError) as raised:
            verify_complete(path)
        assert str(raised.value).encode()


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_a_file_without_read_permission_is_not_called_incomplete(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")

    def refused(_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("aetherscan.io.observation._stat", refused)  # root may read everything
    with pytest.raises(ReadError, match=r"expected a file that can be read, found .*Permission denied") as raised:
        open_observation(path)
    assert not isinstance(raised.value, TruncatedFileError)
