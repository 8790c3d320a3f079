"""A tone of ours in the power of a live cadence, by which it is known what would be found.

It is added as the files are read a second time: one coarse channel, after the real search has been recorded, so that no
row of it can depend on it, and no candidate, message or count ever speaks of it. Whole cadences of our own are in
`sentinel.canary`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform
from sentinel.injection.tone import Injected, columns, is_tone

CLEAR_OF_EDGES = (0.1, 0.45)
"""Where in either half of a coarse channel a blind tone lies: neither in the filter's flanks nor on the spike."""
BLIND_SNR = (10.0, 100.0)
BLIND_WIDTH_HZ = (1.0, 20.0)


def search_blind(
    paths: Sequence[Path], on: tuple[int, ...], settings: SearchSettings, detector: Any, rng: np.random.Generator
) -> dict[str, Any]:
    """Search one coarse channel of a cadence with a tone put in, and return the injection's columns."""
    with open_cadence(paths) as six:
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
