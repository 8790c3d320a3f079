"""The simultaneous beams of a receiver are separate observations, or ON and OFFs of one scan if `beams:` says so."""

import json
import math
import random
from dataclasses import replace

import pytest
from factories import make_detector, make_header, observe, write_observation
from watched import Folder, headers

from aetherscan.cadence.grouping import find_cadences
from aetherscan.cadence.roles import role_lines, roles_of
from aetherscan.errors import CadenceError, OptionsError
from aetherscan.io import ArrayObservation, verify_complete
from aetherscan.options.cadence import BeamRoles, CadenceRules
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from sentinel import cli
from sentinel.commands import search as searching
from sentinel.commands.search import rules_of
from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.store.schema import cadence
from sentinel.workers.search import on_positions, search_files


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


def beam_rules(on=0, off=(1, 2, 3, 4, 5, 6)):
    return CadenceRules(beams=BeamRoles(on_beam=on, off_beams=off))


@pytest.mark.parametrize("same_name", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_scan_is_a_cadence_of_one_on_beam_and_its_simultaneous_off_beams(same_name, seed):
    observed = seven_beams(numbered=True, same_name=same_name)
    shuffled = random.Random(seed).sample(observed, len(observed))
    grouping = find_cadences(shuffled, beam_rules())
    found = [[observed.index(shuffled[i]) for i in cadence.members] for cadence in grouping.cadences]
    assert found == [[7 * scan + beam for beam in range(7)] for scan in range(6)]
    assert {(cadence.pattern, cadence.on) for cadence in grouping.cadences} == {("ABCDEFG", (0,))}
    assert grouping.cadences[0].target == observed[0].source_name
    assert grouping.ungrouped == ()


@pytest.mark.parametrize(("on", "off"), [(3, (0, 6)), (6, (0,)), (0, (1, 4))])
def test_beams_that_are_not_named_are_grouped_alone(on, off):
    observed = seven_beams(numbered=True)
    cadences = find_cadences(observed, beam_rules(on, off)).cadences
    together = [cadence for cadence in cadences if len(cadence.members) == 1 + len(off)]
    assert [sorted(observed[i].ibeam for i in cadence.members) for cadence in together] == [sorted((on, *off))] * 6
    assert all(observed[cadence.members[cadence.on[0]]].ibeam == on for cadence in together)
    alone = {observed[cadence.members[0]].ibeam for cadence in cadences if cadence not in together}
    assert alone == set(range(7)) - {on, *off}


def test_the_bands_of_a_receiver_and_beams_that_start_seconds_apart_are_cadences_of_their_own():
    observed = [
        replace(scan, fch1=scan.fch1 - 187.5 * node, tstart=scan.tstart + (scan.ibeam - 3) / 86_400)
        for scan in seven_beams(numbered=True)
        for node in range(2)
    ]
    cadences = find_cadences(observed, beam_rules()).cadences
    assert len(cadences) == 12
    assert {len({observed[i].fch1 for i in cadence.members}) for cadence in cadences} == {1}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda scans: scans[:3] + scans[4:], "waiting for beam 3 of the scan at MJD 59103.0230"),
        (lambda scans: scans[1:], "waiting for beam 0 of the scan"),
        (
            lambda scans: [replace(scans[0], ntime=100), *scans[1:]],
            "unequal length: simultaneous beams of 292 to",
        ),
        (lambda scans: [replace(scans[0], source_name="3C286"), *scans[1:]], "the ON beam is on a calibrator"),
    ],
)
def test_a_scan_that_cannot_be_searched_across_its_beams_waits_with_the_reason(spoil, reason):
    grouping = find_cadences(spoil(seven_beams(numbered=True)[:7]), beam_rules())
    assert grouping.cadences == ()
    (group,) = grouping.ungrouped
    assert group.reason.startswith(reason)
    assert "`beams:` in the configuration" in group.reason


@pytest.mark.parametrize(
    ("on", "off"), [(0, ()), (None, (1,)), (0, (0, 1)), (0, (1, 1)), (-1, (1,)), (0, (-1,)), (0, tuple(range(1, 13)))]
)
def test_roles_of_beams_that_contradict_each_other_are_refused(on, off):
    with pytest.raises(OptionsError, match="expected"):
        BeamRoles(on_beam=on, off_beams=off)


def test_beams_are_named_in_the_configuration_or_on_the_command_line():
    config = Config(beams={"on_beam": 2, "off_beams": [0, 1]})
    assert rules_of(config, None).beams == BeamRoles(on_beam=2, off_beams=(0, 1))
    assert rules_of(config, "0,1,2,3").beams == BeamRoles(on_beam=0, off_beams=(1, 2, 3))
    assert rules_of(Config(), None).beams == BeamRoles()
    for wrong in ("0", "", "0,", "a,b", "0,0", "0,-1", "1.5,2"):
        with pytest.raises(ConfigError, match="--beams: "):
            rules_of(config, wrong)


