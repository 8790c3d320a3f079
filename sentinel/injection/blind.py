"""Blind injections: search one coarse channel of a live cadence again, with a tone added to the power as it is read.

The real search has been recorded by then, so no candidate, message or count can depend on the tone. Only the
`injection` table records the result. `sentinel.injection.canary` injects whole simulated cadences.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.header import MAD_TO_SIGMA, SECONDS_PER_DAY
from aetherscan.io import Observation, open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.interference import log_uniform
from sentinel.injection.tone import is_tone, tone_columns

TONE_POSITION = (0.1, 0.45)
"""Position of a blind tone within half a coarse channel: away from the filter's edges and from the DC spike."""
BLIND_SNR = (10.0, 100.0)
BLIND_WIDTH_HZ = (1.0, 20.0)
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


def search_blind(
    paths: Sequence[Path], on: tuple[int, ...], settings: SearchSettings, detector: Any, rng: np.random.Generator
) -> dict[str, Any]:
    """Search one coarse channel of a cadence with a random tone added; return the row for the `injection` table.

    Args:
        paths: the observations in time order.
        on: positions of the ONs, from 0.
        settings: of the search.
        detector: that scores the tracks.
        rng: draws the channel and the tone.
    """
    with open_cadence(paths, settings.polarization) as observations:
        headers = [observation.header for observation in observations]
        nchans = min(header.nchans for header in headers)
        width = min(settings.coarse_channels or headers[0].coarse_chans, nchans)
        first = width * int(rng.integers(nchans // width))
        starts_s = [(header.tstart - headers[0].tstart) * SECONDS_PER_DAY for header in headers]
        channel = first + width * (rng.uniform(*TONE_POSITION) + rng.choice([0.0, 0.5]))
        snr = log_uniform(rng, *BLIND_SNR)
        tone = Emitter(
            frequency_mhz=headers[0].frequency(channel),
            drift_hz_s=float(rng.uniform(-1, 1)) * settings.max_drift_hz_s,
            width_hz=log_uniform(rng, *BLIND_WIDTH_HZ),
            snr=tuple(snr if i in on else 0.0 for i in range(len(paths))),
        )
        parts = [
            InjectedObservation(observation, first, width, tone, i, starts_s[i])
            for i, observation in enumerate(observations)
        ]
        candidates = search_cadence(parts, detector, settings, on=on).candidates
        columns = tone_columns(tone, float(tone.track_mhz(np.array([starts_s[on[0]]]))[0]))
    matches = [row.probability or 0.0 for row in candidates if is_tone(columns, row.frequency_mhz, row.drift_rate_hz_s)]
    return {
        "kind": "blind",
        **columns,
        "recovered": bool(matches),
        "probability": max(matches, default=None),
        "release_sha256": detector.release.sha256,
    }
