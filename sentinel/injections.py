"""A tone of ours in the power of a live cadence, by which it is known what would be found.

It is added as the files are read a second time: one coarse channel, after the real search has been recorded, so that no
row of it can depend on it, and no candidate, message or count ever speaks of it. Whole cadences of our own are in
`sentinel.canary`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.inject import Emitter, add_emitter
from aetherscan.io import Observation, open_observation
from aetherscan.observation import SECONDS_PER_DAY
from aetherscan.search import SearchSettings, search_cadence
from aetherscan.simulate import log_uniform
from sentinel.canary import columns
from sentinel.demo import is_tone

CLEAR_OF_EDGES = (0.1, 0.45)
"""Where in either half of a coarse channel a blind tone lies: neither in the filter's flanks nor on the spike."""
BLIND_SNR = (10.0, 100.0)
BLIND_WIDTH_HZ = (1.0, 20.0)
NOISE_CHANNELS = 2048
"""To either side of a tone, in which the noise that its SNR counts in is measured."""


class Injected(Observation):
    """A part of an observation's band, read as it is with a tone added."""

    def __init__(
        self, observation: Observation, first: int, width: int, tone: Emitter, position: int, start_s: float
    ) -> None:
        self._real, self._first, self._tone, self._position, self._start_s = observation, first, tone, position, start_s
        self.header = replace(observation.header, fch1=observation.header.frequency(first), nchans=width)
        middle = int(self.header.channel(float(tone.track_mhz(np.array([start_s]))[0])))
        low = min(max(middle - NOISE_CHANNELS, 0), max(width - 2 * NOISE_CHANNELS, 0))
        power = observation.read(first + low, first + min(low + 2 * NOISE_CHANNELS, width))
        level = np.median(power, axis=1, keepdims=True)
        self._noise = 1.4826 * np.median(np.abs(power - level), axis=1).astype(np.float64)

    @property
    def chunk_channels(self) -> int:
        """Channels that are decoded together."""
        return self._real.chunk_channels

    def read(
        self, start: int, stop: int, out: Float32[np.ndarray, "time freq"] | None = None
    ) -> Float32[np.ndarray, "time freq"]:
        """Read channels of the part, the tone among them."""
        power = self._real.read(self._first + start, self._first + stop, out)
        at: dict[str, Any] = {
            "fch1": self.header.frequency(start),
            "foff": self.header.foff,
            "tsamp": self.header.tsamp,
        }
        add_emitter(power, self._tone, position=self._position, start_s=self._start_s, noise=self._noise, **at)
        return power


def search_blind(
    paths: Sequence[Path], on: tuple[int, ...], settings: SearchSettings, detector: Any, rng: np.random.Generator
) -> dict[str, Any]:
    """Search one coarse channel of a cadence with a tone put in, and return the injection's columns."""
    with ExitStack() as opened:
        six = [opened.enter_context(open_observation(path)) for path in paths]
        headers = [one.header for one in six]
        nchans = min(header.nchans for header in headers)
        width = min(headers[0].coarse_chans, nchans)
        first = width * int(rng.integers(nchans // width))
        starts_s = [(header.tstart - headers[0].tstart) * SECONDS_PER_DAY for header in headers]
        channel = first + width * (rng.uniform(*CLEAR_OF_EDGES) + rng.choice([0.0, 0.5]))
        snr = log_uniform(rng, *BLIND_SNR)
        tone = Emitter(
            frequency_mhz=headers[0].frequency(channel),
            drift_hz_s=float(rng.uniform(-1, 1)) * settings.max_drift_hz_s,
            width_hz=log_uniform(rng, *BLIND_WIDTH_HZ),
            snr=tuple(snr if i in on else 0.0 for i in range(6)),
        )
        parts = [Injected(one, first, width, tone, i, starts_s[i]) for i, one in enumerate(six)]
        result = search_cadence(parts, detector, settings, on=on)
        at_on = float(tone.track_mhz(np.array([starts_s[on[0]]]))[0])
        row = columns(tone, at_on)
    back = [one.probability for one in result.candidates if is_tone(row, one.frequency_mhz, one.drift_rate_hz_s)]
    ended = {"recovered": bool(back), "probability": max(back, default=None), "release_sha256": detector.release.sha256}
    return {"kind": "blind", **row, **ended}