HEADER = make_header(nchans=8192, nfpc=8192)


def line(snr, channel, drift_hz_s=0.1):
    """Return an emitter with an SNR in each of seven beams."""
    return Emitter(frequency_mhz=HEADER.frequency(channel), drift_hz_s=drift_hz_s, width_hz=4.0, snr=tuple(snr))


SKY = [
    line([30.0, 9.0, 7.0, 0, 0, 0, 0], 2500),  # enters the ON beam and, fainter, its neighbors
    line([20.0] * 7, 4000, 0.0),  # in all beams
    line([0, 25.0, 0, 0, 0, 0, 0], 5000),  # in an OFF beam only
    line([7.0, 0, 0, 0, 0, 0, 0], 6000),  # too faint
]


def receive(*lines, rows=16, beams=range(7)):
    """Return what the beams of a receiver observe at the same time: noise, interference and `lines`."""
    scan = observe("ABCDEFG", *SKY, *lines, header=replace(HEADER, ntime=rows), start_s=[0.0] * 7)
    return [
        ArrayObservation(replace(scan[beam].header, ibeam=beam, nbeams=7), scan[beam].read(0, HEADER.nchans))
        for beam in beams
    ]


@pytest.mark.parametrize("drift_hz_s", [-1.7, 0.0, 0.11])
@pytest.mark.parametrize("beams", [range(7), (2, 5, 0), (0, 1)])
def test_a_signal_in_the_on_beam_and_in_no_other_is_the_only_candidate(drift_hz_s, beams):
    on = (list(beams).index(0),)
    signal = line([15.0, 0, 0, 0, 0, 0, 0], 1500, drift_hz_s)
    observations = receive(signal, beams=beams)
    (candidate,) = search_cadence(observations, make_detector(), SearchSettings(), on=on).candidates
    assert candidate.frequency_mhz == pytest.approx(HEADER.frequency(1500), abs=10e-6)
    assert candidate.drift_rate_hz_s == pytest.approx(drift_hz_s, abs=0.03)
    assert [snr > 9 for snr in candidate.snr] == [i in on for i in range(len(beams))]
    assert (candidate.probability, candidate.scored_by) == (None, "gates")


def test_the_beams_of_a_receiver_without_a_signal_give_no_candidate():
    assert search_cadence(receive(), make_detector(), SearchSettings(), on=(0,)).candidates == ()


def test_one_on_is_searched_only_if_its_offs_are_other_beams_at_the_same_time():
    one_beam = observe("ABB", header=HEADER)
    with pytest.raises(CadenceError, match="expected at least two ONs and one OFF, found 1 and 2"):
        search_cadence(one_beam, make_detector(), SearchSettings(), on=(0,))


@pytest.fixture
def receiver(tmp_path):
    """Return the files of two scans of a receiver with seven beams; the second has a signal in beam 0."""
    (folder := tmp_path / "night").mkdir()
    for number, lines in enumerate([(), (line([15.0, 0, 0, 0, 0, 0, 0], 1500),)]):
        for beam, scan in enumerate(receive(*lines)):
            header = replace(scan.header, tstart=HEADER.tstart + number * 341 / 86_400, nbits=32)
            write_observation(folder / f"{number}{beam}.h5", header, scan.read(0, HEADER.nchans))
    return folder


def test_search_takes_each_scan_of_the_named_beams_as_one_cadence(tmp_path, receiver, monkeypatch, capsys):
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setattr(searching, "detector_of", lambda *_: make_detector())
    found = tmp_path / "found"
    assert cli.main(["search", "--beams", "0,1,2,3,4,5,6", "--output", str(found), str(receiver)]) == 0
    report = json.loads((found / "run.json").read_text())
    assert [(run["pattern"], run["candidates"]) for run in report["cadences"]] == [("ABCDEFG", 0), ("ABCDEFG", 1)]
    assert report["cadence_rules"]["beams"] == {"on_beam": 0, "off_beams": [1, 2, 3, 4, 5, 6]}
    assert "HIP99427  ON 1  OFF 2 3 4 5 6 7" in capsys.readouterr().out
    assert len((found / "candidates.csv").read_text().splitlines()) == 2


def test_the_service_queues_and_searches_each_scan_of_the_configured_beams(tmp_path, receiver, store):
    config = Config(state_dir=tmp_path, beams={"on_beam": 0, "off_beams": [1, 2, 3, 4, 5, 6]})
    folder = Folder(receiver, store)
    folder.rules = config.cadence_rules
    assert folder.passes() == ["ready", "ready"]
    with store.read() as rows:
        ids = list(rows.execute(cadence.select().order_by(cadence.c.tstart)))
    records = [
        search_files(store.paths(row.id), row.pattern, lambda _: None, config, make_detector(), row.id) for row in ids
    ]
    assert [len(record.candidates) for record in records] == [0, 1]
    assert [scan["beam"] for scan in records[1].run["roles"]] == list(range(7))
    assert on_positions(ids[0].pattern) == (0,)
