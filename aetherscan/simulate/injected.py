"""An observation with a tone added to its power as it is read."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from aetherscan.header import MAD_TO_SIGMA
from aetherscan.io import Observation
from aetherscan.simulate.injection import Emitter, add_emitter

NOISE_CHANNELS = 2048
"""Channels on each side of the tone that are used to measure the noise which its SNR refers to."""


class InjectedObservation(Observation):
    """A part of an observation's band with a tone added when it is read."""

    def __init__(
        self, observation: Observation, first: int, width: int, tone: Emitter, position: int, start_s: float
    ) -> None:
        """Measure the noise around the tone.

        Args:
            observation: the real observation.
            first: its first channel in this part.
            width: channels in this part.
            tone: the signal to add.
            position: of the observation in the cadence, 0 to 5.
            start_s: seconds from the start of the cadence to the start of this observation.
        """
        self._real, self._first, self._tone, self._position, self._start_s = observation, first, tone, position, start_s
        self.header = replace(observation.header, fch1=observation.header.frequency(first), nchans=width)
        middle = int(self.header.channel(float(tone.track_mhz(np.array([start_s]))[0])))
        low = min(max(middle - NOISE_CHANNELS, 0), max(width - 2 * NOISE_CHANNELS, 0))
        power = observation.read(first + low, first + min(low + 2 * NOISE_CHANNELS, width))
        level = np.nanmedian(power, axis=1, keepdims=True)  # NaN: channels that are masked
        self._noise = MAD_TO_SIGMA * np.nanmedian(np.abs(power - level), axis=1).astype(np.float64)

    @property
    def chunk_channels(self) -> int:
        """Channels that are decoded together."""
        return self._real.chunk_channels

    def _fill(self, power: Float32[np.ndarray, "time freq"], rows: slice, chans: slice) -> None:
        self._real.read(self._first + chans.start, self._first + chans.stop, power, (rows.start, rows.stop))
        # `add_emitter` gives the tone its SNR in the rows that it gets; that of the tone is in all rows.
        snr = np.array(self._tone.snr) * math.sqrt(len(power) / self.header.ntime)
        add_emitter(
            power,
            replace(self._tone, snr=tuple(snr)),
            position=self._position,
            start_s=self._start_s + rows.start * self.header.tsamp,
            noise=self._noise[rows],
            fch1=self.header.frequency(chans.start),
            foff=self.header.foff,
            tsamp=self.header.tsamp,
        )
