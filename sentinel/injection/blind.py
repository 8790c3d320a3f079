"""Blind injections: search one coarse channel of a live cadence again, with a tone added to the power as it is read.

The real search has been recorded by then, so no candidate, message or count can depend on the tone. The `injection`
table records the result; the candidate that the search found may enter the queue of labels, from tables of its own
(`sentinel.store.injected`). `sentinel.injection.canary` injects whole simulated cadences.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import Observation, open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.candidates import Candidate
from aetherscan.search.pipeline import SearchResult, search_cadence
from aetherscan.simulate.injected import InjectedObservation
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform
from sentinel.injection.tone import is_tone, tone_columns

TONE_POSITION = (0.1, 0.45)
"""Position of a blind tone within half a coarse channel: away from the filter's edges and from the DC spike."""
BLIND_SNR = (10.0, 100.0)
BLIND_WIDTH_HZ = (1.0, 20.0)
Keep = Callable[[Sequence[Observation], SearchResult, Candidate], object]
"""Called with the parts of the observations, the result of their search, and the candidate that is the tone."""


def search_blind(
    paths: Sequence[Path],
    on: tuple[int, ...],
    settings: SearchSettings,
    detector: Any,
    rng: np.random.Generator,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Search one coarse channel of a cadence with a random tone added; return the row for the `injection` table.

    Args:
        paths: the observations in time order.
        on: positions of the ONs, from 0.
        settings: of the search.
        detector: that scores the tracks.
        rng: draws the channel and the tone.
        keep: called while the files are open, if the search found the tone.
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
        result = search_cadence(parts, detector, settings, on=on)
        columns = tone_columns(tone, float(tone.track_mhz(np.array([starts_s[on[0]]]))[0]))
        matches = [row for row in result.candidates if is_tone(columns, row.frequency_mhz, row.drift_rate_hz_s)]
        best = max(matches, key=lambda row: row.probability or 0.0, default=None)
        if best and keep:
            keep(parts, result, best)
    return {
        "kind": "blind",
        **columns,
        "recovered": best is not None,
        "probability": None if best is None else best.probability or 0.0,
        "release_sha256": detector.release.sha256,
    }
