"""What a recall by SNR means for a transmitter: flux at the telescope, and equivalent isotropic radiated power (EIRP).

A line of width b, seen for the time t in two polarizations by a telescope of system equivalent flux density (SEFD), has
matched-filter SNR 1 at the flux SEFD sqrt(b / (2 t)) (W/m^2; Enriquez et al. 2017, arXiv:1709.03491, equation 1, where
b is one channel). At the distance d that is an EIRP of 4 pi d^2 times the flux. The SEFDs are those with which the
published limits at 50 pc follow from SNR 10 and 300 s: 2.1e12 W for Green Bank at L and S band, and 9.1e12 W for Parkes
at 10 cm (Price et al. 2020, arXiv:1906.07750).
"""

import math

SEFD_JY = {"Green Bank, L and S band": 10.0, "Parkes, 10 cm": 43.0}
DISTANCES_PC = (10.0, 100.0)
WIDTH_HZ, SECONDS = 2.7939677238464355, 292.0
"""Width of the line, one channel, and length of one ON."""
POLARIZATIONS = 2
JY = 1e-26
"""W / (m^2 Hz)."""
PARSEC_M = 3.0857e16


def flux_w_m2(snr: float, sefd_jy: float, width_hz: float = WIDTH_HZ, seconds: float = SECONDS) -> float:
    """Return the flux of a line, W/m^2; divided by 1e-26 it is in Jy Hz.

    Args:
        snr: of the matched filter in one ON.
        sefd_jy: system equivalent flux density of the telescope, Jy.
        width_hz: of the line, Hz.
        seconds: length of the ON.
    """
    return snr * sefd_jy * JY * math.sqrt(width_hz / (POLARIZATIONS * seconds))


def eirp_w(flux: float, distance_pc: float) -> float:
    """Return the equivalent isotropic radiated power, W, of a flux in W/m^2 from a distance in pc."""
    return 4 * math.pi * (distance_pc * PARSEC_M) ** 2 * flux
