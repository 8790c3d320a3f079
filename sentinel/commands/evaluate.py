"""Measure a release on simulated skies, print each figure with its goal, and write both to its card on request."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from aetherscan.evaluate.pipeline import evaluate_release, set_alarms
from aetherscan.evaluate.report import add_to_card
from aetherscan.evaluate.scenarios import SCENARIOS
from aetherscan.io.outputs import check_writable, make_folder
from sentinel.config import ROOT, Config
from sentinel.errors import ConfigError

REAL_POWER = ROOT / "tests" / "data" / "ddo210_coarse469_slice.npz"
"""Real power for the scenarios that add tones to it, where the options name none."""


def run(config: Config, options: Namespace, active_release: Callable[[Config], Path]) -> None:
    """Evaluate a release as the options of the command line say, and print the result.

    Raises:
        ConfigError: there is no such scenario.
    """
    if options.set_alarms:
        _set_alarms(config, options)
        return
    output, release = options.output, options.release or active_release(config)
    names = [scenario.name for scenario in SCENARIOS]
    if unknown := set(options.scenarios) - set(names):
        raise ConfigError(f"--scenarios: expected some of {', '.join(names)}, found {', '.join(sorted(unknown))}")
    make_folder(output)
    check_writable(output, "evaluation.json", "evaluation.html", "recall.png")
    if options.card:
        check_writable(release, "CARD.md")
    results = evaluate_release(
        release, output, settings=config.search.settings(), seed=options.seed,
        scenarios=options.scenarios, full=options.full, band_mhz=options.band_mhz,
        real=options.slice or (REAL_POWER if REAL_POWER.exists() else None),
    )  # fmt: skip
    for result in results:
        print(f"{'ok  ' if result.met else 'MISS'}  {result.description} {result.goal}: {result.statistic.value:.3g}")
    print(output / "evaluation.html")
    if options.card:
        given = {"--seed": options.seed, "--scenarios": " ".join(options.scenarios), "--band-mhz": options.band_mhz}
        command = " ".join(f"{name} {value}" for name, value in given.items() if value) + " --full" * options.full
        add_to_card(release / "CARD.md", f"On simulated skies: `./sentinel.py evaluate {command}`", results)


def _set_alarms(config: Config, options: Namespace) -> None:
    """Write into a release which threshold allows how many alarms, and print what it is.

    Raises:
        ConfigError: no release was named, or an option was that does not apply.
    """
    others = ("scenarios", "full", "card", "slice")
    if given := [f"--{name}" for name in others if getattr(options, name)]:
        raise ConfigError(f"--set-alarms: expected none of --{', --'.join(others)}, found {', '.join(given)}")
    if not options.release:
        raise ConfigError("--set-alarms: expected --release with the release that is changed, found none")
    make_folder(options.output)
    check_writable(options.output, "unfinished.jsonl")
    check_writable(options.release, "release.json", "CARD.md")
    release = set_alarms(
        options.release, options.output, allowed=options.set_alarms, settings=config.search.settings(),
        seed=options.seed, band_mhz=options.band_mhz,
    )  # fmt: skip
    print(f"{release.path}: threshold {release.modes['tracks'].threshold:.4f}, sha256 {release.sha256}")
