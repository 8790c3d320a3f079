"""Search, draw, embed and inject in a notebook: one function each.

A cadence is given as the paths of its files, as arrays of power, as `blimpy.Waterfall` objects loaded whole, as
`setigen.Frame` objects or a `setigen.Cadence`, or as observations of `aetherscan.io`::

    import aetherscan

    table = aetherscan.search(paths)
    table.to_pandas()
    aetherscan.waterfall(paths, table[0])

Files are grouped into cadences by their headers, as in `sentinel search`. Everything else is one cadence in time order,
ABACAD unless `on` says which are the ONs. This module loads nothing of training.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, overload
from weakref import finalize

import numpy as np
from jaxtyping import Float32, UInt8

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.cadence.grouping import find_cadences
from aetherscan.detector.detector import Detector, load_detector
from aetherscan.errors import CadenceError, OptionsError, ReleaseError
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, Header
from aetherscan.io import ArrayObservation, Observation, from_frame, from_waterfall, in_turn, open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.plotting.waterfall import Figure, draw_waterfall
from aetherscan.search.candidates import Candidate, candidate_table
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.search.pipeline import SearchResult, search_cadence
from aetherscan.search.stamps import as_power, fault_of, stamp_geometries, stamp_window
from aetherscan.simulate.injected import InjectedObservation
from aetherscan.simulate.injection import Emitter

HERE = Path(__file__).resolve().parents[1]
RELEASES = (HERE / "models" / "equinox", HERE / "sentinel" / "packaged" / "models" / "equinox")
"""The release of a checkout, and that of an installed package."""
UNITS = {
    "_mhz": "MHz", "_hz_s2": "Hz / s2", "_hz_s": "Hz / s", "_nhz": "nHz", "_hz": "Hz", "_arcmin": "arcmin",
    "_deg": "deg", "_mjd": "d",
}  # fmt: skip
"""Units of the columns of a table by the end of their names; the others have none."""
SHORT = ("target", "frequency_mhz", "drift_rate_hz_s", "bandwidth_hz", "joint_snr", "probability", "note")
"""Columns that a notebook shows."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CandidateTable(Sequence[Candidate]):
    """The candidates of a search, in order of frequency within each cadence.

    Attributes:
        candidates: with their measurements and scores; docs/candidates.md describes every column.
        snippets: the encoder's input for each candidate, 0 to 255; none if no forest applies.
        warnings: about the power.
        counts: hits and tracks that each stage took in or rejected.
    """

    candidates: tuple[Candidate, ...]
    snippets: UInt8[np.ndarray, "scored obs rows bins"]
    warnings: tuple[str, ...]
    counts: dict[str, int]

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.candidates)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        """Return a candidate, or several."""
        return self.candidates[index]

    def to_pandas(self) -> Any:
        """Return the table as a `pandas.DataFrame`; pandas must be installed."""
        import pandas as pd  # noqa: PLC0415  not needed to search

        columns, rows = candidate_table(self.candidates)
        return pd.DataFrame(rows, columns=columns)

    def to_astropy(self) -> Any:
        """Return the table as an `astropy.table.Table` with units, without columns of which no value is known."""
        from astropy.table import MaskedColumn, Table  # noqa: PLC0415  not needed to search

        names, rows = candidate_table(self.candidates)
        table = Table()
        for name in names:
            values = [row.get(name) for row in rows]
            known = [value for value in values if value is not None]
            if known or not rows:
                filled = [known[0] if value is None else value for value in values]
                missing = [value is None for value in values]
                unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), None)
                table[name] = MaskedColumn(filled, mask=missing, unit=unit)
                table[name].info.format = "%.6f" if name.endswith("_mhz") else None
        return table

    def __repr__(self) -> str:
        """Return one line for each candidate."""
        lines = [
            f"{row.frequency_mhz:.6f} MHz, {row.drift_rate_hz_s:+.3f} Hz/s, "
            + ("not scored" if row.probability is None else f"probability {row.probability:.2f}")
            for row in self.candidates
        ]
        return "\n".join([f"{len(self)} candidates", *lines])

    def _repr_html_(self) -> str:
        """Return the main columns as HTML, for a notebook."""
        return str(self.to_pandas()[list(SHORT)].to_html())


