"""Write a searched cadence in turboSETI's formats, in a folder of its own."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aetherscan.io import open_cadence
from aetherscan.io.outputs import make_folder, write_whole

EVENTS = "events_turboseti_f3.csv"
"""The third word between underscores is the level of filtering: `plot_event_pipeline` takes it from the name."""


def write_turboseti(
    folder: Path,
    paths: Sequence[Path],
    on: tuple[int, ...],
    candidates: Sequence[Any],
    search: Any,
    progress: Callable[[float], None],
) -> list[str]:
    """Write a `.dat` file for each scan, the table of events, and the lists `dat.lst` and `h5.lst`; return warnings.

    Args:
        folder: made if it is missing.
        paths: files of the cadence, in time order.
        on: positions of the ONs.
        candidates: that the search found in these files.
        search: settings of the search.
        progress: called with the searched fraction.

    Raises:
        ReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    from aetherscan.search.scan_hits import scan_hits
    from aetherscan.search.turboseti import dat_text, events_text

    settings = search.settings()
    with open_cadence(paths, search.polarization) as observations:
        headers = [observation.header for observation in observations]
        hits = scan_hits(observations, candidates, settings, on, progress)
    make_folder(folder)
    names, repeated = _dat_names(paths)
    for path, name, header, lines in zip(paths, names, headers, hits, strict=True):
        write_whole(folder / name, dat_text(header, lines, path.name, settings.max_drift_hz_s))
    files = [path.name for path in paths]
    write_whole(folder / EVENTS, events_text(headers, on, hits, files, settings.max_drift_hz_s))
    write_whole(folder / "dat.lst", "".join(f"{(folder / name).absolute()}\n" for name in names))
    write_whole(folder / "h5.lst", "".join(f"{path.absolute()}\n" for path in paths))
    return [
        *(f"{name}: {count} files of this name: turboSETI matches .dat and .h5 by name" for name, count in repeated),
        *(f"{path.name}: turboSETI reads .h5 only; convert it, and name it in h5.lst"
          for path in paths if path.suffix != ".h5"),
    ]  # fmt: skip


def _dat_names(paths: Sequence[Path]) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the name of the `.dat` file of each path, and the stems that several paths share."""
    counts, names = Counter[str](), []
    for path in paths:
        counts[path.stem] += 1
        names.append(f"{path.stem}{f'-{counts[path.stem]}' if counts[path.stem] > 1 else ''}.dat")
    return names, [(stem, count) for stem, count in counts.items() if count > 1]
