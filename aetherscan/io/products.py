"""Total power of files with several polarization products: which are added, and whether their sum is power.

The header of a file may name its products with the values of POL_TYPE in PSRFITS (Hotan, van Straten & Manchester
2004, doi:10.1071/AS04022). Most do not. Then 2 or 4 products are those that rawspec writes, AA, BB, Re(AB*), Im(AB*),
and total power is the sum of the first two. rawspec can write Stokes I, Q, U, V instead (`-p -4`) without saying so. Q
has negative values, and a sum with them is refused.
"""

import numpy as np
from jaxtyping import Float32

from aetherscan.errors import FormatError, HeaderError

TOTAL_POWER = {"AABB": (0, 1), "AABBCRCI": (0, 1), "IQUV": (0,), "INTEN": (0,), "AA+BB": (0,)}
"""Products whose sum is total power, by POL_TYPE."""
UNNAMED = {1: "INTEN", 2: "AABB", 4: "AABBCRCI"}
"""POL_TYPE of a file that names none, by its number of products."""
CHOOSE = "`search.polarization: 1` or `--pol 1` searches product 1"


def chosen_products(nifs: int, pol_type: str, polarization: int | None) -> tuple[int, ...]:
    """Return the products to add, from 0.

    Args:
        nifs: number of products in the file.
        pol_type: POL_TYPE of the file; empty: it names none.
        polarization: product that the caller chose, from 1; None: total power.

    Raises:
        HeaderError: the file has no such product, or its products are not known to make total power.
    """
    if polarization is not None:
        if polarization > nifs:
            raise HeaderError(f"polarization: expected 1 to {nifs} as nifs says, found {polarization}")
        return (polarization - 1,)
    added = TOTAL_POWER.get(pol_type.upper() or UNNAMED.get(nifs, ""), ())
    if not added or added[-1] >= nifs:
        expected = f"nifs 1, 2 or 4, or one of {', '.join(TOTAL_POWER)} as pol_type, to know what total power is"
        raise HeaderError(f"polarization: expected {expected}, found nifs {nifs}, pol_type {pol_type!r}: {CHOOSE}")
    return added


def add_product(power: Float32[np.ndarray, "time freq"], other: Float32[np.ndarray, "time freq"], product: int) -> None:
    """Add another product, counted from 0, to the power of the first, in place.

    Raises:
        FormatError: the product has values below 0, as Stokes Q has.
    """
    if (least := np.fmin.reduce(other, axis=None)) < 0:
        raise FormatError(
            f"polarization: expected power of 0 or more in product {product + 1}, which is added to product 1, found "
            f"{least:g}, as Stokes Q has: {CHOOSE}"
        )
    power += other
