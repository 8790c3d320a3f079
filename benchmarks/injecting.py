"""Measure the rate at which training examples are made, beside setigen and the way the forests' examples are made.

Run from the repository root: `python benchmarks/injecting.py [EXAMPLES] [THREADS]` (default 120,000 by 2 threads;
Aetherscan makes 120,000 for a round). An example is 6 x 16 x 512 bins: injected into native channels, binned,
normalized, and quantized to bytes. Rates are per CPU second, medians of `ROUNDS`. Memory is that of the process
and its children.
"""

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import astropy.units as u
import numpy as np
import setigen as stg

from aetherscan.cadence.geometry import ON_POSITIONS, geometry_of
from aetherscan.header import gbt_header
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.cutouts import window_snippet
from aetherscan.simulate.injection import add_line, row_edges_s
from aetherscan.simulate.interference import random_signal
from aetherscan.simulate.noise import NOISE, noise
from aetherscan.simulate.sky import Sky
from aetherscan.train.background_cache import empty_arrays, load_background
from aetherscan.train.batches import BatchSettings, make_group, open_batches, sources_of
from aetherscan.train.examples import draw_examples
from aetherscan.train.streams import Split

ROUNDS, CHANS, SNR = 5, 4096, (6.0, 30.0)
HEADER = gbt_header(CHANS)
TOLERANCE = 0.02
"""Fraction of the brightest pixel: setigen samples a line at channel centers and at discrete times within a row."""


def rate(work: Callable[[], int]) -> float:
    """Return how many examples `work` makes per CPU second; the first call is not counted."""
    rates = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        rates.append(work() / (time.process_time() - began))
    return statistics.median(rates[1:])


def with_setigen(rng: np.random.Generator) -> int:
    """Make one example with setigen, three frames with a signal; check that our line agrees with it."""
    power, tone = np.stack([noise(rng, 16, CHANS) for _ in range(6)]), random_signal(rng, HEADER.fch1, 20.0, 1.0)
    kinds = {"df": -HEADER.foff * 1e6 * u.Hz, "dt": HEADER.tsamp * u.s, "fch1": HEADER.fch1 * u.MHz}
    for position in ON_POSITIONS:
        frame = stg.Frame(fchans=CHANS, tchans=16, ascending=False, **kinds)
        start, drift, width = frame.get_frequency(2000), tone.drift_hz_s, 15.0
        signal = frame.add_signal(
            stg.constant_path(f_start=start, drift_rate=drift * u.Hz / u.s), stg.constant_t_profile(level=1),
            stg.gaussian_f_profile(width=width * u.Hz), stg.constant_bp_profile(level=1),
            doppler_smearing=True, smearing_subsamples=100,
        )  # fmt: skip
        theirs = np.asarray(signal)[:, ::-1] if frame.fs[0] < frame.fs[-1] else np.asarray(signal)
        ours, edges = np.zeros_like(power[0]), start + drift * row_edges_s(0.0, 16, HEADER.tsamp)
        add_line(ours, (edges * 1e-6 - HEADER.fch1) / HEADER.foff, width=width / -HEADER.foff * 1e-6,
                 snr=float(np.sqrt((theirs**2).sum())), noise=np.ones(16))  # fmt: skip
        assert np.abs(ours - theirs).max() < TOLERANCE * theirs.max()
        power[position] += (theirs * NOISE * tone.snr[position] / np.sqrt((theirs**2).sum())).astype(np.float32)
    cadence = geometry_of(Sky(header=HEADER).headers())
    np.rint(window_snippet(normalize_block(power, cadence), 0, cadence, (16, 512)) * 255).astype(np.uint8)
    return 1


def resident() -> int:
    """Return the memory of this process and its children in bytes (proportional set size)."""
    me = os.getpid()
    pids = [me, *map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split())]
    rolls = [Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in pids]
    return sum(int(line.split()[1]) * 1024 for roll in rolls for line in roll if line.startswith("Pss:"))


def main(examples: int = 120_000, threads: int = 2) -> None:
    warnings.simplefilter("ignore")
    rng, settings = np.random.default_rng(1), BatchSettings(num_target_backgrounds=96, signal_injection_chunk_size=32)
    source, arrays, places = sources_of(settings)[0], empty_arrays(settings.examples, 6), np.arange(6)
    ready = rate(lambda: [load_background(arrays, source, place, place) for place in range(6)] and 6)
    ours = rate(
        lambda: sum(len(make_group(arrays, settings, places, SNR, (Split.TRAINING, 0, group))) for group in range(64))
    )
    drawn = rate(lambda: sum(len(part.labels) for part in draw_examples(rng, settings.examples)))
    print(f"training examples             {ours:8,.0f} examples/s; a background of 2^16 channels {1 / ready:.2f} s")
    print(f"forest examples, searched     {drawn:8,.0f} examples/s; 1/{ours / drawn:,.0f}")
    setigen = rate(lambda: with_setigen(rng))
    print(f"setigen                       {setigen:8,.1f} examples/s; 1/{ours / setigen:,.0f}")
    with open_batches(BatchSettings(), threads) as made:
        began, peak = time.perf_counter(), 0
        for number, (snippets, _) in enumerate(made.epoch(0, examples, SNR)):
            peak = max(peak, resident()) if number % 100 == 0 else peak
            assert snippets.shape[1:] == (6, 16, 512)
        took = time.perf_counter() - began
    print(f"{examples:,} by {threads} threads in {took:.0f} s with all backgrounds; at most {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
