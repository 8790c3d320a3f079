"""Lines are found at the channel, drift and strength they have."""

import numpy as np
import pytest

from aetherscan.dedoppler import find_hits, line_sum, spread, taylor_tree
from aetherscan.inject import add_line

ROWS, CHANS = 16, 2048


def lit(channel: float, drift: float, width: float, snr: float, seed: int = 1, rows: int = ROWS) -> np.ndarray:
    """Standard noise with one line through `channel` half-way through."""
    sigmas = np.random.default_rng(seed).standard_normal((rows, CHANS), dtype=np.float32)
    edges = channel + drift * (np.arange(rows + 1) - rows / 2)
    add_line(sigmas, edges, width=width, snr=snr, noise=np.ones(rows))
    return sigmas


def hits(sigmas: np.ndarray, **options) -> list:
    return find_hits(sigmas, spread(sigmas), **options)


def test_the_tree_sums_along_straight_lines():
    power = np.zeros((8, 64), np.float32)
    for row in range(8):
        power[row, 10 + row] = 1
        power[row, 40] = 1
    tree = taylor_tree(power)
    assert tree[7, 10] == 8
    assert tree[0, 40] == 8


@pytest.mark.parametrize("rows", [16, 15, 30])
@pytest.mark.parametrize(
    ("drift", "width"), [(0, 1), (0.5, 2), (-0.9, 3), (3.3, 2), (-8, 10), (20, 3), (-25, 30), (0, 50)]
)
def test_a_line_is_found_where_it_is(drift, width, rows):
    best = hits(lit(1000.3, drift, width, 25, rows=rows), max_drift=26, min_snr=7)[0]
    assert abs(best.channel - 1000.3) < 2 + max(width, abs(drift))
    assert abs(best.drift - drift) < 0.1 + max(width, abs(drift)) / rows * 1.5
    assert best.snr > 0.5 * 25  # what the best of boxes a factor of two apart is sure to hold


def test_noise_alone_has_no_bright_lines():
    quiet = np.random.default_rng(9).standard_normal((ROWS, 2**15), dtype=np.float32)
    assert hits(quiet, max_drift=26, min_snr=7) == []


def test_flipping_the_band_mirrors_the_hits():
    sigmas = lit(900.0, 4.0, 2, 40)
    hit = hits(sigmas, max_drift=26, min_snr=10)[0]
    mirrored = hits(np.ascontiguousarray(sigmas[:, ::-1]), max_drift=26, min_snr=10)[0]
    assert mirrored.channel == pytest.approx(CHANS - 1 - hit.channel)
    assert mirrored.drift == -hit.drift
    assert mirrored.snr == pytest.approx(hit.snr, rel=1e-5)


def test_a_box_of_the_lines_own_width_holds_nearly_all_of_its_snr():
    sigmas = lit(700.0, 2.0, 4.0, 100)
    assert line_sum(sigmas, spread(sigmas), 700.0, 2.0, 6.0) == pytest.approx(100, rel=0.08)


def test_drifts_beyond_the_limit_are_not_reported():
    assert all(abs(hit.drift) <= 5 for hit in hits(lit(900, 12, 2, 60), max_drift=5, min_snr=6))


def test_a_burst_whose_channels_rise_and_fall_together_has_no_bright_lines():
    rng = np.random.default_rng(3)
    sigmas = rng.standard_normal((ROWS, 2**14), dtype=np.float32)
    patches = np.repeat(rng.standard_normal((3, 2**14 // 32), dtype=np.float32), 32, axis=1)
    sigmas[4:7] = patches
    assert hits(sigmas, max_drift=26, min_snr=7) == []
