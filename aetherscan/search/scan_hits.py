"""Search each scan of a cadence by itself, and list the lines in it, interference included.

The search of a cadence looks for lines in its ONs and keeps what is in no OFF. Programs that apply an ON/OFF rule of
their own, such as turboSETI's `find_event_pipeline`, need the lines of every scan instead.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import Observation
from aetherscan.io.binning import bin_rows
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.blocks import overlap_channels, read_blocks
from aetherscan.search.candidates import Candidate
from aetherscan.search.dedoppler import find_hits

MIN_SNR = 10.0
"""SNR in one scan from which a line is listed, as in Price et al. 2020 (arXiv:1906.07750). In fainter noise the lists
would be full of lines by chance, each of which clears the band around it of candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanHit:
    """A line in one scan."""

    channel: float  # of the file, at the start of the scan
    end_channel: float  # at its end
    drift_hz_s: float
    width_channels: float
    snr: float
    candidate: int | None = None  # index of the candidate that it belongs to

    @property
    def middle(self) -> float:
        """Channel at the middle of the scan."""
        return (self.channel + self.end_channel) / 2


def scan_hits(
    observations: Sequence[Observation],
    candidates: Sequence[Candidate],
    settings: SearchSettings,
    on: tuple[int, ...],
    progress: Callable[[float], None] = lambda _: None,
) -> list[list[ScanHit]]:
    """Return the lines of each scan, in the order of their channels: those from `MIN_SNR` on, and the candidates.

    In an ON the line of a candidate, as it was measured over the cadence, replaces the lines found at its place, and
    is listed whatever its SNR.

    Args:
        observations: open, in time order.
        candidates: of these observations.
        settings: how to search.
        on: positions of the ONs.
        progress: called with the fraction of the band that is done.

    Raises:
        ReadError: a file could not be read, or changed.
    """
    observations = bin_rows(observations)
    cadence = geometry_of([observation.header for observation in observations], on, settings.coarse_channels)
    max_drift = cadence.max_drift(settings.max_drift_hz_s)
    overlap = overlap_channels(cadence.headers, max_drift)
    found: list[list[ScanHit]] = [[] for _ in observations]
    with ThreadPoolExecutor(settings.threads) as pool:
        for batch in read_blocks(observations, overlap, read_channels=settings.block_channels):
            for raw in batch:
                block = raw.normalize(cadence, dc_spikes=settings.dc_spikes)
                lines = pool.map(partial(_block_hits, block, cadence, max_drift), range(len(observations)))
                found = [[*hits, *more] for hits, more in zip(found, lines, strict=True)]
                progress(raw.stop / cadence.nchans)
    return [
        sorted(_with_candidates(hits, candidates, cadence, i) if i in on else hits, key=lambda hit: hit.channel)
        for i, hits in enumerate(found)
    ]


def _block_hits(block: NormalizedBlock, cadence: Geometry, max_drift: float, position: int) -> list[ScanHit]:
    hits, _, _ = find_hits(
        block.sigmas, block.weights, np.array([position]), np.array(cadence.lengths), cadence.starts,
        max_drift=max_drift, min_snrs=(MIN_SNR, np.inf),
    )  # fmt: skip
    low, high = block.overlap[0], block.sigmas.shape[-1] - block.overlap[1]
    header, rows = cadence.headers[position], cadence.lengths[position]
    return [
        ScanHit(
            channel=float(hit["channel"] + block.first - hit["drift"] * rows / 2),
            end_channel=float(hit["channel"] + block.first + hit["drift"] * rows / 2),
            drift_hz_s=float(hit["drift"] * header.foff * 1e6 / header.tsamp),
            width_channels=float(hit["width"]),
            snr=float(hit["snr"]),
        )
        for hit in hits[(low <= hits["channel"]) & (hits["channel"] < high)]
    ]


def _with_candidates(
    hits: Sequence[ScanHit], candidates: Sequence[Candidate], cadence: Geometry, position: int
) -> list[ScanHit]:
    own = [candidate_hit(candidate, i, cadence, position) for i, candidate in enumerate(candidates)]
    return [*own, *(hit for hit in hits if not any(_same(hit, line) for line in own))]


def candidate_hit(candidate: Candidate, index: int, cadence: Geometry, position: int) -> ScanHit:
    """Return the line of a candidate in one scan, straight or curved, with the drift rate at the scan's middle.

    Args:
        candidate: of the cadence.
        index: of the candidate.
        cadence: its geometry.
        position: of the scan.
    """
    header, first = cadence.headers[position], cadence.headers[cadence.on[0]]
    start_s = (header.tstart - first.tstart) * SECONDS_PER_DAY
    drift, bend = candidate.drift_rate_hz_s, candidate.curvature_hz_s2

    def channel(at_s: float) -> float:
        return header.channel(candidate.frequency_mhz + (drift * at_s + bend / 2 * at_s**2) * 1e-6)

    return ScanHit(
        channel=channel(start_s),
        end_channel=channel(start_s + header.duration_s),
        drift_hz_s=drift + bend * (start_s + header.duration_s / 2),
        width_channels=candidate.bandwidth_hz / cadence.hz,
        snr=candidate.snr[position],
        candidate=index,
    )


def _same(hit: ScanHit, line: ScanHit) -> bool:
    """Return whether two lines of a scan are one: somewhere in it they are closer than their widths together."""
    reach = hit.width_channels + line.width_channels
    apart = (hit.channel - line.channel, hit.end_channel - line.end_channel)
    return bool(min(map(abs, apart)) <= reach or apart[0] * apart[1] < 0)
