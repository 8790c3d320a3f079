"""Draw chi-squared noise four times as fast as NumPy draws normal deviates.

Sixteen xoshiro128+ generators (Blackman & Vigna 2021, doi:10.1145/3460772) run side by side, one in each vector lane.
The inverse error function turns their bits into normal deviates: two polynomials of Giles (2010, "Approximating the
erfinv function", GPU Computing Gems) and the logarithm of the Cephes library. The cube of a normal deviate approximates
a chi-squared one (Wilson & Hilferty 1931, doi:10.1073/pnas.17.12.684). The compiler may not contract or reorder the
arithmetic, so that a seed gives the same noise on every machine. The largest deviate is 6.3 sigma.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, UInt32

from aetherscan.kernels import njit

LANES = 16
BATCH = 16 * LANES


def _constants(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


CENTER = _constants(
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
TAIL = _constants(
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
LOGARITHM = _constants(
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
LN2, ROOT2 = _constants(0.693147180559945, 1.4142135623730951)
ONE, HALF, FOUR, SMALLEST = _constants(1, 0.5, 4, 2**-32)
TURN, IN_TAIL, TAIL_TURN = _constants(2.5, 5, 3)


@njit(inline="always")
@no_type_check
def _polynomial(x: float, constants: tuple[float, ...]) -> float:
    total = constants[0]
    for constant in constants[1:]:
        total = total * x + constant
    return total


@njit(inline="always")
@no_type_check
def _ln(x: float) -> float:
    bits = np.float32(x).view(np.uint32)
    mantissa = np.uint32(bits & np.uint32(0x7FFFFF))
    high = np.uint32(1) if mantissa > np.uint32(0x3504F3) else np.uint32(0)  # above the square root of two
    exponent = np.float32(np.int32(np.int32(np.uint32(bits >> np.uint32(23)) + high) - np.int32(127)))
    y = np.uint32(mantissa | np.uint32(np.uint32(0x3F800000) - np.uint32(high << np.uint32(23)))).view(np.float32) - ONE
    return y + _polynomial(y, LOGARITHM) * y * y * y - HALF * y * y + exponent * LN2


@njit(inline="always")
@no_type_check
def _normal(bits: int) -> float:
    upper = np.uint32(bits >> np.uint32(31))
    mirrored = np.uint32(bits ^ np.uint32(np.uint32(0) - upper))
    p = (np.float32(mirrored) + HALF) * SMALLEST  # tail probability, below one half
    w = -_ln(FOUR * p * (ONE - p))
    center, tail = _polynomial(w - TURN, CENTER), _polynomial(np.sqrt(w) - TAIL_TURN, TAIL)
    deviate = (center if w < IN_TAIL else tail) * (ONE - p - p) * ROOT2
    return deviate if upper == np.uint32(0) else -deviate


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_chi_squared(
    out: Float32[np.ndarray, " flat"], seeds: UInt32[np.ndarray, "4 lanes"], ninth: np.float32, root: np.float32
) -> None:
    """Fill an array with chi-squared noise of mean 1.

    Args:
        out: overwritten.
        seeds: states of the `LANES` generators; no state may be all zero.
        ninth: 2 / (9 x degrees of freedom), the variance of the normal deviate that is cubed.
        root: square root of `ninth`.
    """
    s0, s1, s2, s3 = seeds[0].copy(), seeds[1].copy(), seeds[2].copy(), seeds[3].copy()
    bits = np.empty(BATCH, dtype=np.uint32)
    for first in range(0, out.size, BATCH):
        for turn in range(0, BATCH, LANES):
            for k in range(LANES):
                a, b, c, d = s0[k], s1[k], s2[k], s3[k]
                bits[turn + k] = np.uint32(a + d)
                shifted = np.uint32(b << np.uint32(9))
                c, d = np.uint32(c ^ a), np.uint32(d ^ b)
                b, a = np.uint32(b ^ c), np.uint32(a ^ d)
                c, d = np.uint32(c ^ shifted), np.uint32(np.uint32(d << np.uint32(11)) | np.uint32(d >> np.uint32(21)))
                s0[k], s1[k], s2[k], s3[k] = a, b, c, d
        part = out[first : first + BATCH]  # a slice indexed from zero, because only then is this loop vectorized
        for k in range(part.size):
            cubed = ONE - ninth + root * _normal(bits[k])
            part[k] = cubed * cubed * cubed


DEGREES_OF_FREEDOM = 204
NOISE = (2 / DEGREES_OF_FREEDOM) ** 0.5
"""Sigma of one pixel, as a fraction of the mean: 0.099."""
BURST_NOISE = 4.0
"""Factor on the relative noise of a row during a burst, which lasts only a few of the row's integrations."""


def noise(rng: np.random.Generator, rows: int, chans: int) -> Float32[np.ndarray, "time freq"]:
    """Return noise power of mean 1: chi-squared with 204 degrees of freedom.

    At five sigma the approximation of Wilson & Hilferty is off by 1e-3. `rng` seeds the generators.
    """
    ninth = 2 / (9 * DEGREES_OF_FREEDOM)
    power = np.empty((rows, chans), dtype=np.float32)
    seeds = rng.integers(0, 2**32, (4, LANES), dtype=np.uint32)
    fill_chi_squared(power.reshape(-1), seeds, np.float32(ninth), np.float32(ninth**0.5))
    return power


def burst(noise: Float32[np.ndarray, " freq"], times: float) -> Float32[np.ndarray, " freq"]:
    """Return a row of noise during a broadband burst: `times` brighter, with `BURST_NOISE` times the relative noise."""
    return times * (1 + BURST_NOISE * (noise - 1))
