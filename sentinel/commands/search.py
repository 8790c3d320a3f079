"""One search without the service: files, or a catalogue that lists them, to a table of candidates and what it cost."""

import json
import math
import platform
import re
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from aetherscan.cadence.explicit import check_pattern, explicit_cadence
from aetherscan.cadence.grouping import find_cadences
from aetherscan.cadence.plausible import warnings_of
from aetherscan.cadence.roles import role_lines, roles_of
from aetherscan.errors import CadenceError, OptionsError, ReadError
from aetherscan.header import Header
from aetherscan.io import open_cadence, verify_complete
from aetherscan.io.outputs import check_writable, make_folder, write_whole
from aetherscan.options.cadence import BeamRoles, CadenceRules
from aetherscan.options.train import find_files
from sentinel.commands.catalogue import StatedCadence, stated_cadences
from sentinel.commands.listing import listed
from sentinel.config import Config, Search, changed, train_settings
from sentinel.errors import ConfigError

PICKLES = (".joblib", ".pkl", ".pickle")
"""Suffixes of forests that are pickles, as Aetherscan writes them."""
PACKAGES = ("numpy", "numba", "onnxruntime", "h5py", "hdf5plugin")


def run(config: Config, options: Namespace, active_release: Callable[[Config], Path]) -> int:
    """Search, score or explain as the options of the command line say; return the exit status.

    Args:
        config: of the service.
        options: of the command line.
        active_release: returns the folder of the release that is used where the options name none.

    Raises:
        ConfigError: options contradict each other.
        OptionsError: a named file is missing.
    """
    _check_options(options)
    overruled = ("mode", "threshold", "threads", "dc_spikes", "polarization", "coarse_channels")
    settings = changed(config.search, {name: getattr(options, name) for name in overruled})
    names = ("data_path", "model_path", "output_path", "save_tag")
    paths = train_settings(config, {name: getattr(options, name) for name in names})
    encoder, forest, card = (
        find_files(paths.model_path, "", [name])[0] if name else None
        for name in (options.encoder_path, options.rf_path, options.config_path)
    )
    release = options.release or (card.parent if card else active_release(config))
    output = options.output
    if output is None or options.output_path or options.save_tag:
        output = paths.output_path / (paths.tag())
    detect = partial(detector_of, release, settings, encoder, forest)
    if options.test_files:
        stamps = find_files(paths.data_path, "testing", options.test_files)
        how = {"settings": settings, "batch": options.per_replica_batch_size, "table": options.format}
        lines, outcome = score(stamps, output, detector=detect(), **how)
        print("\n".join(lines))
        return outcome.exit_status
    named, (files, unused) = list(map(Path, options.files)), listed(options.files)
    rules, known = rules_of(config, options.beams), stated(options.cadence, options.files, files)
    cadences: dict[str, Any] = {"rules": rules, "stated": known}
    if options.trace is not None:
        for line in (*(f"not searched: {line}" for line in unused),
                     *trace(files, options.trace, detect=detect, search=settings, **cadences)):  # fmt: skip
            print(line)
        return 0
    layout = "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=100, unit="%", disable=not sys.stderr.isatty(), bar_format=layout) as bar:
        outcome = search(
            files, output, detect=detect, search=settings, unused=unused, named=named, **cadences,
            max_channel_hz=math.inf if options.all_products else config.watch.max_channel_hz,
            table=options.format, progress=lambda done: bar.update(100 * done - bar.n), tell=print,
        )  # fmt: skip
    return outcome.exit_status


