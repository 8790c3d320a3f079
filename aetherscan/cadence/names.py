"""Names of observations: which spellings say that a scan is an OFF."""

import re
from functools import lru_cache

OFF_WORD = r"(?:OFF|REF|REFERENCE)(?:SET|SRC|SOURCE|POS|POSITION)?\d*"
SEPARATOR = r"[\s_.:+()\[\]-]"
OFF_NAME = re.compile(
    rf"(?:^|{SEPARATOR}){OFF_WORD}(?:$|{SEPARATOR})"  # OFF_HIP1, HIP1-off, HIP1_OFF1, HIP1 (OFF), REF_HIP1
    r"|_R$",  # Parkes: source _S, reference _R
    re.IGNORECASE,
)
JOINED_OFF = re.compile(
    r"\d(?:OFF|Off|off)\d*$"  # HIP1234off
    r"|[a-z]{2}OFF\d*$|(?:[A-Z]{2}|^X)off\d*$"  # VoyagerOFF, VOYAGERoff: a change of case in the middle of a word
    r"|^(?:OFF|Off|off)(?:HIP|HD|GJ|TIC|KIC|TOI|NGC|PSR|3C)\d"  # OFFHIP1234
)


@lru_cache(4096)  # grouping compares every scan many times
def named_off(name: str) -> bool:
    """Return whether the name of a scan says that it is an OFF: OFF_X, X-OFF, X_OFF1, Xoff, REF_X, X_R, in any case.

    `OFF` must be a word of its own, or be set off by a digit or a change of case: COFFEE is the name of a target.
    """
    return bool(OFF_NAME.search(name.strip()) or JOINED_OFF.search(name.strip()))