def search(
    cadence: Any,
    *,
    release: str | os.PathLike[str] | None = None,
    header: Header | None = None,
    on: tuple[int, ...] | None = None,
    progress: Callable[[float], None] = lambda _: None,
    **options: Any,
) -> CandidateTable:
    """Search a cadence, or every cadence among files, and return the candidates.

    Args:
        cadence: paths, arrays, `blimpy.Waterfall`, `setigen.Frame` or observations; see the module.
        release: folder of a release; None: the one that comes with this package.
        header: of the first observation, for arrays: its start, band and rows; the others follow 341 s apart.
        on: positions of the ONs in time order; None: as the headers of files say, otherwise (0, 2, 4).
        progress: called often with the fraction of a cadence that is done.
        **options: of `aetherscan.options.search.SearchSettings`, such as `threshold` or `max_drift_hz_s`.

    Raises:
        CadenceError: the observations do not make a cadence; for files, with the reason for each group.
        OptionsError: an option is unknown or out of range, or arrays have no header.
        ReadError: a file cannot be read, or the numbers are no power.
        ReleaseError: the release cannot be loaded.
    """
    if unknown := sorted(set(options) - {option.name for option in fields(SearchSettings)}):
        raise OptionsError(f"{', '.join(unknown)}: expected options of SearchSettings, found others")
    settings, detector, results = SearchSettings(**options), _detector(release), list[SearchResult]()
    with ExitStack() as stack:
        for observations, positions in _open(cadence, header, on, stack):
            results.append(search_cadence(observations, detector, settings, progress, positions))
    names = dict.fromkeys(name for result in results for name in result.counts)
    return CandidateTable(
        candidates=tuple(candidate for result in results for candidate in result.candidates),
        snippets=np.concatenate([result.snippets for result in results]),
        warnings=tuple(warning for result in results for warning in result.warnings),
        counts={name: sum(result.counts.get(name, 0) for result in results) for name in names},
    )


def waterfall(
    cadence: Any,
    candidate: Candidate,
    *,
    header: Header | None = None,
    on: tuple[int, ...] | None = None,
    track: bool = True,
) -> Figure:
    """Draw the observations around a candidate, one above the other, and return the figure.

    Args:
        cadence: as for `search`; among the cadences of files, that of the candidate is drawn.
        candidate: of a table.
        header: of the first observation, for arrays.
        on: positions of the ONs, as for `search`.
        track: whether to draw lines beside the candidate's track.

    Raises:
        CadenceError: the candidate is in none of the cadences.
    """
    with ExitStack() as stack:
        for observations, positions in _open(cadence, header, on, stack):
            first_on, (low, high) = observations[positions[0]].header, observations[0].header.band_mhz
            same_start = abs(first_on.tstart - candidate.tstart_mjd) * SECONDS_PER_DAY < 1
            if same_start and low <= candidate.frequency_mhz <= high:
                return draw_waterfall(observations, candidate, positions, track=track)
    raise CadenceError(f"{candidate.target}, {candidate.frequency_mhz:.6f} MHz: expected its cadence, found others")


def embed(
    what: CandidateTable | Float32[np.ndarray, "stamps obs rows chans"],
    *,
    release: str | os.PathLike[str] | None = None,
) -> Float32[np.ndarray, "batch obs latent"]:
    """Return the latents of candidates or of stamps: the mean of the encoder's posterior for each observation.

    Args:
        what: a table, or stamps (Aetherscan's plates) of power with 4,096 channels or 512 bins.
        release: folder of the release whose encoder is used; None: the one that comes with this package.

    Raises:
        OptionsError: stamps have another shape, or hold no power.
        ReleaseError: the release cannot be loaded.
    """
    detector = _detector(release)
    if isinstance(what, CandidateTable):
        return detector.encode_snippets(snippet.astype(np.float32) / UINT8_MAX for snippet in what.snippets).mean
    stamps, (rows, bins) = np.asarray(what), detector.release.snippet
    if stamps.ndim != 4 or stamps.shape[1:3] != (6, rows) or stamps.shape[3] not in {bins, 8 * bins}:
        expected = f"(n, 6, {rows}, {8 * bins}) or (n, 6, {rows}, {bins})"
        raise OptionsError(f"stamps: expected shape {expected}, found {stamps.shape}")
    power = [as_power(stamp) for stamp in stamps]
    if dead := [f"stamp {i} with {fault}" for i, stamp in enumerate(power) if (fault := fault_of(stamp))]:
        raise OptionsError(f"stamps: expected power in each, found {', '.join(dead)}")
    timing = stamp_geometries((rows, bins), stamps.shape[3])[0]
    return detector.encode_snippets(stamp_window(stamp, timing, (rows, bins)) for stamp in power).mean


