"""Observations whose power is an array in memory, for notebooks, for users of blimpy and for missing observations.

With blimpy::

    from blimpy import Waterfall

    cadence = [from_waterfall(Waterfall(path)) for path in paths]
    result = search_cadence(cadence, detector)
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import HeaderError
from aetherscan.header import ABSENT, Header
from aetherscan.io.fields import header_from, pol_type_of
from aetherscan.io.observation import Observation
from aetherscan.io.products import add_product, chosen_products

ANGLE_UNITS = {"src_raj": "hour", "src_dej": "deg"}
"""blimpy keeps coordinates as astropy angles; these attributes are their values in the units of a `Header`."""


class ArrayObservation(Observation):
    """A header and its total power, linear, in the header's channel order."""

    def __init__(self, header: Header, power: Float32[np.ndarray, "time freq"]) -> None:
        """Keep `power` without a copy.

        Raises:
            HeaderError: header and power differ in rows or channels.
        """
        if power.shape != (header.ntime, header.nchans):
            raise HeaderError(f"power: expected shape {(header.ntime, header.nchans)}, found {power.shape}")
        self.header, self._power = header, power

    @property
    def chunk_channels(self) -> int:
        """Nothing is decoded, so any block of channels reads equally fast."""
        return 1

    def _fill(self, power: Float32[np.ndarray, "time freq"], rows: slice, chans: slice) -> None:
        power[:] = self._power[rows, chans]


def absent_observation(header: Header) -> ArrayObservation:
    """Return an observation of NaN, named `ABSENT`, in place of one that a cadence lacks: nothing is found in it."""
    header = replace(header, source_name=ABSENT)
    return ArrayObservation(header, np.broadcast_to(np.float32(np.nan), (header.ntime, header.nchans)))


def from_waterfall(waterfall: Any, polarization: int | None = None) -> ArrayObservation:
    """Return a `blimpy.Waterfall`, loaded whole, as an observation; blimpy itself is not imported.

    Args:
        waterfall: with its power in memory.
        polarization: product to take, from 1; None: total power, as in `open_observation`.

    Raises:
        HeaderError: a header value is missing or impossible, not the whole file was loaded, there is no such product,
            or it is not known which products make total power.
        FormatError: the second product, which is to be added, is not power.
    """
    values = {
        name: getattr(value, ANGLE_UNITS[name], value) if name in ANGLE_UNITS else value
        for name, value in waterfall.header.items()
    }
    header, cube = header_from(values), np.asarray(waterfall.data)
    whole = (getattr(waterfall, "n_ints_in_file", len(cube)), header.nifs, header.nchans)
    if cube.shape != whole:  # blimpy leaves the header as it is when only a part is loaded
        raise HeaderError(f"(rows, nifs, nchans): expected the whole file loaded, {whole}, found {cube.shape}")
    first, *others = chosen_products(header.nifs, pol_type_of(values), polarization)
    power = cube[:, first].astype(np.float32)
    for product in others:
        add_product(power, cube[:, product].astype(np.float32), product)
    return ArrayObservation(replace(header, ntime=len(cube), nifs=1, nbits=32), power)
