"""Choose the backgrounds that signals are injected into, and load them in units of their noise.

A background is a piece of band in six observations. It is simulated, or cut from a cadence in files, or assembled from
stamps (Aetherscan calls them plates): windows of band in `.npy` files, each normalized alone and placed side by side.
At the borders of stamps an injected line continues, but the lines of the background end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import CadenceError
from aetherscan.io import open_cadence, open_observation
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.stamps import open_stamps
from aetherscan.simulate.sky import Sky
from aetherscan.train.random_skies import COARSE, ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Split, Stream, generator

STAMP, STAMP_SUFFIX = 4096, ".npy"
"""Channels of a stamp; the files hold (stamps, 6, rows, channels)."""
STAMP_CHANNEL = COARSE // 4
"""Assumed first channel of a stamp in its coarse channel. It keeps the stamp away from the DC spike."""

Part = tuple[tuple[str, ...], list[int]]
"""Where a background is stored: a file and the indices of its stamps, or six files and a first channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The backgrounds of one split. Without parts they are simulated. Numbers from `count` on repeat the first."""

    settings: ExampleSettings
    seed: int
    split: Split
    count: int
    parts: tuple[Part, ...] = ()

    def normalized(self, number: int) -> tuple[NormalizedBlock, Geometry]:
        """Return a background in units of its noise, and the geometry of a cadence that starts at its first channel.

        Raises:
            ReadError: a file changed since it was chosen.
        """
        settings, number = self.settings, number % self.count
        cadence = geometry_of(Sky(header=replace(patch_header(settings), nchans=COARSE)).headers())
        if not self.parts:
            rng = generator(self.seed, Stream.BACKGROUND, self.split, number)
            _, others = draw_emitters(rng, replace(settings, tones=0))
            return normalize_block(draw_power(rng, others, settings), cadence, channel=STAMP_CHANNEL), cadence
        paths, indices = self.parts[number]
        if not paths[0].endswith(STAMP_SUFFIX):
            return _cut_band(paths, indices[0], settings)
        file = open_stamps(Path(paths[0]), (settings.rows, settings.bins))
        powers = (np.array(file[k], dtype=np.float32) for k in indices)
        stamps = [normalize_block(power, cadence, channel=STAMP_CHANNEL) for power in powers]
        joined = NormalizedBlock(
            sigmas=np.concatenate([stamp.sigmas for stamp in stamps], axis=-1),
            noise=np.median([stamp.noise for stamp in stamps], axis=0),
            weights=np.median([stamp.weights for stamp in stamps], axis=0),
            lengths=stamps[0].lengths,
        )
        return joined, cadence


def _cut_band(paths: tuple[str, ...], first: int, settings: ExampleSettings) -> tuple[NormalizedBlock, Geometry]:
    with open_cadence(paths) as observations:
        cadence = geometry_of([replace(observation.header, ntime=settings.rows) for observation in observations])
        last = first + settings.chans
        power = np.stack([observation.read(first, last, rows=(0, settings.rows)) for observation in observations])
    normalized = normalize_block(power, cadence, channel=first)
    headers = (replace(header, fch1=header.frequency(first), nchans=settings.chans) for header in cadence.headers)
    return normalized, replace(cadence, headers=tuple(headers))


def sources(
    files: Sequence[Path], settings: ExampleSettings, seed: int, stamps: int, run: int, runs: int
) -> tuple[Source, ...]:
    """Return the training and the validation backgrounds. With several files, a file serves only one of the two.

    Args:
        files: stamps, or observations that form cadences; backgrounds are simulated if there are none.
        settings: of the examples.
        seed: of simulated backgrounds, and of the order of real ones.
        stamps: most training backgrounds, counted in pieces of `STAMP` channels.
        run: consecutive pieces of a file that are used together.
        runs: most runs per file or cadence, spread evenly over it.

    Raises:
        FormatError: a file holds no stamps.
        CadenceError: the files form no cadence, or none with enough channels and rows.
    """
    count = max(1, stamps * STAMP // settings.chans)
    if not files:
        return tuple(
            Source(settings=settings, seed=seed, split=split, count=number)
            for split, number in zip(Split, (count, max(1, count // 8)), strict=True)
        )
    rng, width = generator(seed, Stream.BACKGROUND_ORDER), settings.chans // STAMP
    groups: list[list[Part]] = []
    if str(files[0]).endswith(STAMP_SUFFIX):
        for file in files:
            available = len(open_stamps(file, (settings.rows, settings.bins)))
            chosen = rng.permutation(_spread(available, run, runs))
            complete = np.resize(chosen, (-(-len(chosen) // width), width))
            groups.append([((str(file),), row.tolist()) for row in complete])
    else:
        for paths, chans in _cadences(files, settings):
            pieces = _spread(chans // settings.chans, -(-run // width), runs)
            groups.append([(paths, [int(piece) * settings.chans]) for piece in rng.permutation(pieces)])
    if len(groups) == 1:
        last = max(1, len(groups[0]) // 8)
        groups = [groups[0][:-last], groups[0][-last:]]
    last = max(1, len(groups) // 8)
    splits = [[part for group in split for part in group] for split in (groups[:-last], groups[-last:])]
    if not splits[0]:
        expected = "at least two backgrounds, the second for validation"
        raise CadenceError(f"{files[0]}: expected {expected}, found {len(splits[1])}")
    orders = (rng.permutation(len(parts))[:count] for parts in splits)
    return tuple(
        Source(settings=settings, seed=seed, split=split, count=len(order), parts=tuple(parts[i] for i in order))
        for split, parts, order in zip(Split, splits, orders, strict=True)
    )


def _spread(count: int, run: int, most: int) -> list[int]:
    """Return the indices of at most `most` runs of `run` consecutive items, spread evenly over `count` items."""
    runs = -(-count // run)
    chosen = np.unique(np.linspace(0, runs - 1, min(most, runs)).round().astype(int))
    return [k for index in chosen for k in range(index * run, min(count, (index + 1) * run))]


def _cadences(files: Sequence[Path], settings: ExampleSettings) -> list[tuple[tuple[str, ...], int]]:
    """Return the files and the number of channels of each ABACAD cadence with enough channels and rows."""
    headers = []
    for file in files:
        with open_observation(file) as observation:
            headers.append(observation.header)
    cadences = []
    for cadence in find_cadences(headers).cadences:
        geometry = geometry_of([headers[i] for i in cadence.members])
        if cadence.on == ON_POSITIONS and min(geometry.lengths) >= settings.rows and geometry.nchans >= settings.chans:
            cadences.append((tuple(str(files[i]) for i in cadence.members), geometry.nchans))
    if not cadences:
        expected = f"a cadence (ABACAD) with at least {settings.rows} rows and {settings.chans} channels"
        raise CadenceError(f"{files[0]} and {len(files) - 1} others: expected {expected}, found none")
    return cadences
