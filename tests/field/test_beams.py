"""The simultaneous beams of a receiver are separate observations: each beam's scans are grouped with its own."""

import math
import random
from dataclasses import replace

import pytest
from factories import make_header, write_observation
from watched import headers

from aetherscan.cadence.grouping import find_cadences
from aetherscan.cadence.roles import role_lines, roles_of
from aetherscan.io import verify_complete


def seven_beams(*, numbered, same_name=False):
    """Return the scans of a receiver with seven beams, a hexagon of 6 arcmin, for six pointings."""
    observed = []
    for scan in headers():
        for beam in range(7):
            angle, radius = math.radians(60 * beam), 0.1 if beam else 0.0
            east, north = radius * math.cos(angle), radius * math.sin(angle)
            place = {
                "src_raj": scan.src_raj + east / 15 / math.cos(math.radians(scan.src_dej)),
                "src_dej": scan.src_dej + north,
                "source_name": scan.source_name if same_name else f"{scan.source_name}_B{beam}",
            }
            number = {"ibeam": beam, "nbeams": 7} if numbered else {}
            observed.append(replace(scan, **place, **number))
    return observed


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("same_name", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_beam_has_its_own_cadence_whatever_the_order_of_the_files(numbered, same_name, seed):
    observed = seven_beams(numbered=numbered, same_name=same_name)
    shuffled = random.Random(seed).sample(observed, len(observed))
    grouping = find_cadences(shuffled)
    found = sorted(sorted(observed.index(shuffled[i]) for i in cadence.members) for cadence in grouping.cadences)
    assert found == [[7 * scan + beam for scan in range(6)] for beam in range(7)]
    assert {cadence.on for cadence in grouping.cadences} == {(0, 2, 4)}
    assert grouping.ungrouped == ()


def test_a_beam_without_one_scan_waits_and_the_others_are_cadences():
    observed = seven_beams(numbered=True)
    grouping = find_cadences([header for i, header in enumerate(observed) if i != 7 + 3])
    assert len(grouping.cadences) == 6
    assert [group.target for group in grouping.ungrouped] == ["HIP99427_B3"]
    assert "position 1" in grouping.ungrouped[0].reason


def test_a_scan_that_lacks_a_beam_without_numbers_is_named_and_never_taken_for_another():
    observed = seven_beams(numbered=False)
    grouping = find_cadences([header for i, header in enumerate(observed) if i != 7 + 3])
    assert not grouping.cadences
    assert sum("beam not known: expected files of 7" in group.reason for group in grouping.ungrouped) == 6


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_the_number_of_the_beam_is_read_and_written_in_both_formats(tmp_path, suffix):
    header = make_header(ibeam=4, nbeams=19)
    write_observation(path := tmp_path / f"a{suffix}", header)
    read = verify_complete(path)
    assert (read.ibeam, read.nbeams) == (4, 19)
    assert "HIP99427 beam 4" in role_lines("A", roles_of([read], (0,)))[1]


def test_beam_and_place_are_part_of_the_identity_of_an_observation():
    header = make_header()
    others = [{"ibeam": 0}, {"ibeam": 1}, {"src_raj": header.src_raj + 0.01}, {"src_dej": header.src_dej + 0.05}]
    assert len({header.identity, *(replace(header, **other).identity for other in others)}) == 5


def test_the_nodes_of_one_beam_that_start_seconds_apart_are_no_beams():
    nodes = [
        replace(scan, fch1=scan.fch1 - 187.5 * n, tstart=scan.tstart + n / 86_400)
        for scan in headers()
        for n in range(8)
    ]
    assert len(find_cadences(nodes).cadences) == 8
