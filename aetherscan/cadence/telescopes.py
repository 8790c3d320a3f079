"""Telescopes by SIGPROC number: name, receivers, place.

The numbers are those of SIGPROC's `telescope_name` (Lorimer, sigproc.sourceforge.net). The places are geocentric (ITRF)
and come from the table of observatories of the pulsar timing package PINT (Luo et al. 2021, arXiv:2012.00074), file
`observatories.json`. They are known to tens of meters, and one kilometer changes a barycentric frequency by 3 parts in
10^10. Number 9 is left out, because programs disagree about it, and 11 (LOFAR), which has many stations.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Telescope:
    """A telescope.

    Attributes:
        name: as messages and tables show it.
        itrf_m: geocentric coordinates x, y, z in meters.
        receivers_mhz: lowest and highest frequency that it receives; None where that is not known here.
    """

    name: str
    itrf_m: tuple[float, float, float]
    receivers_mhz: tuple[float, float] | None = None


TELESCOPES = {
    1: Telescope(name="Arecibo", itrf_m=(2390487.1, -5564731.4, 1994720.6), receivers_mhz=(47, 10_200)),
    2: Telescope(name="Ooty", itrf_m=(1442713.0, 6087044.7, 1251052.4)),
    3: Telescope(name="Nancay", itrf_m=(4324165.8, 165927.1, 4670132.8)),
    4: Telescope(name="Parkes", itrf_m=(-4554231.5, 2816759.1, -3454036.3), receivers_mhz=(70, 26_000)),
    5: Telescope(name="Lovell", itrf_m=(3822625.8, -154105.3, 5086486.3), receivers_mhz=(300, 8_000)),
    6: Telescope(name="GBT", itrf_m=(882589.3, -4924872.4, 3943729.4), receivers_mhz=(290, 116_000)),
    7: Telescope(name="GMRT", itrf_m=(1656342.3, 5797947.8, 2073243.2), receivers_mhz=(50, 1_500)),
    8: Telescope(name="Effelsberg", itrf_m=(4033947.1, 486990.9, 4900431.1), receivers_mhz=(300, 95_500)),
    20: Telescope(name="CHIME", itrf_m=(-2059166.3, -3621303.0, 4814304.1)),
    21: Telescope(name="FAST", itrf_m=(-1668557.0, 5506838.0, 2744934.0)),
    64: Telescope(name="MeerKAT", itrf_m=(5109360.1, 2006852.6, -3238948.1), receivers_mhz=(544, 3_500)),
}
"""By SIGPROC number."""
