"""The geometry of a cadence: which observations are ONs, and how rows and channels of the six line up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from aetherscan.errors import CadenceError
from aetherscan.header import ABSENT, SECONDS_PER_DAY, Header

ON_POSITIONS, OFF_POSITIONS = (0, 2, 4), (1, 3, 5)
"""Positions in a cadence whose target comes first (ABACAD), counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Six observations of one band in time order, three of them ONs."""

    headers: tuple[Header, ...]
    on: tuple[int, ...]
    rows: int  # that all six have
    middles: Float64[np.ndarray, " obs"]  # middle of each observation, in rows after the start of the first

    @property
    def hz(self) -> float:
        """Width of a channel, in Hz."""
        return abs(self.headers[0].foff * 1e6)

    @property
    def off(self) -> tuple[int, ...]:
        """Positions of the OFFs."""
        return tuple(i for i in range(len(self.headers)) if i not in self.on)

    @property
    def absent(self) -> tuple[int, ...]:
        """Positions of the OFFs that the cadence lacks."""
        return tuple(i for i in self.off if self.headers[i].source_name == ABSENT)

    @property
    def order(self) -> list[int]:
        """Positions in the order that the encoder expects: ON, OFF, ON, OFF, ON, OFF."""
        return [position for pair in zip(self.on, self.off, strict=True) for position in pair]

    @property
    def nchans(self) -> int:
        """Number of channels that all six have."""
        return min(header.nchans for header in self.headers)

    def mhz(self, channel: Any) -> Any:
        """Return the frequency, in MHz, of channels of the first observation."""
        return self.headers[0].fch1 + channel * self.headers[0].foff

    def max_drift(self, hz_s: float) -> float:
        """Convert a drift rate from Hz/s to channels per row."""
        return hz_s * self.headers[0].tsamp / self.hz


def geometry_of(
    headers: Sequence[Header], on: tuple[int, ...] = ON_POSITIONS, coarse_channels: int | None = None
) -> Geometry:
    """Return the geometry of six observations, in time order, whose ONs are at the positions `on`.

    The headers are given coarse channels of `coarse_channels` fine channels, unless it is None.

    Raises:
        CadenceError: the headers are not six, or differ in their channels.
    """
    check_cadence(headers)
    first, rows = headers[0], min(header.ntime for header in headers)
    middles = [(h.tstart - first.tstart) * SECONDS_PER_DAY / first.tsamp + rows / 2 for h in headers]
    if coarse_channels is not None:
        headers = [replace(header, nfpc=coarse_channels) for header in headers]
    return Geometry(headers=tuple(headers), on=on, rows=rows, middles=np.array(middles))


def check_cadence(headers: Sequence[Header]) -> None:
    """Check that the headers are six, of the same channels (to within one), and in time order.

    Raises:
        CadenceError: they are not.
    """
    if len(headers) != 6:
        raise CadenceError(f"expected six observations, found {len(headers)}")
    first = headers[0]
    for i, header in enumerate(headers[1:], 1):
        same = (
            abs(header.nchans - first.nchans) <= 1
            and abs(header.foff - first.foff) < abs(first.foff) * 1e-6
            and abs(header.fch1 - first.fch1) <= abs(first.foff)
        )
        if not same:
            band = "{0.nchans} channels from {0.fch1} MHz in steps of {0.foff}"
            raise CadenceError(f"{header.source_name}: expected {band.format(first)}, found {band.format(header)}")
        before = headers[i - 1].tstart
        if header.tstart <= before:
            raise CadenceError(f"{header.source_name}: expected a start after MJD {before}, found {header.tstart}")


def coarse_middles(header: Header, start: int, stop: int) -> list[int]:
    """Return the middle channels of coarse channels that are, or have a neighbor, between `start` and `stop`.

    They are counted from `start`. A DC spike covers the middle channel and its two neighbors.
    """
    width = header.coarse_chans
    middles = range(start // width * width + width // 2, stop + 1, width)
    return [middle - start for middle in middles if middle >= start - 1]