def _check_options(options: Namespace) -> None:
    if bool(options.files) == bool(options.test_files):
        raise ConfigError("search: expected FILE ... or --test-files FILE ..., and not both")
    if options.beams is not None and (options.test_files or options.cadence is not None):
        raise ConfigError("--beams: expected files whose beams give their roles, found --cadence or --test-files")
    if options.test_files and options.cadence is not None:
        raise ConfigError("--cadence: expected files of scans, found --test-files, which are stamps of whole cadences")
    if options.test_files and options.format not in ("csv", "json"):
        raise ConfigError(f"--format: expected csv or json with --test-files, found {options.format}")
    if options.test_files and options.trace is not None:
        raise ConfigError("--trace: expected files with frequencies, found --test-files, which have none")

    if options.rf_path and options.rf_path.endswith(PICKLES):
        raise ConfigError(
            f"--rf-path: expected a forest stored with skops (.skops), found {options.rf_path}: a pickle runs code "
            "when it is opened, and Aetherscan's forests read the latents of its own encoder; search with "
            "--release DIR, or fit forests with `train`"
        )
    if options.config_path and Path(options.config_path).name != "release.json":
        raise ConfigError(
            f"--config-path: expected the release.json of a release, found {options.config_path}: Aetherscan's "
            "configuration of a training is not needed to score"
        )


def stated(pattern: str | None, names: Sequence[str], paths: Sequence[Path]) -> list[StatedCadence]:
    """Return the cadences that the user states: one of all paths with a pattern, else those of the catalogues.

    Args:
        pattern: A for an ON, another letter for an OFF; None where the user gave none.
        names: files and catalogues, as the user named them.
        paths: of the files.

    Raises:
        ConfigError: the pattern is not searched, or there is not one file a letter.
    """
    if pattern is None:
        return stated_cadences(names)
    try:
        letters = check_pattern(pattern)
    except CadenceError as error:
        raise ConfigError(f"--cadence: {error}") from error
    if len(paths) != len(letters):
        raise ConfigError(f"--cadence: expected {len(letters)} files for {letters}, found {len(paths)}")
    return [StatedCadence(name="--cadence", paths=tuple(paths), pattern=letters)]


def rules_of(config: Config, beams: str | None) -> CadenceRules:
    """Return the configured rules of cadences, with the beams that the user names: the ON's number, then the OFFs'.

    Raises:
        ConfigError: `beams` are not at least two different numbers.
    """
    if beams is None:
        return config.cadence_rules
    on, *off = numbers = beams.split(",")
    if not off or not all(re.fullmatch(r" *[0-9]{1,9} *", number) for number in numbers):
        raise ConfigError(f"--beams: expected the number of the ON beam and those of OFF beams, 0,1,2, found {beams!r}")
    try:
        return replace(config.cadence_rules, beams=BeamRoles(on_beam=int(on), off_beams=tuple(map(int, off))))
    except OptionsError as error:
        raise ConfigError(f"--beams: {error}") from error


def detector_of(release: Path, search: Search, encoder: Path | None = None, forest: Path | None = None) -> Any:
    """Return the detector of a release for the configured mode, with another encoder or forest if given.

    Args:
        release: folder of the release.
        search: settings; the mode and the threshold are used.
        encoder: .onnx or .keras file in place of the release's.
        forest: .skops file in place of the release's.

    Raises:
        ReleaseError: a file is missing or altered, or encoder and forest do not fit each other.
    """
    from aetherscan.detector.detector import exchange, load_detector
    from aetherscan.detector.release import file_sha256, weights

    loaded = load_detector(release).for_mode(search.mode)
    own = [loaded.release.card["sha256"][name] for name in weights([search.mode])]
    encoder, forest = (path if path and file_sha256(path) not in own else None for path in (encoder, forest))
    if not encoder and not forest:
        return loaded
    with TemporaryDirectory() as folder:
        if encoder and encoder.suffix == ".keras":
            from aetherscan.train.quiet import quiet_tensorflow

            with quiet_tensorflow():
                from aetherscan.train.onnx_export import convert

            convert(encoder, onnx := Path(folder) / f"{encoder.stem}.onnx")
            encoder = onnx
        return exchange(loaded, search.threshold, encoder=encoder, forest=forest)


