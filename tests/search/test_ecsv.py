"""ECSV keeps units, kinds of quantities, all digits and empty cells, and one row a line whatever the names hold."""

import re

import numpy as np
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.table import QTable, Table
from astropy.units import Unit
from factories import make_candidate

from aetherscan.search.candidates import candidate_table
from aetherscan.search.ecsv import KINDS, ecsv_text, kind_of, write_ecsv
from sentinel.config import ROOT

UNITS = {"Hz/s^2": "Hz/s2", "day": "d", "channel": "chan", "line": "1", "candidate": "1", "cadence": "1", "none": ""}
"""Units of docs/candidates.md that astropy spells otherwise."""


@pytest.mark.parametrize("column", KINDS)
def test_every_unit_and_every_ucd_is_in_the_vocabulary(column):
    unit, ucd = KINDS[column]
    Unit(unit)
    assert not ucd or check_ucd(ucd, check_controlled_vocabulary=True)


def test_the_units_are_those_of_the_document():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", (ROOT / "docs" / "candidates.md").read_text(), re.MULTILINE)
    assert rows
    for name, unit in rows:
        if not name.startswith("latents"):
            assert kind_of(name)[0] == UNITS.get(unit, unit), name


def test_astropy_reads_values_units_and_empty_cells_back(tmp_path):
    one = make_candidate(frequency_mhz=8419.319371234567, probability=None, allocations=("GPS", "radar"))
    write_ecsv(tmp_path / "a.ecsv", *candidate_table([one, make_candidate(4)]))
    table = QTable.read(tmp_path / "a.ecsv", format="ascii.ecsv")
    assert table["frequency_mhz"][0].to_value("MHz") == one.frequency_mhz
    assert table["drift_rate_hz_s"].unit == Unit("Hz/s")
    assert (1 / table["bandwidth_hz"][0]).to_value("s") == 0.25
    assert table["frequency_mhz"].info.meta["ucd"] == "em.freq"
    assert np.ma.is_masked(table["probability"][0])
    assert np.ma.is_masked(table["snr_5"][1])
    assert table["allocations"][0] == "GPS; radar"


def test_a_table_without_rows_has_its_columns():
    table = Table.read(ecsv_text(*candidate_table([])), format="ascii.ecsv")
    assert len(table) == 0
    assert table["frequency_mhz"].unit == "MHz"
    assert "snr_5" in table.colnames


@pytest.mark.parametrize("name", ['a "b"\n c', "# comment", "\u202e,;", "=cmd()", "\\N", "--"])
def test_a_hostile_name_is_one_cell(name):
    rows = [{"id": 1, "target": name}, {"id": 2, "target": "T"}]
    table = Table.read(ecsv_text(["id", "target"], rows), format="ascii.ecsv")
    assert list(table["id"]) == [1, 2]
    assert table["target"][0] == "".join(letter if letter.isprintable() else "?" for letter in name)


def test_values_that_are_not_numbers_stay_and_truth_is_truth():
    rows = [{"strangeness": np.nan, "superseded": True}, {"strangeness": 1, "superseded": False}]
    table = Table.read(ecsv_text(["strangeness", "superseded"], rows), format="ascii.ecsv")
    assert np.isnan(table["strangeness"][0])
    assert list(table["superseded"]) == [True, False]
