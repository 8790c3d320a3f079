"""A bad file costs its own cadence only, and everything that is not searched has a line that says why."""

import json
from dataclasses import replace

import h5py
import pytest
from factories import make_detector, write_observation
from watched import headers

from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import TruncatedFileError
from sentinel.commands.listing import listed
from sentinel.commands.search import search
from sentinel.config import Config, Search
from sentinel.workers.search import search_files


def write_cadences(folder, count=2, **changes):
    """Write cadences of six files each, a day apart, and return their paths."""
    paths = []
    for number in range(count):
        for i, header in enumerate(headers(59103.023 + number, **changes)):
            paths.append(folder / f"{number}{i}.h5")
            write_observation(paths[-1], header, chunks=(1, 1, 256))
    return paths


def searched(paths, output, **options):
    """Search, and return the outcome, the lines for the user and run.json."""
    lines = []
    outcome = search(paths, output, detect=make_detector, search=Search(threads=1), tell=lines.append, **options)
    return outcome, lines, json.loads((output / "run.json").read_text())


def damage_middle(path):
    """Damage a chunk that the look at three chunks before a search does not read."""
    with h5py.File(path) as file:
        chunks = [file["data"].id.get_chunk_info_by_coord((row, 0, chan)) for row in (5, 6) for chan in (256, 512)]
    with path.open("r+b") as file:
        for chunk in chunks:
            file.seek(chunk.byte_offset)
            file.write(b"\xff" * chunk.size)


def cut(path):
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil", [damage_middle, cut, lambda path: path.unlink(), lambda path: path.write_bytes(b"text")]
)
def test_a_bad_file_costs_its_own_cadence_and_the_other_is_searched_and_written(tmp_path, spoil):
    paths = write_cadences(tmp_path)
    spoil(paths[2])
    outcome, lines, report = searched(paths, tmp_path / "found")
    assert (outcome.searched, outcome.exit_status) == (1, 3)
    assert [run["files"][0] for run in report["cadences"]] == [str(paths[6])]
    (reason,) = report["failed"]
    assert str(paths[2]) in reason
    assert f"not searched: {reason}" in lines
    assert (tmp_path / "found" / "candidates.csv").read_text().startswith("frequency_mhz")


def test_candidates_are_written_before_a_later_cadence_ends_the_run(tmp_path, monkeypatch):
    paths = write_cadences(tmp_path)
    from sentinel.commands import search as module

    real = module._search_cadence

    def interrupt(files, *rest):
        if files[0] == paths[6]:
            raise KeyboardInterrupt
        return real(files, *rest)

    monkeypatch.setattr(module, "_search_cadence", interrupt)
    with pytest.raises(KeyboardInterrupt):
        searched(paths, tmp_path / "found")
    assert len(json.loads((tmp_path / "found" / "run.json").read_text())["cadences"]) == 1


def test_a_search_of_good_files_only_has_exit_status_0_and_of_bad_files_only_1(tmp_path):
    paths = write_cadences(tmp_path, 1)
    assert searched(paths, tmp_path / "found")[0].exit_status == 0
    cut(paths[0])
    assert searched(paths, tmp_path / "found")[0].exit_status == 1


def test_a_copy_of_an_observation_and_a_wide_product_have_a_line_each(tmp_path):
    paths = write_cadences(tmp_path, 1)
    copy, wide = tmp_path / "copy.h5", tmp_path / "wide.rawspec.0001.h5"
    copy.write_bytes(paths[0].read_bytes())
    write_observation(wide, replace(headers()[0], foff=-2.86e-3))
    outcome, lines, report = searched([*paths, copy, wide, wide], tmp_path / "found", max_channel_hz=100)
    assert outcome.exit_status == 0
    assert f"{copy}: the same observation as {paths[0]}" in report["not_searched"]
    assert f"not searched: {wide}: named 2 times, used once" in lines
    assert any(line.startswith(f"not searched: {wide}: channels of 2860 Hz, expected at most") for line in lines)


def test_products_with_wide_channels_are_searched_with_all_products(tmp_path):
    paths = write_cadences(tmp_path, 1, foff=-2.86e-3, nfpc=1024)
    assert searched(paths, tmp_path / "no", max_channel_hz=100)[0].searched == 0
    assert searched(paths, tmp_path / "yes")[0].searched == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_catalogue_is_read_in_the_encodings_and_with_the_separators_of_spreadsheets(tmp_path, encoding, delimiter):
    rows = ["título,path", "Señal,a.H5 ", "é,b.hdf", "\u00fc,\tc.FIL", "x,d.hdf5", ""]
    text = "\r\n".join(row.replace(",", delimiter, 1) for row in rows)
    (tmp_path / "list.CSV").write_bytes(text.encode(encoding))
    paths, unused = listed([str(tmp_path / "list.CSV")])
    assert ([path.name for path in paths], unused) == (["a.H5", "b.hdf", "c.FIL", "d.hdf5"], [])


def test_rows_that_name_no_file_are_named_with_their_line(tmp_path):
    catalogue = tmp_path / "list.csv"
    catalogue.write_text("target,path\nHIP1,a.h5\n\nHIP2,b.txt\nHIP3,\nHIP4,c.fil\n")
    paths, unused = listed([str(catalogue)])
    assert [path.name for path in paths] == ["a.h5", "c.fil"]
    assert [line.removeprefix(f"{catalogue} ")[:6] for line in unused] == ["line 4", "line 5"]
    assert unused[0].endswith("found 'HIP2, b.txt'")


def test_folders_and_patterns_that_add_nothing_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("a.h5", "b.fil", "notes.txt"):
        (tmp_path / name).touch()
    names = [tmp_path, tmp_path / "empty", tmp_path / "*.hdf5", tmp_path / "a.h5", tmp_path / "*.fil"]
    paths, unused = listed(list(map(str, names)))
    assert [path.name for path in paths] == ["a.h5", "b.fil", "a.h5", "b.fil"]
    assert [line.partition(": expected ")[2] for line in unused] == [
        ".h5 or .hdf5 or .hdf or .fil files in this folder, found none",
        "files that match this pattern, found none",
    ]


@pytest.mark.parametrize(("pattern", "there"), [("ABACAD", 5), ("ABACAD", 0), ("A.ACAD", 4)])
def test_a_file_that_is_gone_before_its_search_is_named_as_gone(tmp_path, pattern, there):
    paths = [tmp_path / f"{i}.h5" for i in range(there)]
    with pytest.raises(TruncatedFileError, match=f"expected . files for .*, found {there}: the others are gone"):
        search_files(paths, pattern, lambda _: None, Config(state_dir=tmp_path), make_detector(), 1)


def test_two_scans_at_one_time_are_named_as_such():
    six = headers()
    (group,) = find_cadences([*six, replace(six[1], source_name="HIP9")]).ungrouped
    assert "expected scans at different times, found one tstart for HIP" in group.reason
