"""TODO."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.header import UNIX_EPOCH_MJD
from aetherscan.io import Observation
from aetherscan.simulate.injection import Emitter, add_emitter

CLOSE_HZ, CLOSE_HZ_S = 100.0, 0.1
"""How near a candidate must lie to the tone to be the tone."""


def columns(tone: Any, frequency_mhz: float) -> dict[str, float]:
    """Return what an injection's row says of its tone, an `Emitter`."""
    widest = {"width_hz": tone.width_hz, "snr": max(tone.snr)}
    return {"frequency_mhz": frequency_mhz, "drift_rate_hz_s": tone.drift_hz_s, **widest}


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


NCHANS = 2**17
TONE_SNR = 40.0
CLEAR_MHZ = 0.02
"""No other emitter starts nearer to the tone than this."""


def write_sky(folder: Path, seed: int, suffix: str, name: str) -> tuple[tuple[Path, ...], Any]:
    """Write the six files of target `name`; return their paths in time order, and the tone."""
    from aetherscan.header import gbt_header
    from aetherscan.simulate.injection import Emitter
    from aetherscan.simulate.interference import zoo
    from aetherscan.simulate.sky import Sky, random_levels, write_cadence

    rng = np.random.default_rng(seed)
    start = UNIX_EPOCH_MJD + time.time() / 86_400 - 0.1
    telescope = time.time_ns() // 10**6 % 2**31
    header = replace(gbt_header(NCHANS, source_name=name), tstart=start, telescope_id=telescope)
    frequency_mhz = header.frequency(rng.uniform(0.2, 0.45) * NCHANS)
    snr = tuple(TONE_SNR if i % 2 == 0 else 0.0 for i in range(6))
    tone = Emitter(frequency_mhz=frequency_mhz, drift_hz_s=float(rng.uniform(0.2, 1.0)), width_hz=4.0, snr=snr)
    gains, bursts = random_levels(rng)
    # The demo shows that the path works; how the detector does in a crowd is not its question.
    others = [one for one in zoo(rng, header) if abs(one.frequency_mhz - frequency_mhz) > CLEAR_MHZ]
    sky = Sky(header=header, emitters=(tone, *others), gains=gains, bursts=bursts)
    return write_cadence(folder, sky, seed, suffix=suffix), tone


def is_tone(tone: Any, frequency_mhz: float, drift_rate_hz_s: float) -> bool:
    """Return whether what was found there is the tone that was put in."""
    off_hz = (frequency_mhz - tone["frequency_mhz"]) * 1e6
    return abs(off_hz) <= CLOSE_HZ and abs(drift_rate_hz_s - tone["drift_rate_hz_s"]) <= CLOSE_HZ_S
