"""Every search lists its ONs and OFFs with place and time, and notes every place that it converted or refused."""

import json
import struct
from dataclasses import replace

import h5py
import pytest
from factories import make_detector, make_header, write_observation
from watched import NAMES, headers

from aetherscan.cadence.roles import role_lines, roles_of
from aetherscan.io import verify_complete
from sentinel.commands.search import search
from sentinel.config import Config, Search
from sentinel.workers.search import search_files

ROLES = "HIP99427  ON 1 3 5  OFF 2 4 6"


@pytest.fixture
def files(tmp_path):
    """Return the six files of a cadence with names that do not sort by time."""
    paths = [tmp_path / f"{9 - i}.h5" for i in range(6)]
    for path, header in zip(paths, headers(), strict=True):
        write_observation(path, header)
    return paths


def test_a_search_prints_and_records_role_name_place_and_time_of_each_scan(files, tmp_path):
    said = []
    search(sorted(files), tmp_path / "found", detect=make_detector, search=Search(threads=1), tell=said.append)
    assert ROLES in said
    scans = said[said.index(ROLES) + 1 :][:6]
    assert scans[0] == "   1 ON   HIP99427  RA 20:10:48.0 Dec -12:45:00  2020-09-11 00:33:07 UTC  292 s"
    assert scans[1] == "   2 OFF  HIP1  RA 20:10:48.0 Dec -10:45:00  2020-09-11 00:38:48 UTC  292 s"
    (run,) = json.loads((tmp_path / "found" / "run.json").read_text())["cadences"]
    assert [scan["role"] for scan in run["roles"]] == ["ON", "OFF"] * 3
    assert [scan["name"] for scan in run["roles"]] == list(NAMES)
    assert run["roles"][0]["start_utc"] == "2020-09-11 00:33:07"


def test_the_store_records_the_roles_of_a_searched_cadence(files, tmp_path):
    run = search_files(files, "ABACAD", lambda _: None, Config(state_dir=tmp_path), make_detector(), 1).run
    assert role_lines("HIP99427", run["roles"])[0] == ROLES
    assert [scan["name"] for scan in run["roles"]] == list(NAMES)


def test_the_roles_of_a_target_that_comes_second_are_its_own():
    second = [replace(header, source_name=name) for header, name in zip(headers(), "ABCBDB", strict=True)]
    assert role_lines("B", roles_of(second, (1, 3, 5)))[0] == "B  ON 2 4 6  OFF 1 3 5"


def test_a_name_that_cannot_be_printed_does_not_break_the_lines():
    (scan,) = roles_of([make_header(source_name="A\nB\x1b[2J")], (0,))
    assert "A?B?[2J" in role_lines("A\nB", [scan])[1]


@pytest.mark.parametrize(
    ("ra", "dec", "hours", "degrees", "note"),
    [
        (20.18, -12.75, 20.18, -12.75, ""),
        (302.7, -12.75, 20.18, -12.75, "read as degrees"),
        (359.99, 89.0, 359.99 / 15, 89.0, "read as degrees"),
        (201048.0, -124500.0, 20.18, -12.75, "read as HHMMSS"),
        (201048.0, 771410.0, 20.18, 77 + 14 / 60 + 10 / 3600, "read as HHMMSS"),
        (
            20.18,
            912.0,
            0,
            0,
            "not used: expected 0 to 24 hours and -90 to 90 degrees, found src_raj 20.18, src_dej 912",
        ),
        (-3.0, 10.0, 0, 0, "not used"),
        (206148.0, -124500.0, 0, 0, "not used"),  # minute 61
        (201048.0, -12.75, 0, 0, "not used"),  # packed and decimal
        (float("nan"), 10.0, 0, 0, "not used"),
        (float("inf"), float("nan"), 0, 0, "not used"),
        (0.0, 0.0, 0, 0, ""),
    ],
)
def test_a_place_in_hdf5_is_converted_or_refused_with_the_reason(tmp_path, ra, dec, hours, degrees, note):
    write_observation(path := tmp_path / "a.h5", make_header())
    with h5py.File(path, "r+") as file:
        file["data"].attrs.update(src_raj=ra, src_dej=dec)
    header = verify_complete(path)
    assert (header.src_raj, header.src_dej) == pytest.approx((hours, degrees))
    assert note in header.coordinate_note
    assert bool(header.coordinate_note) == bool(note)
    line = role_lines("A", roles_of([header], (0,)))[1]
    assert note in line
    assert ("no coordinates" in line) == ((hours, degrees) == (0, 0))


@pytest.mark.parametrize(
    ("ra", "dec", "hours", "degrees", "note"),
    [
        (20.18, -12.75, 20.18, -12.75, "read as decimal hours"),
        (302.7, -12.75, 20.18, -12.75, "read as decimal degrees"),
        (201048.0, -124500.0, 20.18, -12.75, ""),
        (201048.0, -4500.0, 20.18, -0.75, ""),
        (250000.0, 10000.0, 0, 0, "not used: expected HHMMSS.s"),
        (201048.0, 950000.0, 0, 0, "not used"),
        (float("nan"), 0.0, 0, 0, "not used"),
    ],
)
def test_a_place_in_sigproc_is_converted_or_refused_with_the_reason(tmp_path, ra, dec, hours, degrees, note):
    write_observation(path := tmp_path / "a.fil", make_header())
    raw = path.read_bytes()
    for name, value in ((b"src_raj", ra), (b"src_dej", dec)):
        at = raw.index(name) + len(name)
        raw = raw[:at] + struct.pack("<d", value) + raw[at + 8 :]
    path.write_bytes(raw)
    header = verify_complete(path)
    assert (header.src_raj, header.src_dej) == pytest.approx((hours, degrees))
    assert note in header.coordinate_note
    assert bool(header.coordinate_note) == bool(note)
