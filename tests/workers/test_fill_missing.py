"""An observation that a partial cadence lacks is dated by the spacing of the others."""

import numpy as np
import pytest
from factories import GBT, make_header

from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import ArrayObservation
from sentinel.workers.search import fill_missing

STEP_S = 600.0
POWER = np.ones((GBT.ntime, GBT.nchans), np.float32)


def present(pattern, rest_s=0.0):
    """Return stand-ins for the observations of a pattern; the telescope rests before position 4."""
    starts_s = [i * STEP_S + (rest_s if i >= 4 else 0.0) for i in range(6)]
    return [
        ArrayObservation(make_header(source_name=letter, tstart=59103.0 + start_s / SECONDS_PER_DAY), POWER)
        for letter, start_s in zip(pattern, starts_s, strict=True)
        if letter != "."
    ]


@pytest.mark.parametrize("pattern", ["A.ACAD", "ABA.AD", "ABACA.", ".ACADA", "A.A.A."])
def test_missing_offs_are_dated_by_the_spacing_of_the_scans_that_exist(pattern):
    six = fill_missing(present(pattern), pattern)
    starts_s = [(observation.header.tstart - 59103.0) * SECONDS_PER_DAY for observation in six]
    assert starts_s == pytest.approx([i * STEP_S for i in range(6)], abs=1e-3)
    assert [observation.header.source_name == "absent" for observation in six] == [letter == "." for letter in pattern]


def test_a_rest_of_the_telescope_does_not_change_the_date_of_a_missing_off():
    six = fill_missing(present("ABACA.", rest_s=3600.0), "ABACA.")
    assert (six[5].header.tstart - six[4].header.tstart) * SECONDS_PER_DAY == pytest.approx(STEP_S, abs=1e-3)
