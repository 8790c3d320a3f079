"""Observations whose power is an array in memory, for notebooks, for users of blimpy and for missing observations.

With blimpy::

    from blimpy import Waterfall

    cadence = [from_waterfall(Waterfall(path)) for path in paths]
    result = search_cadence(cadence, detector)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import HeaderError
from aetherscan.header import ABSENT, SCAN_STEP_S, SECONDS_PER_DAY, UNIX_EPOCH_MJD, Header
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
    def power(self) -> Float32[np.ndarray, "time freq"]:
        """The array itself."""
        return self._power

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


def from_frame(frame: Any) -> ArrayObservation:
    """Return a `setigen.Frame` as an observation; setigen itself is not imported.

    A frame has a target name, times and frequencies, and no coordinates. Its power is in ascending channel order.

    Raises:
        HeaderError: a value is impossible.
    """
    power = np.asarray(frame.data, dtype=np.float32)
    header = Header(
        telescope_id=0, machine_id=0, source_name=str(frame.source_name), src_raj=0.0, src_dej=0.0,
        tstart=UNIX_EPOCH_MJD + float(frame.t_start) / SECONDS_PER_DAY, tsamp=float(frame.dt),
        fch1=float(frame.fs[0]) * 1e-6, foff=float(frame.df) * 1e-6, nchans=power.shape[1], nifs=1,
        ntime=power.shape[0], nbits=32,
    )  # fmt: skip
    return ArrayObservation(header, power)


def in_turn(observations: Sequence[ArrayObservation], step_s: float = SCAN_STEP_S) -> list[ArrayObservation]:
    """Return observations whose starts follow one another, if they do not: simulated ones often start at one time.

    Args:
        observations: in time order.
        step_s: seconds from one start to the next, at least the length of an observation.
    """
    headers = [observation.header for observation in observations]
    first, step_s = headers[0].tstart, max(step_s, *(header.duration_s for header in headers))
    gaps_s = np.diff([header.tstart for header in headers]) * SECONDS_PER_DAY
    if (gaps_s > 0.9 * headers[0].duration_s).all():
        return list(observations)
    starts = [replace(header, tstart=first + i * step_s / SECONDS_PER_DAY) for i, header in enumerate(headers)]
    return [ArrayObservation(start, seen.power) for start, seen in zip(starts, observations, strict=True)]


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
