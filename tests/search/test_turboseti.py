"""The lines of a cadence in turboSETI's formats: every scan by itself, and events that its programs read."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_candidate, make_detector, observe

from aetherscan.cadence.roles import printable
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.io import ArrayObservation
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.search.scan_hits import MIN_SNR, scan_hits
from aetherscan.search.turboseti import DAT_COLUMNS, EVENT_COLUMNS, dat_text, events_text
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands import search as searching
from sentinel.commands.turboseti import EVENTS, write_turboseti
from sentinel.config import Search

HEADER = gbt_header(8192)
SETTINGS = SearchSettings(threads=1)


def emitter(channel, drift=0.3, on=40.0, off=0.0, scans=6, bend=0.0):
    snr = tuple(off if i % 2 else on for i in range(scans))
    return Emitter(
        frequency_mhz=HEADER.frequency(channel), drift_hz_s=drift, width_hz=4.0, snr=snr, curvature_hz_s2=bend
    )


def read_dat(text):
    """Read a `.dat` file as `read_dat` of turbo_seti 2.3.2 does; return its header and its rows by column."""
    lines = text.splitlines()
    cells = [[cell.rpartition(":")[2].strip() for cell in lines[i].strip().split("\t")] for i in (1, 3, 4, 5)]
    head = dict(zip(("file", "source"), (cells[0][0], cells[1][0]), strict=True))
    head |= dict(zip(("mjd", "ra", "dec", "deltat", "deltaf", "max_drift", "length"), cells[2] + cells[3], strict=True))
    columns = re.split(r"\s+", lines[7].removeprefix("#").strip())
    return head, [dict(zip(columns, re.split(r"\s+", line.strip()), strict=True)) for line in lines[9:]]


def searched(observations, on=(0, 2, 4)):
    candidates = search_cadence(observations, make_detector(), SETTINGS, on=on).candidates
    return candidates, scan_hits(observations, candidates, SETTINGS, on)


def test_each_scan_lists_its_own_lines_and_an_off_has_no_line_of_a_candidate():
    candidates, hits = searched(observe("ABACAD", emitter(2000), emitter(6000, 0.0, off=40.0), header=HEADER))
    assert len(candidates) == 1
    for i, (lines, observation) in enumerate(zip(hits, observe("ABACAD", header=HEADER), strict=True)):
        head, rows = read_dat(dat_text(observation.header, lines, "a_000.h5", 4.0))
        assert tuple(rows[0]) == DAT_COLUMNS
        assert [round(float(row["Drift_Rate"]), 1) for row in rows] == ([0.0] if i % 2 else [0.3, 0.0])
        assert head["file"] == "a_000.h5"
        assert float(head["mjd"]) == pytest.approx(observation.header.tstart, abs=1e-9)
        assert (head["ra"], head["dec"]) == ("20h10m58.4400s", "77d14m09.9600s" if i % 2 == 0 else head["dec"])
        assert float(head["length"]) == pytest.approx(292.06, abs=0.01)
        assert float(head["deltaf"]) == pytest.approx(-2.793968)


def test_frequency_and_index_are_those_at_the_start_of_the_scan():
    candidates, hits = searched(observe("ABACAD", emitter(2000), header=HEADER))
    for i in (0, 2, 4):
        (line,) = [line for line in hits[i] if line.candidate == 0]
        expected_mhz = candidates[0].frequency_mhz + 0.3e-6 * i * SCAN_STEP_S
        header = replace(HEADER, tstart=HEADER.tstart + i * SCAN_STEP_S / 86_400)
        (row,) = read_dat(dat_text(header, [line], "a.h5", 4.0))[1]
        assert float(row["Uncorrected_Frequency"]) == pytest.approx(expected_mhz, abs=2e-5)
        assert HEADER.frequency(int(row["Index"])) == pytest.approx(expected_mhz, abs=2e-5)
        assert float(row["freq_end"]) < expected_mhz < float(row["freq_start"]) + 1e-5
        assert float(row["SNR"]) == pytest.approx(candidates[0].snr[i], abs=1e-5)


def test_interference_is_listed_at_the_start_of_each_scan_with_its_drift():
    observations = observe("ABACAD", emitter(6000, 0.8, off=40.0), header=HEADER)
    for i, lines in enumerate(scan_hits(observations, [], SETTINGS, (0, 2, 4))):
        (line,) = lines
        start_mhz = HEADER.frequency(6000) + 0.8e-6 * i * SCAN_STEP_S
        assert HEADER.frequency(line.channel) == pytest.approx(start_mhz, abs=2e-5)
        assert HEADER.frequency(line.end_channel) == pytest.approx(start_mhz + 0.8e-6 * HEADER.duration_s, abs=2e-5)
        assert line.drift_hz_s == pytest.approx(0.8, abs=0.08)
        assert line.snr > 25


def test_a_curved_track_has_the_drift_rate_of_each_scan():
    candidate = make_candidate(frequency_mhz=HEADER.frequency(4000), tstart_mjd=HEADER.tstart, curvature_hz_s2=-3e-4)
    quiet = observe("ABACAD", header=HEADER)
    drifts = [
        line.drift_hz_s
        for i, lines in enumerate(scan_hits(quiet, [candidate], SETTINGS, (0, 2, 4)))
        for line in lines
        if i % 2 == 0
    ]
    middles_s = np.array([0, 2, 4]) * SCAN_STEP_S + HEADER.duration_s / 2
    np.testing.assert_allclose(drifts, 0.3 - 3e-4 * middles_s, rtol=1e-6)


def test_a_faint_candidate_is_listed_in_the_ons_and_faint_noise_is_not():
    faint = make_candidate(frequency_mhz=HEADER.frequency(4000), snr=(6.0, 0, 6.0, 0, 6.0, 0))
    hits = scan_hits(observe("ABACAD", header=HEADER), [faint], SETTINGS, (0, 2, 4))
    assert [len(lines) for lines in hits] == [1, 0, 1, 0, 1, 0]
    assert hits[0][0].snr < MIN_SNR


@pytest.mark.parametrize(
    ("pattern", "on"), [("BACADA", (1, 3, 5)), ("ABA", (0, 2)), ("ABACADAEAFAG", (0, 2, 4, 6, 8, 10))]
)
def test_events_have_a_row_for_each_candidate_in_the_first_on_whatever_the_pattern(pattern, on):
    observations = observe(pattern, header=HEADER)
    headers = [observation.header for observation in observations]
    found = [make_candidate(len(pattern), frequency_mhz=HEADER.frequency(channel)) for channel in (3000, 5000)]
    hits = scan_hits(observations, found, SETTINGS, on)
    names = [f"scan_{i}.h5" for i in range(len(pattern))]
    first, second = csv.DictReader(events_text(headers, on, hits, names, 4.0).splitlines())
    assert tuple(first)[1:] == EVENT_COLUMNS
    assert [round(float(row["Freq"]), 6) for row in (first, second)] == [round(one.frequency_mhz, 6) for one in found]
    assert (first["FileID"], first["in_n_ons"]) == (f"scan_{on[0]}.h5", str(len(on) - 1))
    assert first["Hit_ID"] != second["Hit_ID"]


@pytest.mark.parametrize("name", ["a:b\tc", "<!channel>\n# Source:x", "=cmd(),1", "../../x", "\u202eabc", ""])
def test_a_hostile_name_changes_no_other_field(name):
    header = replace(HEADER, source_name=name, src_raj=0.0, src_dej=0.0)
    head, rows = read_dat(dat_text(header, [], "a.h5", 4.0))
    assert head["source"]
    assert printable(head["source"]) == head["source"]
    assert not set(":,/\t\n") & set(head["source"])
    assert (head["ra"], rows) == ("unknown", [])
    assert head["mjd"] == f"{header.tstart:.12f}"


def test_masked_power_and_scans_without_lines_give_files_without_rows():
    observations = observe("ABACAD", header=HEADER)
    power = observations[3].read(0, HEADER.nchans).copy()
    power[:, 1000:] = np.nan
    observations[3] = ArrayObservation(observations[3].header, power)
    assert scan_hits(observations, [], SETTINGS, (0, 2, 4)) == [[]] * 6


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder of turboSETI's files of a cadence with a tone and interference."""
    folder = tmp_path_factory.mktemp("turboseti")
    sky = Sky(header=HEADER, emitters=(emitter(2000), emitter(6000, 0.1, off=40.0)))
    write_cadence(folder, sky, 1)
    lines = []
    searching.search(
        sorted(folder.glob("*.h5")), folder / "found", detect=make_detector, search=Search(threads=1), table="dat",
        tell=lines.append,
    )  # fmt: skip
    assert f"  turboSETI's files: {folder / 'found' / 'cadence-1'}" in lines
    return folder / "found" / "cadence-1"


