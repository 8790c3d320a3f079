"""Roles that the user states, on the command line or in a catalogue, overrule the headers."""

import json
from dataclasses import replace

import pytest
from factories import make_detector, write_observation
from watched import headers

from aetherscan.cadence.explicit import check_pattern, explicit_cadence
from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import CadenceError
from sentinel import cli
from sentinel.commands import search as searching
from sentinel.commands.catalogue import stated_cadences

SWAPPED = ["X", "A_OFF", "X", "A_OFF", "X", "A_OFF"]
"""Names of six scans at one place, of which an observer knows that the A_OFF are the ONs."""


@pytest.fixture
def files(tmp_path):
    """Return six files at one place, whose headers do not give the roles."""
    paths = []
    for i, (name, header) in enumerate(zip(SWAPPED, headers(), strict=True)):
        paths.append(tmp_path / f"{i}.h5")
        write_observation(paths[-1], replace(header, source_name=name, src_dej=-12.75, nchans=4096, nfpc=4096))
    return paths


@pytest.fixture
def searches(tmp_path, monkeypatch):
    """Run `search` with a detector that needs no release, in a folder with the default configuration."""
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setattr(searching, "detector_of", lambda *_: make_detector())

    def run(*arguments):
        code = cli.main(["search", "--output", str(tmp_path / "found"), *map(str, arguments)])
        report = tmp_path / "found" / "run.json"
        return code, json.loads(report.read_text()) if report.exists() else None

    return run


@pytest.mark.parametrize(("pattern", "on"), [("BABABA", (1, 3, 5)), ("ABACAD", (0, 2, 4)), ("aabacd", (0, 1, 3))])
def test_six_files_in_order_are_the_cadence_that_the_user_states(searches, files, capsys, pattern, on):
    code, report = searches("--cadence", pattern, *files)
    assert code == 0
    (run,) = report["cadences"]
    assert [i for i, scan in enumerate(run["roles"]) if scan["role"] == "ON"] == list(on)
    assert run["pattern"] == pattern.upper()
    said = capsys.readouterr().out
    assert f"ON {' '.join(str(i + 1) for i in on)}  OFF" in said
    assert bool(run["warnings"]) == (on != (0, 2, 4))
    assert all(f"warning: {warning}" in said for warning in run["warnings"])


def test_the_headers_alone_give_other_roles(files, searches):
    _, report = searches(*files)
    assert [run["roles"][0]["role"] for run in report["cadences"]] == ["ON"]


