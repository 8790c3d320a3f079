"""Grouping recovers observers' own lists of cadences, with the counts given in docs/cadences.md."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from aetherscan.header import SECONDS_PER_DAY
from aetherscan.options.cadence import CadenceRules
from benchmarks.cadence_listings import compare, nodes, spliced

PAGE = (Path(__file__).parents[2] / "docs" / "cadences.md").read_text()


@pytest.mark.parametrize(
    ("listing", "listed", "back", "formed_besides"), [(spliced, 2274, 2228, 2), (nodes, 926, 919, 0)]
)
def test_listed_cadences_are_recovered_except_for_errors_of_the_lists(listing, listed, back, formed_besides):
    files = listing()
    outcome, extra, grouping = compare(files)
    assert outcome.total() == listed
    assert outcome["recovered"] >= back
    assert extra.total() <= formed_besides
    for cadence in grouping.cadences:
        starts = [files.headers[i].tstart for i in cadence.members]
        assert all(0 < (b - a) * SECONDS_PER_DAY <= CadenceRules().max_rest_s for a, b in pairwise(starts))
    assert all(re.match(r"waiting for position [0-5]", ungrouped.reason) for ungrouped in grouping.ungrouped)
    for kind, count in outcome.items():
        assert re.search(rf"\| {kind} \|.*\b{count:,}\b", PAGE), f"docs/cadences.md lacks: {kind} {count}"
