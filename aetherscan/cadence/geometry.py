"""The geometry of a cadence: which observations are ONs, and how their rows and channels line up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from aetherscan.errors import CadenceError
from aetherscan.header import ABSENT, SECONDS_PER_DAY, Header

ON_POSITIONS, OFF_POSITIONS = (0, 2, 4), (1, 3, 5)
"""Positions in a cadence whose target comes first (ABACAD), counted from 0."""
FEWEST_SCANS, MOST_SCANS = 3, 12
"""Scans of a cadence of one beam: two ONs and an OFF at least. Two ONs are needed to measure the drift precisely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Observations of one band in time order: ONs, and at least one OFF."""

    headers: tuple[Header, ...]
    on: tuple[int, ...]
    lengths: tuple[int, ...]  # rows of each observation
    middles: Float64[np.ndarray, " obs"]  # middle of each observation, in rows after the start of the first

    @property
    def rows(self) -> int:
        """Rows of the longest observation."""
        return max(self.lengths)

    @property
    def starts(self) -> Float64[np.ndarray, " obs"]:
        """Start of each observation, in rows after the start of the first."""
        return self.middles - np.array(self.lengths) / 2

    @property
    def end(self) -> float:
        """End of the last observation, in rows after the start of the first."""
        return float(self.middles[-1] + self.lengths[-1] / 2)

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
        """Number of channels that all observations have."""
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
    """Return the geometry of observations, in time order, whose ONs are at the positions `on`.

    The headers are given coarse channels of `coarse_channels` fine channels, unless it is None.

    Raises:
        CadenceError: too few or too many observations, ONs or OFFs, or observations that differ in their channels.
    """
    check_cadence(headers, on)
    first, lengths = headers[0], tuple(header.ntime for header in headers)
    middles = [
        (h.tstart - first.tstart) * SECONDS_PER_DAY / first.tsamp + rows / 2
        for h, rows in zip(headers, lengths, strict=True)
    ]
    if coarse_channels is not None:
        headers = [replace(header, nfpc=coarse_channels) for header in headers]
    return Geometry(headers=tuple(headers), on=on, lengths=lengths, middles=np.array(middles))


def check_cadence(headers: Sequence[Header], on: Sequence[int]) -> None:
    """Check that headers are those of ONs and OFFs, of the same channels (to within one), and in time order.

    Two beams may observe at the same time, one as ON and the other as OFF. One ON is then enough.

    Raises:
        CadenceError: they are not.
    """
    if len(headers) > MOST_SCANS:
        raise CadenceError(f"expected at most {MOST_SCANS} observations, found {len(headers)}")
    least = 1 if len({header.ibeam for header in headers}) > 1 else 2
    if not least <= len(on) < len(headers):
        ons = "one ON" if least == 1 else "two ONs"
        raise CadenceError(f"expected at least {ons} and one OFF, found {len(on)} and {len(headers) - len(on)}")
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
        before = headers[i - 1]
        other_beam = header.ibeam != before.ibeam and not {i, i - 1} <= set(on)
        if header.tstart < before.tstart or (header.tstart == before.tstart and not other_beam):
            raise CadenceError(
                f"{header.source_name}: expected a start after MJD {before.tstart}, found {header.tstart}"
            )


def coarse_middles(header: Header, start: int, stop: int) -> list[int]:
    """Return the middle channels of coarse channels that are, or have a neighbor, between `start` and `stop`.

    They are counted from `start`. A DC spike covers the middle channel and its two neighbors.
    """
    width = header.coarse_chans
    middles = range(start // width * width + width // 2, stop + 1, width)
    return [middle - start for middle in middles if middle >= start - 1]
