"""Backgrounds to inject into, searched once by the code that serves and kept ready to be shown.

A background is six observations of a piece of band in units of their noise, as the search has them. It is simulated,
or put together from plates (windows of `.npy` files, each equalized alone and laid side by side), or a piece of the
band of a cadence in files. What the search finds there is no signal: it is cut out as the service would show it. All
bins of every binning are kept as the bytes that they are shown as, beside the native channels, so that an example costs
a copy of what is untouched, and work only where something is injected.

A binned snippet begins on a whole bin of its binning. What is injected keeps its own place in it to a fraction of a
channel; it is the background that lies up to half a bin beside where it was.
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
from aetherscan.search.stamps import open_plates
from aetherscan.simulate.sky import Sky
from aetherscan.train.random_skies import COARSE, ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Split, Stream, generator

PLATE, PLATES = 4096, ".npy"
"""Channels of a plate; the seeds' files are (plates, 6, rows, channels)."""
QUIET_CHANNEL = COARSE // 4
"""Where in a coarse channel a plate is said to lie: away from its spike, which the plate need not have."""

Part = tuple[tuple[str, ...], list[int]]
"""What a background is made of: a file and its plates, or six files and a first channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where backgrounds come from: simulated where there are no parts; `count` of them before they come again."""

    settings: ExampleSettings
    seed: int
    split: Split
    count: int
    parts: tuple[Part, ...] = ()

    def equalized(self, number: int) -> tuple[NormalizedBlock, Geometry]:
        """Return a background in units of its noise, and a cadence that begins with its first channel.

        Raises:
            ReadError: a file is not what it was when it was chosen.
        """
        settings, number = self.settings, number % self.count
        cadence = geometry_of(Sky(header=replace(patch_header(settings), nchans=COARSE)).headers())
        if not self.parts:
            rng = generator(self.seed, Stream.BACKGROUND, self.split, number)
            _, others = draw_emitters(rng, replace(settings, tones=0))
            return normalize_block(draw_power(rng, others, settings), cadence, channel=QUIET_CHANNEL), cadence
        paths, where = self.parts[number]
        if not paths[0].endswith(PLATES):
            return _piece(paths, where[0], settings)
        held = open_plates(Path(paths[0]), (settings.rows, settings.bins))
        powers = (np.array(held[k], dtype=np.float32) for k in where)
        plates = [normalize_block(power, cadence, channel=QUIET_CHANNEL) for power in powers]
        beside = NormalizedBlock(
            sigmas=np.concatenate([plate.sigmas for plate in plates], axis=-1),
            noise=np.median([plate.noise for plate in plates], axis=0),
            weights=np.median([plate.weights for plate in plates], axis=0),
        )
        return beside, cadence


def _piece(paths: tuple[str, ...], first: int, settings: ExampleSettings) -> tuple[NormalizedBlock, Geometry]:
    with open_cadence(paths) as six:
        cadence = geometry_of([one.header for one in six])
        power = np.stack([one.read(first, first + settings.chans)[: settings.rows] for one in six])
    equalized = normalize_block(power, replace(cadence, rows=settings.rows), channel=first)
    headers = tuple(replace(one, fch1=one.frequency(first), nchans=settings.chans) for one in cadence.headers)
    return equalized, replace(cadence, headers=headers, rows=settings.rows)


def sources(
    files: Sequence[Path], settings: ExampleSettings, seed: int, plates: int, chunk: int, chunks: int
) -> tuple[Source, ...]:
    """Return where backgrounds to learn on come from, and others to validate on: whole files where there are several.

    Args:
        files: plates, or observations that make cadences; simulated where there are none.
        settings: of examples.
        seed: of simulated skies, and of the order of real ones.
        plates: most backgrounds of `PLATE` channels to use.
        chunk: of those, how many that lie together in a file are taken together.
        chunks: how many times, at most, from one file or cadence, evenly over it.

    Raises:
        FormatError: a file holds something else than plates.
        CadenceError: no cadence in the files, or none wide and long enough.
    """
    count = max(1, plates * PLATE // settings.chans)
    if not files:
        validated = max(1, count // 8)
        return tuple(
            Source(settings=settings, seed=seed, split=split, count=n)
            for split, n in zip(Split, (count, validated), strict=True)
        )
    rng, each = generator(seed, Stream.BACKGROUND_ORDER), settings.chans // PLATE
    groups: list[list[Part]] = []
    if str(files[0]).endswith(PLATES):
        for file in files:
            chosen = rng.permutation(_spread(len(open_plates(file, (settings.rows, settings.bins))), chunk, chunks))
            whole = np.resize(chosen, (-(-len(chosen) // each), each))
            groups.append([((str(file),), row.tolist()) for row in whole])
    else:
        for paths, width in _cadences(files, settings):
            firsts = _spread(width // settings.chans, -(-chunk // each), chunks)
            groups.append([(paths, [int(k) * settings.chans]) for k in rng.permutation(firsts)])
    if len(groups) == 1:
        last = max(1, len(groups[0]) // 8)
        groups = [groups[0][:-last], groups[0][-last:]]
    last = max(1, len(groups) // 8)
    seen, kept = ([part for group in some for part in group] for some in (groups[:-last], groups[-last:]))
    if not seen:
        raise CadenceError(f"{files[0]}: expected at least two backgrounds, one to validate on, found {len(kept)}")
    orders = (rng.permutation(len(parts))[:count] for parts in (seen, kept))
    return tuple(
        Source(settings=settings, seed=seed, split=split, count=len(order), parts=tuple(parts[i] for i in order))
        for split, parts, order in zip(Split, (seen, kept), orders, strict=True)
    )


def _spread(count: int, step: int, most: int) -> list[int]:
    """Return the places of at most so many runs of `step`, evenly over `count` of them."""
    runs = -(-count // step)
    chosen = np.unique(np.linspace(0, runs - 1, min(most, runs)).round().astype(int))
    return [k for run in chosen for k in range(run * step, min(count, (run + 1) * step))]


def _cadences(files: Sequence[Path], settings: ExampleSettings) -> list[tuple[tuple[str, ...], int]]:
    """Return the files of each cadence that is wide and long enough, and its channels."""
    headers = []
    for file in files:
        with open_observation(file) as one:
            headers.append(one.header)
    found = []
    for cadence in find_cadences(headers).cadences:
        six = geometry_of([headers[i] for i in cadence.members])
        if cadence.on == ON_POSITIONS and six.rows >= settings.rows and six.nchans >= settings.chans:
            found.append((tuple(str(files[i]) for i in cadence.members), six.nchans))
    if not found:
        expected = f"a cadence (ABACAD) of {settings.rows} rows and {settings.chans} channels or more"
        raise CadenceError(f"{files[0]} and {len(files) - 1} others: expected {expected}, found none")
    return found
