"""Write a simulated cadence with a tone, and recognize that tone among candidates.

The aetherscan imports are inside `write_sky`: the web program imports this module and must stay small in memory.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

MATCH_HZ, MATCH_HZ_S = 100.0, 0.1
"""A candidate within both of these of an injected tone counts as that tone."""
NCHANS = 2**17
TONE_SNR = 40.0
CLEAR_MHZ = 0.02
"""Smallest distance in frequency between the tone and any other simulated emitter."""


def tone_columns(tone: Any, frequency_mhz: float) -> dict[str, float]:
    """Return the columns of the `injection` table that describe an `Emitter`."""
    return {
        "frequency_mhz": frequency_mhz,
        "drift_rate_hz_s": tone.drift_hz_s,
        "width_hz": tone.width_hz,
        "snr": max(tone.snr),
    }


def write_sky(folder: Path, seed: int, suffix: str, target: str) -> tuple[tuple[Path, ...], Any]:
    """Write six simulated observations with one drifting tone in the ONs, among interference.

    Args:
        folder: where the files are written.
        seed: of the noise, the interference and the tone.
        suffix: `.fil` or `.h5`.
        target: source name of the ONs.

    Returns:
        The paths in time order, and the tone (an `Emitter`).
    """
    from aetherscan.header import UNIX_EPOCH_MJD, gbt_header
    from aetherscan.simulate.injection import Emitter
    from aetherscan.simulate.interference import zoo
    from aetherscan.simulate.sky import Sky, random_levels, write_cadence

    rng = np.random.default_rng(seed)
    tstart = UNIX_EPOCH_MJD + time.time() / 86_400 - 0.1
    telescope = time.time_ns() // 10**6 % 2**31
    header = replace(gbt_header(NCHANS, source_name=target), tstart=tstart, telescope_id=telescope)
    frequency_mhz = header.frequency(rng.uniform(0.2, 0.45) * NCHANS)
    snr = tuple(TONE_SNR if i % 2 == 0 else 0.0 for i in range(6))
    tone = Emitter(frequency_mhz=frequency_mhz, drift_hz_s=float(rng.uniform(0.2, 1.0)), width_hz=4.0, snr=snr)
    gains, bursts = random_levels(rng)
    # The tone has a clear band: it tests that the service works, not how well the detector separates signals.
    others = [emitter for emitter in zoo(rng, header) if abs(emitter.frequency_mhz - frequency_mhz) > CLEAR_MHZ]
    sky = Sky(header=header, emitters=(tone, *others), gains=gains, bursts=bursts)
    return write_cadence(folder, sky, seed, suffix=suffix), tone


def is_tone(tone: Any, frequency_mhz: float, drift_rate_hz_s: float) -> bool:
    """Return whether a candidate matches an injected tone in frequency and drift rate."""
    offset_hz = (frequency_mhz - tone["frequency_mhz"]) * 1e6
    return abs(offset_hz) <= MATCH_HZ and abs(drift_rate_hz_s - tone["drift_rate_hz_s"]) <= MATCH_HZ_S