def test_a_search_writes_a_dat_for_each_file_lists_of_both_and_events(written):
    dats = (written / "dat.lst").read_text().split()
    files = (written / "h5.lst").read_text().split()
    assert [Path(dat).stem for dat in dats] == [Path(file).stem for file in files]
    assert all(Path(path).is_file() for path in (*dats, *files))
    assert len(dats) == 6
    (event,) = csv.DictReader((written / EVENTS).read_text().splitlines())
    (candidate,) = csv.DictReader((written.parent / "candidates.csv").read_text().splitlines())
    assert float(event["Freq"]) == pytest.approx(float(candidate["frequency_mhz"]), abs=1e-6)


def test_files_of_one_name_and_other_formats_are_pointed_out(tmp_path):
    header = gbt_header(2048)
    paths = []
    for i, path in enumerate(write_cadence(tmp_path, Sky(header=header), 1, suffix=".fil")):
        (tmp_path / str(i)).mkdir()
        paths.append(path.rename(tmp_path / str(i) / "same.fil"))
    warnings = write_turboseti(tmp_path / "out", paths, (0, 2, 4), [], Search(threads=1), lambda _: None)
    assert warnings[0] == "same: 6 files of this name: turboSETI matches .dat and .h5 by name"
    assert "turboSETI reads .h5 only" in warnings[1]
    assert len(list((tmp_path / "out").glob("*.dat"))) == 6


def test_the_programs_of_turboseti_find_and_draw_the_candidate(written):
    command = shutil.which("turboSETI")
    if not command:
        pytest.skip("turboSETI: expected the command turboSETI 2.3.2 on the PATH, found none")
    script = f"""
import matplotlib; matplotlib.use("agg")
from turbo_seti.find_event.find_event_pipeline import find_event_pipeline
from turbo_seti.find_event.plot_event_pipeline import plot_event_pipeline
where = {str(written)!r}
found = find_event_pipeline(where + "/dat.lst", h5_file_list_str=where + "/h5.lst", number_in_cadence=6, saving=False)
plot_event_pipeline(where + "/{EVENTS}", where + "/h5.lst", filter_spec="f3", plot_dir=where + "/plots/")
print("EVENTS", *(f"{{mhz:.6f}}" for mhz in found.Freq))
"""
    done = subprocess.run([Path(command).with_name("python"), "-c", script], capture_output=True, text=True, check=True)
    (event,) = csv.DictReader((written / EVENTS).read_text().splitlines())
    assert f"EVENTS {float(event['Freq']):.6f}" in done.stdout
    assert len(list((written / "plots").glob("*.png"))) == 1
