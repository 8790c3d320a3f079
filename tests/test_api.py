"""One function each searches, draws, embeds and injects, whatever form a cadence has in a notebook."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aetherscan
from aetherscan import api
from aetherscan.errors import CadenceError, OptionsError
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.io import open_observation
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence

ROOT = Path(__file__).parents[1]
HEADER = gbt_header(2**15)
TONE = Emitter(frequency_mhz=HEADER.frequency(9000), drift_hz_s=0.4, width_hz=4.0, snr=(40.0, 0.0) * 3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The files of a cadence with a tone in the ONs."""
    return write_cadence(tmp_path_factory.mktemp("sky"), Sky(header=HEADER, emitters=(TONE,)), 3)


@pytest.fixture(scope="module")
def table(paths):
    return aetherscan.search(paths)


@pytest.fixture(scope="module")
def power(paths):
    """The power of each observation, and the header of the first."""
    arrays = []
    for path in paths:
        with open_observation(path) as observation:
            arrays.append(observation.read(0, HEADER.nchans))
            headers = observation.header
    return arrays, replace(headers, tstart=HEADER.tstart)


def is_the_tone(candidate):
    return (candidate.frequency_mhz, candidate.drift_rate_hz_s) == (
        pytest.approx(TONE.frequency_mhz, abs=5e-6), pytest.approx(0.4, abs=0.02),
    )  # fmt: skip


def test_files_are_searched_and_the_tone_is_found(table):
    assert len(table) == 1
    assert is_the_tone(table[0])
    assert table[0].probability > 0.9
    assert table.counts["candidates"] == 1


def test_arrays_give_the_same_candidate_as_their_files(power, table):
    arrays, header = power
    found = aetherscan.search(np.stack(arrays), header=header)
    assert len(found) == 1
    assert found[0].snr == pytest.approx(table[0].snr, rel=1e-3, abs=1e-3)
    with pytest.raises(OptionsError, match="header: expected the header of the first observation with arrays"):
        aetherscan.search(arrays)


def test_waterfalls_of_blimpy_give_the_same_candidate(paths, table):
    blimpy = pytest.importorskip("blimpy")
    found = aetherscan.search([blimpy.Waterfall(str(path)) for path in paths])
    assert [candidate.frequency_mhz for candidate in found] == [candidate.frequency_mhz for candidate in table]


@pytest.mark.parametrize("at_once", [True, False])
def test_frames_of_setigen_are_searched_in_turn(power, at_once):
    setigen = pytest.importorskip("setigen")
    arrays, header = power
    frames = []
    for position, array in enumerate(arrays):
        frame = setigen.Frame.from_data(
            df=abs(header.foff) * 1e6, dt=header.tsamp, fch1=header.fch1 * 1e6, ascending=False, data=array[:, ::-1]
        )
        frame.t_start += 0 if at_once else position * SCAN_STEP_S
        frames.append(frame)
    found = aetherscan.search(frames)
    assert len(found) == 1
    assert is_the_tone(found[0])


def test_a_table_converts_to_pandas_and_to_astropy_with_units(table):
    frame, astropy = table.to_pandas(), table.to_astropy()
    assert frame.frequency_mhz[0] == astropy["frequency_mhz"][0] == table[0].frequency_mhz
    assert {str(astropy[name].unit) for name in ("frequency_mhz", "drift_rate_hz_s")} == {"MHz", "Hz / s"}
    assert frame.snr_4[0] == table[0].snr[4]
    assert f"{table[0].frequency_mhz:.3f}"[:6] in table._repr_html_()
    assert repr(table).splitlines()[0] == "1 candidates"
    assert repr(table).splitlines()[1].startswith(f"{table[0].frequency_mhz:.6f} MHz, +0.4")
    nothing = replace(table, candidates=())
    assert len(nothing.to_pandas()) == len(nothing.to_astropy()) == 0


def test_a_figure_has_a_panel_for_each_observation(paths, table):
    figure = aetherscan.waterfall(paths, table[0])
    assert len([axes for axes in figure.axes if axes.images]) == 6
    with pytest.raises(CadenceError, match="expected its cadence, found others"):
        aetherscan.waterfall(paths, replace(table[0], frequency_mhz=1400.0))


def test_candidates_and_stamps_have_latents(table, power):
    assert aetherscan.embed(table).shape == (1, 6, 8)
    stamps = np.stack(power[0])[None, :, :, 8000 : 8000 + 4096]
    latents = aetherscan.embed(stamps)
    bins = aetherscan.embed(stamps.reshape(1, 6, 16, 512, 8).mean(axis=-1))
    assert latents.shape == (1, 6, 8)
    np.testing.assert_allclose(latents, bins, atol=0.5)
    with pytest.raises(OptionsError, match=r"stamps: expected shape \(n, 6, 16, 4096\) or"):
        aetherscan.embed(stamps[..., :100])
    with pytest.raises(OptionsError, match="stamps: expected power in each, found stamp 0 with zeros"):
        aetherscan.embed(np.zeros_like(stamps))


def test_an_injected_tone_is_found_beside_the_other(paths):
    injected = aetherscan.inject(paths, HEADER.frequency(20_000), 30.0, drift_rate_hz_s=-0.5)
    found = aetherscan.search(injected)
    new = [candidate for candidate in found if not is_the_tone(candidate)]
    assert len(new) == len(found) - 1 == 1
    assert new[0].frequency_mhz == pytest.approx(HEADER.frequency(20_000), abs=5e-6)
    assert np.mean(new[0].snr[::2]) == pytest.approx(30, rel=0.15)
    with pytest.raises(OptionsError, match="frequency_mhz: expected "):
        aetherscan.inject(paths, 1.0, 30.0)


def test_what_is_no_cadence_is_refused_with_the_reason(paths):
    with pytest.raises(CadenceError, match=r"expected the files of a cadence, found none: HIP99427: "):
        aetherscan.search(paths[:2])
    with pytest.raises(CadenceError, match="all alike, found int, str"):
        aetherscan.search([1, "a.h5"])
    with pytest.raises(CadenceError, match="expected observations, found none"):
        aetherscan.search([])
    with pytest.raises(OptionsError, match="thresold: expected options of SearchSettings"):
        aetherscan.search(paths, thresold=0.5)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = aetherscan.serach
    assert aetherscan.CandidateTable is api.CandidateTable


def test_the_package_is_imported_without_numba_matplotlib_or_keras():
    code = "import aetherscan, sys; print(sorted({'numba', 'matplotlib', 'keras', 'numpy'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