@pytest.mark.parametrize(
    ("pattern", "count", "message"),
    [
        ("AB", 2, "at least two ONs and one OFF"),
        ("ABABABABABABA", 13, "expected at most 12 scans, found 13"),
        ("AAAAAA", 6, "at least two ONs and one OFF"),
        ("BBBBBB", 6, "at least two ONs and one OFF"),
        ("AB1CAD", 6, "expected a letter for each scan"),
        ("", 6, "expected a letter for each scan"),
        ("ABACAD", 5, "expected 6 files for ABACAD, found 5"),
    ],
)
def test_a_pattern_that_is_not_searched_is_refused_in_one_line(searches, files, capsys, pattern, count, message):
    assert searches("--cadence", pattern, *(files * 3)[:count]) == (2, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--cadence: ")
    assert message in line


def test_files_out_of_order_keep_the_roles_they_were_given():
    six = headers()
    mixed = [six[i] for i in (1, 0, 3, 2, 5, 4)]
    cadence, warnings = explicit_cadence(mixed, "BACADA")
    assert ([mixed[i] for i in cadence.members], cadence.on) == (six, (0, 2, 4))
    assert warnings == ["files are not in the order of their times: searched in that order, as ABACAD"]


def test_each_contradiction_of_the_headers_is_a_warning():
    six = headers()
    assert explicit_cadence(six, "ABACAD")[1] == []
    assert [text.split(" although")[0] for text in explicit_cadence(six, "AABACD")[1]] == [
        "scan 2, HIP1, is an ON",
        "scan 3, HIP99427, is an OFF",
        "scan 4, HIP2, is an ON",
        "scan 5, HIP99427, is an OFF",
    ]
    calibrator = [replace(header, source_name="3C286") for header in six]
    assert "it is a calibrator" in explicit_cadence(calibrator, "ABACAD")[1][0]
    short = [*six[:5], replace(six[5], ntime=5)]
    assert "scans of 91 to 292 s" in explicit_cadence(short, "ABACAD")[1][0]


@pytest.mark.parametrize(
    "change", [{"tstart": headers()[0].tstart}, {"fch1": 1500.0}, {"nchans": 512, "nfpc": 512}, {"foff": -1e-6}]
)
def test_scans_that_cannot_be_searched_together_are_refused_whatever_the_user_says(change):
    six = headers()
    with pytest.raises(CadenceError, match="expected"):
        explicit_cadence([*six[:5], replace(six[5], **change)], "ABACAD")


def test_a_pattern_is_read_in_either_case():
    assert check_pattern(" abacad") == "ABACAD"


CATALOGUES = {
    "Aetherscan": ("Target,Session,Band,Cadence ID,Frequency,.h5 path", "A_OFF,S1,X,{n},8421,{file}", range(6)),
    "positions": ("cadence,target,position,path", "{n},A_OFF,{i},{file}", (3, 1, 0, 2, 5, 4)),
    "roles": ("cadence_id,on_off,path", "{n},{role},{file} ", range(6)),
}


@pytest.mark.parametrize("kind", CATALOGUES)
def test_the_groups_of_a_catalogue_are_the_cadences(searches, files, tmp_path, kind):
    titles, row, order = CATALOGUES[kind]
    role = ["OFF", "ON"] * 3
    lines = [row.format(n=7, i=i, role=role[i], file=files[i].name) for i in order]
    (tmp_path / "catalogue.csv").write_text("\n".join([titles, *lines]) + "\n", encoding="utf-8-sig")
    _, report = searches(tmp_path / "catalogue.csv")
    (run,) = report["cadences"]
    assert run["files"] == [str(path) for path in files]
    assert [scan["role"] for scan in run["roles"]] == (role if kind == "roles" else ["ON", "OFF"] * 3)


def test_a_group_of_too_few_files_is_named_with_its_lines_and_the_others_are_searched(searches, files, tmp_path):
    rows = [f"1,{file.name}" for file in files] + [f"2,{file.name}" for file in files[:2]]
    (tmp_path / "catalogue.csv").write_text("\n".join(["cadence,path", *rows]))
    _, report = searches(tmp_path / "catalogue.csv")
    assert len(report["cadences"]) == 1
    (reason,) = report["not_searched"]
    assert reason.startswith(
        "catalogue.csv, lines 8 to 9: expected a letter for each scan, A for an ON and others for "
    )
    assert reason.endswith("OFFs, with at least two ONs and one OFF, found 'AB'")


def test_a_group_with_a_file_that_cannot_be_read_says_so(searches, files, tmp_path):
    files[2].write_bytes(b"nothing")
    (tmp_path / "catalogue.csv").write_text("\n".join(["cadence,path", *(f"1,{file.name}" for file in files)]))
    code, report = searches(tmp_path / "catalogue.csv")
    assert (code, report["cadences"]) == (1, [])
    assert report["not_searched"][-1] == "catalogue.csv, lines 2 to 7: 1 of its 6 files cannot be searched"


def test_a_list_of_files_without_cadences_is_grouped_by_its_headers(tmp_path):
    (tmp_path / "list.csv").write_text("row,on_off,path\n0,ON,a.h5\n")
    (tmp_path / "empty.csv").write_text("")
    assert stated_cadences([str(tmp_path / "list.csv"), str(tmp_path / "empty.csv"), "b.h5"]) == []
    assert find_cadences(headers()).cadences[0].pattern == "ABACAD"
