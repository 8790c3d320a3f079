"""The benchmark of shapes draws signals of the SNR that it states, and gives every search the same budget."""

import numpy as np
import pytest

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.simulate.injection import add_emitter
from aetherscan.simulate.noise import NOISE
from benchmarks.shapes import (
    CADENCE,
    SHAPES,
    band_of,
    draw_shapes,
    lowest_threshold,
    passing,
    report,
    row_middles,
    scores_of,
)


def power_of(emitters, position):
    """Return what the emitters add to an observation, in sigma."""
    header = CADENCE.headers[position]
    power = np.zeros((header.ntime, header.nchans), dtype=np.float32)
    start_s = row_middles(position)[0] - header.tsamp / 2
    for emitter in emitters:
        add_emitter(
            power, emitter, position=position, start_s=start_s, tsamp=header.tsamp, fch1=header.fch1,
            foff=header.foff, noise=np.full(header.ntime, NOISE),
        )  # fmt: skip
    return power / NOISE


def test_each_shape_has_its_snr_in_every_on_inside_its_band_and_is_in_no_off():
    drawn = {name: (snr, parts) for i in range(9) for name, snr, parts in draw_shapes(np.random.default_rng(i))}
    assert set(drawn) == set(SHAPES)
    for name, (snr, parts) in drawn.items():
        for position in range(6):
            power = power_of(parts, position)
            if position not in ON_POSITIONS:
                assert not power.any()
                continue
            assert np.sqrt((power**2).sum()) == pytest.approx(snr, rel=0.1), name
            low, high = band_of(parts, position)
            mhz = CADENCE.mhz(np.arange(power.shape[1]))
            inside = (mhz > low - 1e-3) & (mhz < high + 1e-3)
            assert (power[:, inside] ** 2).sum() > 0.9 * (power**2).sum(), name


def test_a_threshold_passes_no_more_than_its_budget_and_none_of_equal_scores_that_would_exceed_it():
    scores = [0.2, 0.9, 0.5, 0.9]
    assert [sum(s > lowest_threshold(scores, n) for s in scores) for n in (0, 1.9, 2, 3, 4, 9)] == [0, 0, 2, 3, 4, 4]


def test_of_windows_that_overlap_the_best_one_is_reported():
    patch = {"tracks": [], "windows": [[0.1, -1], [0.8, -1], [0.9, 0], [0.9, 0], [0.2, -1], [0.3, 1]]}
    assert scores_of(patch, "network") == [(0.9, 0), (0.3, 1)]


def test_the_table_counts_signals_once_and_alarms_by_search():
    quiet = {"shapes": [], "tracks": [[0.75, 0.5, -1]], "windows": [[0.0, -1]] * 3}
    loud = {
        "shapes": [["comb", 10.0], ["comb", 10.0]],
        "tracks": [[0.9, 0.1, 0], [0.8, 0.1, 0], [0.7, 0.9, -1]],
        "windows": [[0.4, 0], [0.2, -1], [0.6, 1]],
    }
    limits = {"tracks": (0.5, 0.5), "network": (0.5, 0.5)}
    assert [*passing(loud, "tracks or network", limits)] == [0, 0, -1, 1]
    table = [*report({"thresholds": [quiet], "alarms": [loud], "shapes": [loud]}, 1.0, 0.9)]
    (row,) = [line for line in table if line.startswith("| comb |")]
    assert [cell.split(",")[0].strip() for cell in row.split("|")[2:-1]] == ["2", "1", "1", "1", "2", "0", "2"]
    assert [cell.split("%")[0].strip() for cell in table[-2].split("|")[3:-1]] == [
        "50.0", "50.0", "50.0", "100.0", "0.0", "100.0",
    ]  # fmt: skip
    assert [cell.split(":")[0].strip() for cell in table[-1].split("|")[4:-1]] == ["1", "2", "4", "1", "2"]