def score(
    paths: Sequence[Path], output: Path, *, detector: Any, settings: Search, batch: int, table: str = "csv"
) -> tuple[list[str], "Outcome"]:
    """Score stamps, write a row for each, and return lines that say how many are signals and how many are dead.

    Args:
        paths: .npy files of stamps.
        output: folder of the table.
        detector: that scores them.
        settings: of a search; how probable a signal must be.
        batch: stamps scored at once.
        table: format: csv or json.
    """
    from aetherscan.search.candidates import write_table
    from aetherscan.search.stamps import COLUMNS, LEVELS, dead_line, faults, open_stamps, score_stamps

    result = output / f"plates.{table}"
    make_folder(output)
    check_writable(output, result.name, inputs=paths)
    for path in paths:  # check all files before scoring any
        open_stamps(path, detector.release.snippet, LEVELS)
    least = detector.threshold_for(settings.threshold, settings.alarms_per_100_mhz)
    by_file = {path: list(score_stamps(path, detector, least, batch)) for path in paths}
    rows = [row for scored in by_file.values() for row in scored]
    if table == "json":
        write_whole(result, json.dumps(rows, indent=1))
    else:
        write_table(result, COLUMNS, rows)
    found, lines = sum(row["prediction"] or 0 for row in rows), list[str]()
    for path, scored in by_file.items():
        dead = [row["plate"] for row in scored if row["probability"] is None]
        if dead:
            stamps = open_stamps(path, detector.release.snippet, LEVELS)
            lines.append(f"not scored: {dead_line(path, faults(stamps, dead), len(scored))}")
    failed = sum(row["probability"] is None for row in rows)
    lines.append(f"{found} of {len(rows)} stamps from probability {least:.4g} with {detector.release.name}: {result}")
    return lines, Outcome(searched=len(rows) - failed, failed=failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCadence:
    """A cadence and its files, in time order."""

    target: str
    pattern: str
    on: tuple[int, ...]
    files: dict[Path, Header]
    warnings: Sequence[str] = ()  # where stated roles contradict the headers

    @property
    def roles(self) -> list[dict[str, Any]]:
        """Role, name, place and time of each scan."""
        return roles_of(list(self.files.values()), self.on)

    @property
    def doubts(self) -> list[str]:
        """Its warnings, and values of its headers that contradict each other."""
        return [*self.warnings, *warnings_of(list(self.files.values()))]

    def lines(self) -> list[str]:
        """Return its roles, and its doubts, as lines for the user."""
        return [*role_lines(self.target, self.roles), *(f"  warning: {doubt}" for doubt in self.doubts)]


def named_cadences(
    headers: Mapping[Path, Header], stated: Sequence[StatedCadence], rules: CadenceRules
) -> tuple[list[NamedCadence], list[str]]:
    """Return the cadences that are stated, then those that the other headers make; and why the rest is in none.

    Args:
        headers: of the files that can be searched.
        stated: cadences whose roles the user states. Their files are in no other cadence.
        rules: of cadences.
    """
    cadences, reasons = [], []
    for group in stated:
        found = [headers[path] for path in group.paths if path in headers]
        if missing := len(group.paths) - len(found):
            reasons.append(f"{group.name}: {missing} of its {len(group.paths)} files cannot be searched")
            continue
        try:
            cadence, warnings = explicit_cadence(found, group.pattern, rules)
        except CadenceError as error:
            reasons.append(f"{group.name}: {error}")
            continue
        files = {path: headers[path] for path in (group.paths[i] for i in cadence.members)}
        cadences.append(
            NamedCadence(target=cadence.target, pattern=cadence.pattern, on=cadence.on, files=files, warnings=warnings)
        )
    taken = {path for group in stated for path in group.paths}
    free = [path for path in headers if path not in taken]
    grouping = find_cadences([headers[path] for path in free], rules)
    for cadence in grouping.cadences:
        files = {path: headers[path] for path in (free[i] for i in cadence.members)}
        cadences.append(NamedCadence(target=cadence.target, pattern=cadence.pattern, on=cadence.on, files=files))
    return cadences, reasons + [f"{group.target}: {group.reason}" for group in grouping.ungrouped]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the files of a search."""

    searched: int  # cadences
    failed: int  # files, rows of a catalogue and cadences that should have been searched

    @property
    def exit_status(self) -> int:
        """0 if all was searched, 1 if no cadence was, 3 if some were and some could not be."""
        if not self.searched:
            return 1
        return 3 if self.failed else 0


def search(
    paths: Sequence[Path],
    output: Path,
    *,
    detect: Callable[[], Any],
    search: Search,
    rules: CadenceRules | None = None,
    stated: Sequence[StatedCadence] = (),
    unused: Sequence[str] = (),
    named: Sequence[Path] = (),
    max_channel_hz: float = math.inf,
    table: str = "csv",
    progress: Callable[[float], None] = lambda _: None,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Search every cadence among files; write candidates and `run.json` after each cadence.

    Files and cadences that cannot be searched, and observations that form no cadence, are reported and listed in
    `run.json`; the other cadences are searched.

    Args:
        paths: files, in any order.
        output: folder of the table and of `run.json`.
        detect: returns the detector; called only if there is a cadence.
        search: settings.
        rules: of cadences; None for the defaults.
        stated: cadences whose roles the user states; their files are among `paths`.
        unused: lines about what the user named and no path stands for.
        named: what the user named, with catalogues; never written.
        max_channel_hz: files with wider channels are not searched.
        table: format: csv, json or ecsv; dat: csv, and turboSETI's files of each cadence in a folder `cadence-N`.
        progress: receives the fraction of the work that is done, 0 to 1.
        tell: receives lines for the user.
    """
    from sentinel.commands.turboseti import write_turboseti

    began = time.time()
    headers, failed = verified(paths, search.polarization)
    failed = [*unused, *failed]
    repeated = [f"{path}: named {times} times, used once" for path, times in Counter(paths).items() if times > 1]
    passed_over = [*repeated, *_drop_copies(headers), *_drop_wide(headers, max_channel_hz)]
    cadences, reasons = named_cadences(headers, stated, rules or CadenceRules())
    passed_over += reasons
    for reason in (*failed, *passed_over):
        tell(f"not searched: {reason}")
    runs: list[dict[str, Any]] = []
    found: list[Any] = []
    used = None
    result = output / f"candidates.{'csv' if table == 'dat' else table}"
    make_folder(output)
    check_writable(output, result.name, "run.json", inputs=[*paths, *named])

    def write() -> None:
        _writer(table)(result, found)
        report = {
            "cadences": runs,
            "failed": failed,
            "not_searched": [*failed, *passed_over],
            "settings": search.model_dump(),
            "cadence_rules": asdict(rules or CadenceRules()),
            "release": used,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "headers": [asdict(header) for header in headers.values()],
            "seconds": round(time.time() - began, 3),
        }
        write_whole(output / "run.json", json.dumps(report, indent=1) + "\n")

    if cadences:
        detector = detect()
        used = {"name": detector.release.name, "sha256": detector.release.sha256}
    for count, cadence in enumerate(cadences):
        searches = 2 if table == "dat" else 1  # of the cadence, then of each of its scans
        share = partial(_share, progress, count * searches, len(cadences) * searches)
        for line in cadence.lines():
            tell(line)
        try:
            searched = _search_cadence(list(cadence.files), cadence.on, detector, search, share)
            doubts = list(searched.warnings)
            if table == "dat":
                folder = output / f"cadence-{count + 1}"
                share = partial(_share, progress, count * 2 + 1, len(cadences) * 2)
                doubts += write_turboseti(folder, list(cadence.files), cadence.on, searched.candidates, search, share)
                tell(f"  turboSETI's files: {folder}")
        except (ReadError, CadenceError, OSError) as error:
            failed.append(f"{cadence.target}: {error}")
            tell(f"not searched: {failed[-1]}")
            continue
        for warning in doubts:
            tell(f"  warning: {warning}")
        found += searched.candidates
        facts = {
            "target": cadence.target,
            "pattern": cadence.pattern,
            "files": [str(path) for path in cadence.files],
            "roles": cadence.roles,
            "warnings": [*cadence.doubts, *doubts],
            "candidates": len(searched.candidates),
            "counts": searched.counts,
            "stage_s": searched.stage_s,
            "bytes_read": searched.bytes_read,
        }
        runs.append(facts)
        write()
    if not runs and result.exists():  # a mistyped name does not empty the table of an earlier search
        tell(f"0 cadences: the table of an earlier search is unchanged: {result}")
        return Outcome(searched=0, failed=len(failed))
    write()
    without = f", {len(failed) + len(passed_over)} lines of what was not searched" if failed or passed_over else ""
    tell(f"{len(runs)} cadences, {len(found)} candidates{without}: {result}")
    return Outcome(searched=len(runs), failed=len(failed))


def _writer(table: str) -> Callable[[Path, Sequence[Any]], None]:
    from aetherscan.search.candidates import candidate_table, write_csv, write_json

    if table != "ecsv":
        return write_json if table == "json" else write_csv
    from aetherscan.search.ecsv import write_ecsv

    return lambda path, rows: write_ecsv(path, *candidate_table(rows))


def verified(paths: Sequence[Path], polarization: int | None) -> tuple[dict[Path, Header], list[str]]:
    """Return the headers of the files that can be searched, and a line for each that cannot."""
    headers, failed = {}, []
    for path in dict.fromkeys(paths):
        try:
            headers[path] = verify_complete(path, polarization=polarization)
        except ReadError as error:
            failed.append(str(error))
    return headers, failed


def _drop_copies(headers: dict[Path, Header]) -> list[str]:
    """Remove second copies of an observation, and return a line for each."""
    first: dict[str, Path] = {}
    copies = [path for path, header in headers.items() if first.setdefault(header.identity, path) is not path]
    lines = [f"{path}: the same observation as {first[headers[path].identity]}" for path in copies]
    for path in copies:
        del headers[path]
    return lines


def _drop_wide(headers: dict[Path, Header], max_channel_hz: float) -> list[str]:
    """Remove files with wide channels, and return a line for each."""
    widths_hz = {path: abs(header.foff) * 1e6 for path, header in headers.items()}
    wide = [path for path, width_hz in widths_hz.items() if width_hz > max_channel_hz]
    for path in wide:
        del headers[path]
    limit = f"expected at most max_channel_hz, {max_channel_hz:g} (--all-products searches it)"
    return [f"{path}: channels of {widths_hz[path]:.0f} Hz, {limit}" for path in wide]


def trace(
    paths: Sequence[Path],
    frequency_mhz: float,
    *,
    detect: Callable[[], Any],
    search: Search,
    rules: CadenceRules,
    stated: Sequence[StatedCadence] = (),
) -> Iterator[str]:
    """Yield lines that explain what each stage of a search does at one frequency, for every cadence.

    Args:
        paths: files, in any order.
        frequency_mhz: to explain, MHz.
        detect: returns the detector.
        search: settings.
        rules: of cadences.
        stated: cadences whose roles the user states.
    """
    from aetherscan.search.explain import trace as trace_cadence

    headers, failed = verified(paths, search.polarization)
    cadences, reasons = named_cadences(headers, stated, rules)
    yield from (f"not searched: {reason}" for reason in (*failed, *reasons))
    detector, settings = detect(), search.settings()
    for cadence in cadences:
        yield from cadence.lines()
        yield f"{cadence.target}: {', '.join(path.name for path in cadence.files)}"
        with open_cadence(cadence.files, search.polarization) as observations:
            yield from trace_cadence(observations, detector, settings, frequency_mhz, cadence.on)


def _share(progress: Callable[[float], None], count: int, total: int, done: float) -> None:
    progress((count + done) / total)


def _search_cadence(
    paths: Sequence[Path], on: tuple[int, ...], detector: Any, search: Search, progress: Callable[[float], None]
) -> Any:
    from aetherscan.search.pipeline import search_cadence

    with open_cadence(paths, search.polarization) as observations:
        return search_cadence(observations, detector, search.settings(), progress, on)
