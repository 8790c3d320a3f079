"""Print the figures on which `aetherscan.search.density` rests: how dense interfering lines and would-be alarms are.

Run from the repository root: `python -P benchmarks/density.py [MHZ [SEED]]`. MHZ (default 200) of simulated patches
hold noise, bursts and the zoo, 15 interferers per MHz, and no signal. Printed are the lines per MHz that an OFF vetoes
and that count (`REFERENCE_PER_MHZ`); and how many times denser tracks that pass the ON/OFF rule are within `BESIDE_HZ`
of such a line in an ON than elsewhere, with the exact 95% interval of the ratio of two Poisson rates.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import beta

from aetherscan.cadence.geometry import geometry_of
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.density import BESIDE_HZ, DISTINCT_MHZ, beside, interfering_lines
from aetherscan.search.on_off import channels_in_ons, home_of
from aetherscan.simulate.interference import zoo
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import followed
from aetherscan.train.random_skies import ExampleSettings, draw_power, patch_header

SETTINGS = ExampleSettings()
HEADER = patch_header(SETTINGS)
MHZ = SETTINGS.chans * SETTINGS.hz * 1e-6


def main(mhz: str = "200", seed: str = "1") -> None:
    cadence, lines, near, far, near_mhz, total = geometry_of(Sky(header=HEADER).headers()), 0, 0, 0, 0.0, 0.0
    for number in range(max(1, round(float(mhz) / MHZ))):
        rng = np.random.default_rng([int(seed), number])
        block = normalize_block(draw_power(rng, [*zoo(rng, HEADER)], SETTINGS), cadence)
        tracks, rejections = followed(block, cadence, SETTINGS)
        vetoed = interfering_lines(tracks, rejections, cadence)
        lines += int((np.diff(np.sort(cadence.mhz(vetoed[:, home_of(cadence)])), prepend=-1.0) > DISTINCT_MHZ).sum())
        passed = beside(channels_in_ons(tracks[rejections == ""], cadence), vetoed, cadence)
        near, far = near + int(passed.sum()), far + int((~passed).sum())
        places = np.arange(0, SETTINGS.chans, 8.0)[:, None].repeat(vetoed.shape[1], axis=1)
        near_mhz += MHZ * float(beside(places, vetoed, cadence).mean())
        total += MHZ
    rest = total - near_mhz
    low, high = (beta.ppf(q, near + (q > 0.5), far + (q < 0.5)) for q in (0.025, 0.975))
    ratios = [share / (1 - share) * rest / near_mhz for share in (near / max(1, near + far), low, high)]
    print(f"{total:.0f} MHz, seed {seed}: {lines / total:.1f} lines per MHz that an OFF vetoes")
    print(f"tracks that pass: {near} in {near_mhz:.2f} MHz within {BESIDE_HZ:g} Hz of one, {far} in {rest:.1f} MHz")
    print(f"{ratios[0]:.0f} times denser there ({ratios[1]:.0f} to {ratios[2]:.0f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
