"""Cadences whose roles the user states: the headers are overruled, and each contradiction is a warning."""

from collections.abc import Sequence

from aetherscan.cadence.geometry import MOST_SCANS, check_cadence
from aetherscan.cadence.grouping import Cadence, is_calibrator
from aetherscan.cadence.names import named_off
from aetherscan.cadence.places import same_place, separation_arcmin
from aetherscan.errors import CadenceError
from aetherscan.header import Header
from aetherscan.options.cadence import CadenceRules


def check_pattern(pattern: str) -> str:
    """Return a pattern in capital letters.

    Raises:
        CadenceError: it does not have at least two ONs and one OFF, or has too many scans.
    """
    letters, shown = pattern.strip().upper(), repr(pattern)
    on = letters.count("A")
    if not (letters.isascii() and letters.isalpha()) or on < 2 or on == len(letters):
        raise CadenceError(
            f"expected a letter for each scan, A for an ON and others for OFFs, with at least two ONs and one OFF, "
            f"found {shown}"
        )
    if len(letters) > MOST_SCANS:
        raise CadenceError(f"expected at most {MOST_SCANS} scans, found {len(letters)} ({letters})")
    return letters


def explicit_cadence(
    headers: Sequence[Header], pattern: str, rules: CadenceRules | None = None
) -> tuple[Cadence, list[str]]:
    """Return a cadence with the roles of a pattern, in time order, and warnings of what the headers say otherwise.

    Args:
        headers: one for each scan, in the order of the pattern.
        pattern: A for an ON, another letter for an OFF.
        rules: of places, lengths and spacing, for the warnings.

    Raises:
        CadenceError: the pattern cannot be searched, there is not one scan for each letter, two scans start together,
            or the scans do not share their channels.
    """
    rules, letters = rules or CadenceRules(), check_pattern(pattern)
    if len(headers) != len(letters):
        raise CadenceError(f"expected {len(letters)} files, one for each letter of {letters}, found {len(headers)}")
    members = tuple(sorted(range(len(headers)), key=lambda i: headers[i].tstart))
    ordered, roles = [headers[i] for i in members], "".join(letters[i] for i in members)
    on = tuple(i for i, letter in enumerate(roles) if letter == "A")
    check_cadence(ordered, on)
    warnings = list(_contradictions(ordered, on, rules))
    if members != tuple(range(len(headers))):
        warnings.insert(0, f"files are not in the order of their times: searched in that order, as {roles}")
    return Cadence(members=members, target=ordered[on[0]].source_name, pattern=roles, on=on), warnings


def _contradictions(headers: Sequence[Header], on: Sequence[int], rules: CadenceRules) -> list[str]:
    """Say which headers contradict their roles."""
    target, found = headers[on[0]], []
    for i, header in enumerate(headers):
        scan, is_on = f"scan {i + 1}, {header.source_name},", i in on
        distance = separation_arcmin(target, header)
        apart = "" if distance is None else f" ({distance:.1f}' apart)"
        if is_on and named_off(header.source_name):
            found.append(f"{scan} is an ON although its name says OFF")
        elif is_on and not same_place(target, header, rules):
            found.append(f"{scan} is an ON although its header has another place than scan {on[0] + 1}{apart}")
        elif not is_on and same_place(target, header, rules):
            found.append(f"{scan} is an OFF although its header has the place of the ONs{apart}")
        if is_on and is_calibrator(header):
            found.append(f"{scan} is an ON although it is a calibrator")
    lengths = [header.duration_s for header in headers]
    if min(lengths) <= rules.min_length_ratio * max(lengths):
        found.append(
            f"scans of {min(lengths):.0f} to {max(lengths):.0f} s: a short OFF is less sensitive to faint lines"
        )
    return found
