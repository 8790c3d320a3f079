"""Compare header values of a cadence with each other and with what its telescope receives."""

from collections.abc import Sequence
from itertools import pairwise

from aetherscan.cadence.telescopes import TELESCOPES
from aetherscan.header import SECONDS_PER_DAY, Header

OVERLAP_S = 1.0
"""Writers round tstart and tsamp."""


def warnings_of(headers: Sequence[Header]) -> list[str]:
    """Return a line for each value of a cadence's headers that another value contradicts.

    The search goes on: a telescope may have a new receiver, and only the drift rates depend on tsamp.

    Args:
        headers: of the scans, in time order.
    """
    found = []
    for a, b in pairwise(headers):
        step_s = (b.tstart - a.tstart) * SECONDS_PER_DAY
        if a.ibeam == b.ibeam and a.duration_s > step_s + OVERLAP_S:
            rows = f"{a.ntime} rows of {a.tsamp:g} s"
            found.append(
                f"tsamp: expected {a.source_name} to end in {step_s:.0f} s, before {b.source_name}, found {rows}"
            )
    for i, header in enumerate(headers, 1):
        low, high = header.band_mhz
        telescope = TELESCOPES.get(header.telescope_id)
        least, most = (telescope and telescope.receivers_mhz) or (low, high)
        if telescope and (low < least or high > most):
            found.append(f"fch1: expected {least} to {most} MHz of {telescope.name}, found {low:g} to {high:g} MHz")
        if (product := abs(header.foff) * 1e6 * header.tsamp) < 0.9:
            found.append(f"foff, tsamp: expected channel width times row length of 1 or more, found {product:.3g}")
        found += [f"scan {i}: {note}" for note in (header.coordinate_note, header.storage_note) if note]
    return list(dict.fromkeys(found))
