"""Choose the backgrounds that signals are injected into, and load them in units of their noise.

A background is a piece of band in six observations. It is simulated, or cut from a cadence in files, or assembled from
stamps (Aetherscan calls them plates): windows of band in `.npy` files, each normalized alone and placed side by side.
At the borders of stamps an injected line continues, but the lines of the background end.

A stamp may hold bins of eight channels, as the first Aetherscan code stores them. The power of a bin is then divided
among eight channels as noise divides: independent gamma variates in proportion to their sum have a Dirichlet
distribution that does not depend on the sum. A line of the background becomes eight channels wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.cadence.grouping import find_cadences
from aetherscan.errors import CadenceError, FormatError, OptionsError
from aetherscan.io import Observation, open_cadence, open_observation
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.cutouts import WINDOW_LEVEL
from aetherscan.search.power import check_power, sample_power
from aetherscan.search.stamps import LEVELS, as_power, dead_line, fault_of, faults, open_stamps
from aetherscan.simulate.sky import Sky
from aetherscan.train.random_skies import COARSE, ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Split, Stream, generator

STAMP, STAMP_SUFFIX = 4096, ".npy"
"""Channels by which backgrounds are counted: those of a stamp. The files hold (stamps, 6, rows, channels)."""
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
    notes: tuple[str, ...] = ()  # lines about what is not used of files, and about their power

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
        file = open_stamps(Path(paths[0]), (settings.rows, settings.bins), LEVELS)
        rng = generator(self.seed, Stream.CHANNELS, self.split, number)
        powers = (into_channels(as_power(file[k]), stamp_width(settings), rng) for k in indices)
        stamps = [normalize_block(power, cadence, channel=STAMP_CHANNEL) for power in powers]
        joined = NormalizedBlock(
            sigmas=np.concatenate([stamp.sigmas for stamp in stamps], axis=-1),
            noise=np.median([stamp.noise for stamp in stamps], axis=0),
            weights=np.median([stamp.weights for stamp in stamps], axis=0),
            lengths=stamps[0].lengths,
        )
        return joined, cadence


def stamp_width(settings: ExampleSettings) -> int:
    """Return the number of channels of a stamp, a window of band."""
    return settings.bins << WINDOW_LEVEL


def into_channels(
    power: Float32[np.ndarray, "obs time bins"], width: int, rng: np.random.Generator
) -> Float32[np.ndarray, "obs time freq"]:
    """Divide the power of bins among their channels as noise divides; channels are returned as they are.

    The shape of the gamma distribution is that of the observation's own noise, (mean / scatter)^2.

    Args:
        power: of a stamp, which is not dead.
        width: channels of a stamp.
        rng: draws the channels.
    """
    binning = width // power.shape[-1]
    if binning == 1:
        return power
    steps = np.diff(power, axis=-1)
    scatter = 1.4826 * np.nanmedian(np.abs(steps), axis=(1, 2)) / 2**0.5
    shape = (np.nanmedian(power, axis=(1, 2)) / np.maximum(scatter, np.finfo(np.float32).tiny)) ** 2 / binning
    drawn = rng.standard_gamma(np.clip(shape, 1, 1e6)[:, None, None, None], (*power.shape, binning))
    channels = power[..., None] * (drawn / drawn.mean(axis=-1, keepdims=True))
    return channels.reshape(*power.shape[:2], width).astype(np.float32)


def _cut_band(paths: tuple[str, ...], first: int, settings: ExampleSettings) -> tuple[NormalizedBlock, Geometry]:
    with open_cadence(paths) as observations:
        power, cadence = _read_band(observations, first, settings)
    normalized = normalize_block(power, cadence, channel=first)
    headers = (replace(header, fch1=header.frequency(first), nchans=settings.chans) for header in cadence.headers)
    return normalized, replace(cadence, headers=tuple(headers))


def _read_band(
    observations: Sequence[Observation], first: int, settings: ExampleSettings
) -> tuple[Float32[np.ndarray, "obs time freq"], Geometry]:
    """Return the power of a background in files, and the geometry of its cadence."""
    cadence = geometry_of([replace(observation.header, ntime=settings.rows) for observation in observations])
    last, rows = first + settings.chans, (0, settings.rows)
    return np.stack([observation.read(first, last, rows=rows) for observation in observations]), cadence


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
        OptionsError: stamps of this width do not fill a background.
        FormatError: a file holds no stamps, or too few that are not dead.
        PowerError: the numbers of files are no linear power.
        CadenceError: the files form no cadence, or none with enough channels and rows.
    """
    count = max(1, stamps * STAMP // settings.chans)
    if not files:
        return tuple(
            Source(settings=settings, seed=seed, split=split, count=number)
            for split, number in zip(Split, (count, max(1, count // 8)), strict=True)
        )
    rng, width = generator(seed, Stream.BACKGROUND_ORDER), settings.chans // STAMP
    groups, notes = list[list[Part]](), list[str]()
    if stamped := str(files[0]).endswith(STAMP_SUFFIX):
        width = _stamps_of_a_background(settings)
        for file in files:
            usable, dead = _living_stamps(file, settings, run, runs)
            notes += [dead] if dead else []
            chosen = rng.permutation(usable)
            whole = chosen[: len(chosen) // width * width] if len(chosen) >= width else np.resize(chosen, width)
            groups.append([((str(file),), row.tolist()) for row in whole.reshape(-1, width)])
    else:
        for paths, chans in _cadences(files, settings):
            pieces = [k * settings.chans for k in _spread(chans // settings.chans, -(-run // width), runs)]
            usable, lines = _living_pieces(paths, pieces, settings)
            notes += lines
            groups.append([(paths, [int(first)]) for first in rng.permutation(usable)])
    if len(groups) == 1:
        last = max(1, len(groups[0]) // 8)
        groups = [groups[0][:-last], groups[0][-last:]]
    last = max(1, len(groups) // 8)
    splits = [[part for group in split for part in group] for split in (groups[:-last], groups[-last:])]
    if not splits[0]:
        if stamped:
            expected = f"at least {2 * width} stamps, as a background is {width} side by side and one more validates"
            raise FormatError(f"{files[0]}: expected {expected}, found {len(chosen)}")
        expected = f"at least two backgrounds of {settings.chans} channels, the second for validation"
        raise CadenceError(f"{files[0]}: expected {expected}, found {len(splits[1])}")
    orders = (rng.permutation(len(parts))[:count] for parts in splits)
    return tuple(
        Source(
            settings=settings,
            seed=seed,
            split=split,
            count=len(order),
            parts=tuple(parts[i] for i in order),
            notes=tuple(notes),
        )
        for split, parts, order in zip(Split, splits, orders, strict=True)
    )


def _stamps_of_a_background(settings: ExampleSettings) -> int:
    """Return how many stamps, side by side, are a background.

    Raises:
        OptionsError: none fit, or channels would be left over.
    """
    width = stamp_width(settings)
    if settings.chans % width:
        raise OptionsError(
            f"width_bin: expected a divisor of {settings.chans} for backgrounds of stamps, found {width}"
        )
    return settings.chans // width


def _living_stamps(file: Path, settings: ExampleSettings, run: int, runs: int) -> tuple[list[int], str]:
    """Return the indices of the stamps of a file that are used, and a line about those that are dead, if there are any.

    Raises:
        FormatError: the file holds no stamps, or only dead ones.
    """
    stamps = open_stamps(file, (settings.rows, settings.bins), LEVELS)
    chosen = _spread(len(stamps), run, runs)
    dead = faults(stamps, chosen)
    line = dead_line(file, dead, len(chosen)) if dead else ""
    if len(dead) == len(chosen):
        raise FormatError(f"{line}: expected positive power")
    return [index for index in chosen if index not in dead], line


def _living_pieces(paths: tuple[str, ...], firsts: list[int], settings: ExampleSettings) -> tuple[list[int], list[str]]:
    """Return the first channels of the pieces of a band that are used, and lines about its power.

    Raises:
        FormatError: no piece holds power.
        PowerError: an observation is a logarithm, as decibels are, or has negative values.
    """
    dead, lines = dict[int, str](), list[str]()
    with open_cadence(paths) as observations:
        for first in firsts:
            power, cadence = _read_band(observations, first, settings)
            if fault := fault_of(power):
                dead[first] = fault
            elif not lines:
                sampled = sample_power(power, normalize_block(power, cadence, channel=first).sigmas, cadence.lengths)
                lines = [f"{paths[0]}: {line}" for line in check_power(cadence.headers, [sampled])] or [""]
    lines = list(filter(None, lines))
    if dead:
        lines.append(dead_line(Path(paths[0]), dead, len(firsts), "pieces of band", "channel"))
    if len(dead) == len(firsts):
        raise FormatError(f"{lines[-1]}: expected positive power")
    return [first for first in firsts if first not in dead], lines


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
