"""Outputs are opened before the work begins, and written whole or not at all."""

import csv
import os

import numpy as np
import pytest

from aetherscan.errors import FormatError
from aetherscan.evaluate.pipeline import evaluate_release
from aetherscan.io.outputs import check_writable, whole_file
from aetherscan.options.search import SearchSettings
from aetherscan.search.candidates import write_table
from sentinel import cli
from sentinel.commands import search
from sentinel.commands.candidates import export
from sentinel.config import Search


def no_search():
    raise AssertionError("the search began")


@pytest.mark.fault(59, promise="P5")
def test_a_table_that_cannot_be_written_completely_leaves_the_earlier_one(tmp_path):
    table = tmp_path / "candidates.csv"
    table.write_text("earlier\n")

    def rows():
        yield {"a": 1}
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_table(table, ["a"], rows())
    assert table.read_text() == "earlier\n"
    assert list(tmp_path.iterdir()) == [table]


def test_a_table_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "real.csv").write_text("earlier\n")
    (tmp_path / "link.csv").symlink_to("real.csv")
    with whole_file(tmp_path / "link.csv") as part:
        part.write_text("new\n")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new\n"


@pytest.fixture(params=["itself", "FIFO", "folder", "folder that is missing", "input"])
def special(request, tmp_path):
    """Return a link with the name of a table, to something that is no table, and what that is."""
    (link := tmp_path / "table.csv").symlink_to(to := tmp_path / "behind")
    if request.param == "itself":
        to.symlink_to(link)
    elif request.param == "FIFO":
        os.mkfifo(to)
    elif request.param == "folder":
        to.mkdir()
    elif request.param == "input":
        to.write_text("what a telescope recorded")
    else:
        link.unlink()
        link.symlink_to(to / "table.csv")
    return link, to


@pytest.mark.fault(59, promise="P5")
@pytest.mark.fault(59, promise="P4")
def test_an_output_behind_a_link_is_checked_where_it_would_be_written(special):
    link, to = special
    before = to.lstat().st_mode if to.is_symlink() or to.exists() else None
    with pytest.raises(OSError, match=r"table\.csv: expected (the name of a|another) file|expected a folder that can"):
        check_writable(link.parent, link.name, inputs=[to])
    assert (to.lstat().st_mode if to.is_symlink() or to.exists() else None) == before


def test_a_write_replaces_no_special_file(special):
    link, to = special
    if to.is_file() or not (to.exists() or to.is_symlink()):
        pytest.skip("a check before the work names it")
    with pytest.raises(OSError, match=r"table\.csv: expected the name of a file"), whole_file(link) as part:
        part.write_text("new\n")
    assert not to.is_file()


@pytest.mark.parametrize("name", ["candidates.csv", "run.json"])
def test_a_search_writes_none_of_its_inputs(tmp_path, name):
    (tmp_path / name).write_text("Target,file\nHIP1,a.fil\n")
    with pytest.raises(OSError, match=f"{name}: expected another file than the inputs"):
        search.search([tmp_path / "a.fil"], tmp_path, detect=no_search, search=Search(), named=[tmp_path / name])


@pytest.mark.fault(59, promise="P5")
@pytest.mark.parametrize("taken", ["candidates.csv", "run.json"])
def test_a_search_whose_table_cannot_be_written_does_not_begin(tmp_path, taken):
    (tmp_path / taken).mkdir()
    with pytest.raises(OSError, match="expected the name of a file, found a folder"):
        search.search([], tmp_path, detect=no_search, search=Search())


def test_stamps_whose_table_cannot_be_written_are_not_scored(tmp_path):
    (tmp_path / "plates.csv").mkdir()
    with pytest.raises(OSError, match="expected the name of a file, found a folder"):
        search.score([tmp_path / "none.npy"], tmp_path, detector=None, settings=Search(), batch=1)


@pytest.mark.fault(59, promise="P5")
def test_a_search_of_a_mistyped_name_does_not_empty_the_table_of_an_earlier_search(tmp_path):
    (tmp_path / "candidates.csv").write_text("earlier\n")
    lines = []
    outcome = search.search([tmp_path / "typo.h5"], tmp_path, detect=no_search, search=Search(), tell=lines.append)
    assert outcome.searched == 0
    assert (tmp_path / "candidates.csv").read_text() == "earlier\n"
    assert "the table of an earlier search is unchanged" in lines[-1]


def test_an_export_to_a_folder_that_is_not_there_names_it_before_the_store_is_read(tmp_path):
    with pytest.raises(OSError, match=r"none: expected a folder that can be written, found: No such file"):
        export(None, tmp_path / "none" / "x.csv")


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "found").write_text("")
    with pytest.raises(OSError, match="expected a folder that can be written, found: Not a directory"):
        check_writable(tmp_path / "found")


@pytest.mark.parametrize("content", ["junk", "no data", "one dimension"])
def test_a_slice_that_holds_no_power_is_named_before_the_release_is_loaded(tmp_path, content):
    path = tmp_path / "slice.npz"
    if content == "junk":
        path.write_text("junk")
    else:
        np.savez(path, **({"other": np.ones((2, 2))} if content == "no data" else {"data": np.ones(3)}))
    with pytest.raises(FormatError, match=r"slice\.npz: expected"):
        evaluate_release(tmp_path / "none", tmp_path, settings=SearchSettings(), seed=1, real=path)


def test_a_written_table_can_be_read(tmp_path):
    write_table(tmp_path / "t.csv", ["a"], [{"a": 1}])
    with (tmp_path / "t.csv").open() as stream:
        assert list(csv.reader(stream)) == [["a"], ["1"]]


@pytest.mark.parametrize("place", ["taken", "taken/below"])
@pytest.mark.parametrize(
    "command",
    ["search a.h5 --output", "evaluate --output", "evaluate --set-alarms 1 --release models/equinox --output"],
)
def test_a_file_in_the_place_of_an_output_folder_is_named(tmp_path, monkeypatch, capsys, command, place):
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "none.yaml"))
    (tmp_path / "none.yaml").write_text(f"state_dir: {tmp_path}\n")
    (tmp_path / "taken").write_text("kept\n")
    assert cli.main([*command.split(), str(tmp_path / place)]) == 1
    assert f"{tmp_path / place}: expected a folder, found a file\n" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "kept\n"
