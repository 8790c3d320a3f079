"""Header values that contradict each other or the telescope are named with what was expected and found."""

from dataclasses import replace

import h5py
import pytest
from factories import make_detector, make_header, write_observation
from rows import RUNNING, status_of
from watched import Folder, headers

from aetherscan.cadence.plausible import warnings_of
from aetherscan.errors import HeaderError
from aetherscan.io import verify_complete
from sentinel.config import Config
from sentinel.monitor import status
from sentinel.workers.search import search_files


def test_headers_of_a_real_cadence_give_no_warning():
    assert warnings_of(headers()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tsamp": 36.5}, "tsamp: expected HIP99427 to end in 341 s, before HIP1, found 16 rows of 36.5 s"),
        ({"ntime": 279}, "tsamp: expected HIP99427 to end in 341 s, before HIP1, found 279 rows of 18.2536 s"),
        ({"fch1": 8.4}, "fch1: expected 290 to 116000 MHz of GBT, found 8.3"),
        ({"fch1": 200_000.0}, "fch1: expected 290 to 116000 MHz of GBT, found"),
        ({"telescope_id": 64}, "fch1: expected 544 to 3500 MHz of MeerKAT, found"),
        ({"tsamp": 0.001}, "foff, tsamp: expected channel width times row length of 1 or more, found"),
        ({"coordinate_note": "coordinates not used"}, "scan 1: coordinates not used"),
        ({"storage_note": "nbits"}, "scan 1: nbits"),
    ],
)
def test_a_value_that_another_contradicts_is_a_warning(changes, message):
    assert warnings_of(headers(**changes))[0].startswith(message)


def test_an_unknown_telescope_may_observe_anywhere():
    assert warnings_of(headers(telescope_id=20_000, fch1=100.0)) == []


@pytest.mark.parametrize("fch1", [1.42, 1.42e9, 8.4e6, -1.0, float("nan")])
def test_frequencies_in_other_units_are_refused(fch1):
    with pytest.raises(HeaderError, match="fch1: expected a frequency in MHz, 5 to 2000000, found"):
        make_header(fch1=fch1)


@pytest.mark.parametrize("nbits", [8, 16, 4])
def test_another_number_of_bits_than_data_has_is_noted_and_data_is_believed(tmp_path, nbits):
    write_observation(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["data"].attrs["nbits"] = nbits
    note = verify_complete(tmp_path / "a.h5").storage_note
    assert note == f"nbits: expected 32 as data has (float32), found {nbits}: data is believed"


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"tsamp": 36.5}, "tsamp: expected HIP99427 to end in 341 s"),
        ({"telescope_id": 64}, "fch1: expected 544 to 3500 MHz of MeerKAT"),
        ({"foff": -2e-8}, "foff, tsamp: expected channel width times row length of 1 or more"),
    ],
)
@pytest.mark.parametrize("count", [5, 6])
def test_a_cadence_that_waits_has_the_warnings_and_status_shows_them(
    tmp_path, store, monkeypatch, changes, warning, count
):
    folder = Folder(tmp_path / "in", store)
    for i, header in enumerate(headers(**changes)[:count]):
        write_observation(folder.root / f"{i}.h5", header)
    assert folder.passes() == ["ready" if count == 6 else "forming"]
    (why,) = folder.whys()
    assert warning in why
    assert why.startswith(warning if count == 6 else "waiting for position 5")
    heading = "warnings:" if count == 6 else "waiting for:"
    text = status.lines(status_of(Config(state_dir=tmp_path), store, monkeypatch, RUNNING))
    assert warning in text[text.index(heading) + 1]


def test_simultaneous_beams_do_not_overlap_in_time():
    beams = [replace(header, ibeam=beam) for header in headers()[:1] for beam in range(7)]
    assert warnings_of(beams) == []


def test_the_store_records_the_warnings_of_a_searched_cadence(tmp_path):
    paths = [tmp_path / f"{i}.h5" for i in range(6)]
    for path, header in zip(paths, headers(), strict=True):
        write_observation(path, replace(header, tsamp=36.5))
    run = search_files(paths, "ABACAD", lambda _: None, Config(state_dir=tmp_path), make_detector(), 1).run
    assert len(run["warnings"]) == 5