def inject(
    cadence: Any,
    frequency_mhz: float,
    snr: float,
    *,
    drift_rate_hz_s: float = 0.0,
    width_hz: float = 4.0,
    header: Header | None = None,
    on: tuple[int, ...] | None = None,
) -> list[Observation]:
    """Return the observations of a cadence with a tone in the ONs, which is added as they are read.

    Args:
        cadence: as for `search`; files of one cadence. They stay open while the result is in use.
        frequency_mhz: of the tone at the start of the first observation.
        snr: of an ideal matched filter in each ON, from the noise around the tone.
        drift_rate_hz_s: of the tone, Hz/s.
        width_hz: full width at half maximum, Hz.
        header: of the first observation, for arrays.
        on: positions of the ONs, as for `search`.

    Raises:
        CadenceError: the files make no cadence, or several.
        OptionsError: the tone is outside the band.
    """
    with ExitStack() as stack:
        cadences = _open(cadence, header, on, stack)
        if len(cadences) != 1:
            raise CadenceError(f"expected the files of one cadence, found {len(cadences)}")
        observations, positions = cadences[0]
        low, high = observations[0].header.band_mhz
        if not low <= frequency_mhz <= high:
            raise OptionsError(f"frequency_mhz: expected {low:.6f} to {high:.6f}, found {frequency_mhz}")
        tone = Emitter(
            frequency_mhz=frequency_mhz, drift_hz_s=drift_rate_hz_s, width_hz=width_hz,
            snr=tuple(snr if i in positions else 0.0 for i in range(len(observations))),
        )  # fmt: skip
        first = observations[0].header.tstart
        starts_s = [(observation.header.tstart - first) * SECONDS_PER_DAY for observation in observations]
        injected = [
            InjectedObservation(observation, 0, observation.header.nchans, tone, i, starts_s[i])
            for i, observation in enumerate(observations)
        ]
        for reader, observation in zip(injected, observations, strict=True):
            finalize(reader, observation.close)  # when the reader is no longer in use
        stack.pop_all()
        return list(injected)


def _detector(release: str | os.PathLike[str] | None) -> Detector:
    if release is not None:
        return load_detector(Path(release))
    folder = next((folder for folder in RELEASES if folder.exists()), None)
    if folder is None:
        raise ReleaseError(f"{RELEASES[0]}: expected a release, found none: name a folder with `release`")
    return load_detector(folder)


Opened = list[tuple[list[Observation], tuple[int, ...]]]
"""Cadences: their observations, open and in time order, and the positions of the ONs."""


def _open(cadence: Any, header: Header | None, on: tuple[int, ...] | None, stack: ExitStack) -> Opened:
    """Open the cadences that a user gives in any form; the stack closes their files."""
    items = [cadence] if isinstance(cadence, str | os.PathLike) else list(cadence)
    if not items:
        raise CadenceError("cadence: expected observations, found none")
    if all(isinstance(item, str | os.PathLike) for item in items):
        opened: list[Observation] = [stack.enter_context(open_observation(path)) for path in items]
        return _grouped(opened) if on is None else [(opened, on)]
    return [(_in_memory(items, header), on or ON_POSITIONS)]


def _grouped(observations: Sequence[Observation]) -> Opened:
    """Return the cadences among the observations of files, by their headers."""
    grouping = find_cadences([observation.header for observation in observations])
    if not grouping.cadences:
        reasons = "; ".join(f"{group.target}: {group.reason}" for group in grouping.ungrouped)
        raise CadenceError(f"expected the files of a cadence, found none: {reasons}")
    return [([observations[i] for i in cadence.members], cadence.on) for cadence in grouping.cadences]


def _in_memory(items: Sequence[Any], header: Header | None) -> list[Observation]:
    """Return observations of arrays, frames, waterfalls or observations."""
    if all(isinstance(item, np.ndarray) for item in items):
        if header is None:
            raise OptionsError("header: expected the header of the first observation with arrays, found none")
        starts = [header.tstart + i * max(SCAN_STEP_S, header.duration_s) / SECONDS_PER_DAY for i in range(len(items))]
        return [
            ArrayObservation(replace(header, tstart=start), as_power(item))
            for start, item in zip(starts, items, strict=True)
        ]
    if all(hasattr(item, "fs") and hasattr(item, "t_start") for item in items):
        return list(in_turn([from_frame(frame) for frame in items]))
    if all(isinstance(item, Observation) for item in items):
        return list(items)
    if all(hasattr(item, "header") and hasattr(item, "data") for item in items):
        return [from_waterfall(item) for item in items]
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise CadenceError(f"cadence: expected paths, arrays, Waterfall, Frame or Observation, all alike, found {kinds}")
