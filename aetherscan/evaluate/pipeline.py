"""Evaluate a search: draw skies, write them as files, search them with the serving code, match the detections."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import OFF_POSITIONS
from aetherscan.detector.alarms import alarm_table, measured_text
from aetherscan.detector.detector import load_detector
from aetherscan.detector.release import Release, write_card
from aetherscan.errors import FormatError
from aetherscan.evaluate.journal import Journal
from aetherscan.evaluate.matching import DEFINITIONS, ScoredSearch, match_detections
from aetherscan.evaluate.report import Evaluation, put_section, write_report
from aetherscan.evaluate.scenarios import (
    CADENCE_CHANS,
    SCENARIOS,
    TONE,
    Scenario,
    cadence_headers,
    cadence_seeds,
    draw_sky,
    write_sky,
)
from aetherscan.evaluate.searchers import Searcher, release_search
from aetherscan.evaluate.statistics import (
    AGAIN,
    ALL_DETECTIONS,
    OTHER_BLOCKS,
    RELEASED,
    SWAPPED,
    TargetResult,
    calibration,
    summarize,
    target_results,
    threshold_curve,
)
from aetherscan.header import Header, gbt_header
from aetherscan.io.outputs import make_folder
from aetherscan.options.search import SearchSettings

REPORT_S = 10.0
WITHOUT_THRESHOLD = 8
"""Cadences of a scenario that are also searched without a threshold."""
REPEATED = ("zoo", "tones")
"""Scenarios whose first cadence is searched again."""
ZOO = next(scenario for scenario in SCENARIOS if scenario.name == "zoo")
"""Sky for which the alarms of a release are counted."""
FEWEST_ALARMS = 3
"""Fewest alarms that a band must be expected to hold for a threshold."""


def evaluate(
    scenarios: Iterable[Scenario],
    searchers: Sequence[Searcher],
    *,
    seed: int,
    full: bool = False,
    band_mhz: float | None = None,
    chans: int = CADENCE_CHANS,
    real: Float32[np.ndarray, "time freq"] | None = None,
    journal: Journal | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> list[ScoredSearch]:
    """Draw, write, search and match every cadence; the files are in a temporary folder while they are searched.

    Args:
        scenarios: entries of `SCENARIOS`.
        searchers: the searches to compare.
        seed: of all noise and emitters.
        full: search each scenario's full band, not its quick one.
        band_mhz: band of each scenario in MHz, instead of either.
        chans: fine channels of a cadence.
        real: linear power that real scenarios add tones to; without it they are skipped.
        journal: holds the searches that are finished, and receives the others.
        progress: called with a line of text at most every ten seconds and after every scenario.
    """
    done, reported = list[ScoredSearch](), time.monotonic()
    for scenario in scenarios:
        if scenario.real and real is None:
            continue
        width = real.shape[1] if scenario.real and real is not None else chans
        band = band_mhz or (scenario.full_mhz if full else scenario.quick_mhz)
        for number, header in enumerate(cadence_headers(scenario, band, width)):
            if number and time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                progress(_summary(done, scenario))
            chosen = [searcher for searcher in searchers if searcher.searches(scenario.name, number)]
            before = [journal.get(scenario.name, number, searcher.name) for searcher in chosen] if journal else []
            finished = [search for search in before if search]
            done += finished
            if len(finished) < len(chosen):
                names = {search.searcher for search in finished}
                left = [searcher for searcher in chosen if searcher.name not in names]
                for search in _search_sky(scenario, header, number, left, seed, real):
                    done.append(search)
                    if journal:
                        journal.add(search)
        progress(_summary(done, scenario))
    return done


def _search_sky(
    scenario: Scenario,
    header: Header,
    number: int,
    searchers: Sequence[Searcher],
    seed: int,
    real: Float32[np.ndarray, "time freq"] | None,
) -> Iterator[ScoredSearch]:
    """Draw and write one cadence, and yield each search of it.

    Args:
        scenario: of the cadence.
        header: of its first observation.
        number: of the cadence within the scenario.
        searchers: that search it.
        seed: of the evaluation.
        real: linear power that real scenarios add tones to.
    """
    emitter_seed, noise_seed = cadence_seeds(scenario, seed, number)
    sky = draw_sky(scenario, header, emitter_seed)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        began = time.perf_counter()
        paths = write_sky(Path(folder), scenario, sky, noise_seed, real)
        write_s = time.perf_counter() - began
        size = sum(path.stat().st_size for path in paths)
        for searcher in searchers:
            began = time.perf_counter()
            output = searcher.search(paths, searcher.on)
            search_s = time.perf_counter() - began
            tones, detections = match_detections(output.detections, sky, searcher.on)
            mhz, others = header.band_mhz[1] - header.band_mhz[0], sum(emitter.kind != TONE for emitter in sky.emitters)
            yield ScoredSearch(
                scenario=scenario.name, searcher=searcher.name, cadence=number, file_bytes=size,
                mhz=mhz, density=others / mhz, write_s=write_s, search_s=search_s,
                stage_s=output.stage_s, counts=output.counts, digest=output.digest, tones=tones,
                detections=detections,
            )  # fmt: skip


def _summary(done: Sequence[ScoredSearch], scenario: Scenario) -> str:
    searches = [search for search in done if (search.scenario, search.searcher) == (scenario.name, RELEASED)]
    found = [tone.detections > 0 for search in searches for tone in search.tones]
    mhz, alarms = sum(search.mhz for search in searches), sum(len(search.alarms) for search in searches)
    return f"{scenario.name}: {mhz:.1f} MHz, {sum(found)} of {len(found)} tones found, {alarms} alarms"


def _real_power(path: Path) -> Float32[np.ndarray, "time freq"]:
    try:
        power = np.load(path)["data"].astype(np.float32)
    except (OSError, ValueError, LookupError, EOFError, BadZipFile) as error:
        raise FormatError(f"{path}: expected an .npz file with `data` (time, freq), found {error}") from error
    rows = gbt_header().ntime
    if power.ndim != 2 or len(power) != rows or not power.size:
        raise FormatError(f"{path}: expected `data` (time, freq) of {rows} rows, found shape {power.shape}")
    return power


def evaluate_release(
    release: Path,
    output: Path,
    *,
    settings: SearchSettings,
    seed: int,
    scenarios: Sequence[str] = (),
    full: bool = False,
    band_mhz: float | None = None,
    real: Path | None = None,
    progress: Callable[[str], object] = print,
) -> list[TargetResult]:
    """Evaluate a release, write the report into a folder, return the targets that were measured.

    An evaluation that was interrupted continues when it is started again with the same folder and arguments.

    Args:
        release: folder of the release.
        output: folder for `evaluation.json`, `evaluation.html` and `recall.png`; made if it is missing.
        settings: of the search.
        seed: of all noise and emitters.
        scenarios: names of scenarios; all if empty.
        full: search each scenario's full band, not its quick one.
        band_mhz: band of each scenario in MHz, instead of either.
        real: `.npz` file whose `data` is linear power (time, freq) of 16 rows; without it real scenarios are skipped.
        progress: called with lines of text.
    """
    power = _real_power(real) if real else None
    detector = load_detector(release)
    search = partial(release_search, detector)
    chosen = [scenario for scenario in SCENARIOS if not scenarios or scenario.name in scenarios]
    names = tuple(scenario.name for scenario in chosen)
    repeated = tuple(name for name in names if name in REPEATED) or names
    other_blocks = replace(settings, block_channels=300_000)
    searchers = [
        Searcher(name=RELEASED, search=search(settings)),
        Searcher(name=SWAPPED, search=search(settings), scenarios=("zoo",), on=OFF_POSITIONS),
        Searcher(
            name=ALL_DETECTIONS,
            search=search(replace(settings, threshold=0.0)),
            scenarios=("zoo", "tones"),
            max_cadences=WITHOUT_THRESHOLD,
        ),
        Searcher(name=AGAIN, search=search(settings), scenarios=repeated, max_cadences=1),
        Searcher(name=OTHER_BLOCKS, search=search(other_blocks), scenarios=repeated, max_cadences=1),
    ]
    make_folder(output)
    how = {"seed": seed, "full": full, "band_mhz": band_mhz, "scenarios": names, "settings": asdict(settings)}
    power_sha256 = hashlib.sha256(power.tobytes()).hexdigest() if power is not None else ""
    journal = Journal(output, {**how, "release": detector.release.sha256, "real": power_sha256})
    if journal.searches:
        progress(f"{journal.path}: {len(journal.searches)} searches are finished, the others follow")
    began = time.time()
    searches = evaluate(
        chosen, searchers, seed=seed, full=full, band_mhz=band_mhz, real=power, journal=journal, progress=progress
    )
    statistics = summarize(searches)
    targets = target_results(statistics)
    without_threshold = [search for search in searches if search.searcher == ALL_DETECTIONS]
    write_report(
        output,
        Evaluation(
            release={"name": detector.release.name, "sha256": detector.release.sha256},
            settings=asdict(settings),
            seed=seed,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - began),
            definitions={name: " ".join(text.split()) for name, text in DEFINITIONS.items()},
            scenarios=chosen,
            targets=targets,
            statistics=statistics,
            calibration=calibration(without_threshold),
            threshold_curve=threshold_curve(without_threshold),
            searches=searches,
        ),
    )
    journal.remove()
    return targets


def set_alarms(
    release: Path,
    output: Path,
    *,
    allowed: float,
    settings: SearchSettings,
    seed: int,
    band_mhz: float | None = None,
    chans: int = CADENCE_CHANS,
    progress: Callable[[str], object] = print,
) -> Release:
    """Search the zoo without a threshold, and write into a release which threshold allows how many alarms.

    An interrupted measurement continues when it is started again with the same folder and arguments.

    Args:
        release: folder of the release; its threshold and its card are replaced.
        output: folder for the journal; made if it is missing.
        allowed: alarms in 100 MHz of the zoo that the new threshold allows.
        settings: of the search.
        seed: of all noise and emitters. It must not judge the release afterwards.
        band_mhz: band of the zoo that is searched; by default the full one.
        chans: fine channels of a cadence.
        progress: called with lines of text.

    Raises:
        FormatError: the band is too narrow to count so few alarms.
    """
    band = band_mhz or ZOO.full_mhz
    if allowed * band / 100 < FEWEST_ALARMS:
        expected = f"expected at least {FEWEST_ALARMS * 100 / allowed:.0f} MHz to count {allowed:g} alarms per 100 MHz"
        raise FormatError(f"{expected}, found {band:g}")
    detector = load_detector(release)
    search = release_search(detector, replace(settings, threshold=0.0))
    make_folder(output)
    how = {"seed": seed, "band_mhz": band, "settings": asdict(settings), "release": detector.release.sha256}
    journal = Journal(output, {**how, "measured": "alarms"})
    searches = evaluate(
        [ZOO], [Searcher(name=RELEASED, search=search)],
        seed=seed, band_mhz=band, chans=chans, journal=journal, progress=progress,
    )  # fmt: skip
    mhz, found = sum(each.mhz for each in searches), [alarm for each in searches for alarm in each.alarms]
    table = alarm_table(
        np.array([alarm.detection.probability for alarm in found]),
        np.full(len(found), 100 / mhz),
        np.array([alarm.kind for alarm in found], dtype=str),
        allowed,
    )
    card, threshold = detector.release.card, table.pop("threshold_allowed")
    alarms = {**table, "mhz": round(mhz, 1), "seed": seed}
    tracks = {**card["modes"]["tracks"], "threshold": threshold, "alarms": alarms}
    changed = write_card(release, {**card, "modes": {**card["modes"], "tracks": tracks}})
    put_section(release / "CARD.md", "Alarms", measured_text(alarms, threshold))
    journal.remove()
    return changed
