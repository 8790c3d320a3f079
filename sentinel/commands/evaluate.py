"""Measure a release on simulated skies, print each figure with its goal, and write both to its card on request."""

from collections.abc import Sequence
from pathlib import Path

from aetherscan.evaluate.pipeline import evaluate_release
from aetherscan.evaluate.report import add_to_card
from aetherscan.evaluate.scenarios import SCENARIOS
from aetherscan.io.outputs import check_writable
from aetherscan.options.search import SearchSettings
from sentinel.config import ROOT
from sentinel.errors import ConfigError

REAL_POWER = ROOT / "tests" / "data" / "ddo210_coarse469_slice.npz"


def evaluate(
    release: Path,
    output: Path,
    *,
    settings: SearchSettings,
    seed: int,
    scenarios: Sequence[str] = (),
    full: bool = False,
    band_mhz: float | None = None,
    real_power: Path | None = None,
    card: bool = False,
) -> None:
    """Evaluate a release, print the result, and write `evaluation.html`.

    Args:
        release: folder of the release.
        output: folder of the report.
        settings: of the search.
        seed: of every simulated sky.
        scenarios: names of the scenarios to measure; none: all.
        full: use the bandwidth of the published tables.
        band_mhz: bandwidth of each scenario, MHz; None: its own.
        real_power: .npz file with `data` (time, freq), linear power; None: the slice that the tests use.
        card: also write the figures to the release's CARD.md, with the command that makes them.

    Raises:
        ConfigError: there is no such scenario.
    """
    names = [scenario.name for scenario in SCENARIOS]
    if unknown := set(scenarios) - set(names):
        raise ConfigError(f"--scenarios: expected some of {', '.join(names)}, found {', '.join(sorted(unknown))}")
    output.mkdir(parents=True, exist_ok=True)
    check_writable(output, "evaluation.json", "evaluation.html", "recall.png")
    if card:
        check_writable(release, "CARD.md")
    results = evaluate_release(
        release, output, settings=settings, seed=seed, scenarios=scenarios, full=full,
        band_mhz=band_mhz, real=real_power or (REAL_POWER if REAL_POWER.exists() else None),
    )  # fmt: skip
    for result in results:
        print(f"{'ok  ' if result.met else 'MISS'}  {result.description} {result.goal}: {result.statistic.value:.3g}")
    print(output / "evaluation.html")
    if card:
        options = {"--seed": seed, "--scenarios": " ".join(scenarios), "--band-mhz": band_mhz}
        command = " ".join(f"{name} {value}" for name, value in options.items() if value) + " --full" * full
        add_to_card(release / "CARD.md", f"On simulated skies: `./sentinel.py evaluate {command}`", results)
