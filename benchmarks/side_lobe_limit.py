"""Compute what any search can recall beside side lobes, at a number of alarms, in noise that is known.

Run from the repository root: `python benchmarks/side_lobe_limit.py [SEED]`. The SNR of a line in each observation is
its own plus unit noise. Side lobes are those of the zoo: 15 emitters per MHz of nine kinds, SNR log-uniform from 8 to
3,000, and 0.12 to 0.35 of it in each OFF. Signals are in no OFF. Both must pass the ON/OFF rule. The decision is by the
likelihood ratio of the OFFs given the mean of the ONs (`side_lobe_odds`). No decision by these SNRs can surpass it,
unless it uses that the zoo has no side lobe below SNR 8. Drift rates and widths of both are alike.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.options.search import SearchSettings
from aetherscan.search.features import SIDE_LOBE, side_lobe_odds
from aetherscan.simulate.interference import INTERFERENCE
from aetherscan.train.forest import EMITTERS_PER_MHZ, ZOO_SNR

LINES, BRIGHTEST, OBSERVATIONS = 1_000_000, 40.0, 3
"""Lines drawn, and SNR above which every side lobe is in an OFF."""
SNRS, BUDGETS = (5, 6, 7, 8, 10, 12, 15), (0.1, 0.2, 0.5, 1, 2, 5)


def odds(rng: np.random.Generator, snr: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the log odds of a signal for lines of such SNR, -inf for those that the ON/OFF rule rejects."""
    off = snr[:, None] * shares + rng.normal(size=shares.shape)
    on = snr + rng.normal(size=len(snr)) / OBSERVATIONS**0.5
    rule = SearchSettings().gates.max_off_snr
    passes = (off.max(axis=1) <= rule) & (off.sum(axis=1) <= rule * OBSERVATIONS**0.5)
    result = np.full(len(snr), -np.inf)
    result[passes] = -side_lobe_odds(on[passes], off[passes])
    return result


def main(seed: str = "1") -> None:
    rng = np.random.default_rng(int(seed))
    lowest, highest = np.log(ZOO_SNR[0]), np.log(ZOO_SNR[1])
    reached = (np.log(BRIGHTEST) - lowest) / (highest - lowest)
    per_100_mhz = 100 * EMITTERS_PER_MHZ / len(INTERFERENCE) * reached
    bright = np.exp(rng.uniform(lowest, np.log(BRIGHTEST), LINES))
    lobes = np.sort(odds(rng, bright, rng.uniform(*SIDE_LOBE, (LINES, OBSERVATIONS))))[::-1]
    limits = [lobes[int(budget / per_100_mhz * LINES)] for budget in BUDGETS]
    print(f"side lobes that pass the ON/OFF rule: {np.isfinite(lobes).mean() * per_100_mhz:.1f} per 100 MHz")
    print("recall, %; alarms per 100 MHz: " + ", ".join(f"{budget:g}" for budget in BUDGETS))
    for snr in SNRS:
        found = odds(rng, np.full(LINES // 5, float(snr)), np.zeros((LINES // 5, OBSERVATIONS)))
        print(f"SNR {snr:2}: " + ", ".join(f"{np.mean(found > limit):.1%}" for limit in limits))


if __name__ == "__main__":
    main(*sys.argv[1:])
