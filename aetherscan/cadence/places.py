"""Which scans point at the same place: by coordinates, names and, for a target that moves, its steady motion."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from aetherscan.cadence.names import named_off
from aetherscan.header import Header
from aetherscan.options.cadence import CadenceRules


def separation_arcmin(a: Header, b: Header) -> float | None:
    """Return the distance between the places of two scans, in arcminutes; None where a header has no coordinates."""
    offset = offset_arcmin(a, b)
    return None if offset is None else math.hypot(*offset)


def largest_separation_arcmin(headers: Sequence[Header]) -> float | None:
    """Return the largest distance between the places of scans, in arcminutes; None where none can be computed."""
    distances = [separation_arcmin(a, b) for a, b in combinations(headers, 2)]
    return max((distance for distance in distances if distance is not None), default=None)


def same_place(a: Header, b: Header, rules: CadenceRules) -> bool:
    """Return whether two scans pointed at the same place: by coordinates, or by names where a header has none.

    A scan named as an OFF never has the place of one that is not, because headers may give an OFF the coordinates of
    its ON.
    """
    if named_off(a.source_name) != named_off(b.source_name):
        return False
    distance = separation_arcmin(a, b)
    return a.source_name == b.source_name if distance is None else distance < rules.place_arcmin


def alternates(scans: Mapping[int, Header], on: Sequence[int], rules: CadenceRules) -> bool:
    """Return whether the ONs among scans share a place, or follow one moving target, and the OFFs lie elsewhere.

    Args:
        scans: headers by position in the cadence; positions may be missing.
        on: positions of the ONs.
        rules: tolerance of a place, and fastest motion.
    """
    ons = [header for position, header in scans.items() if position in on]
    offs = [header for position, header in scans.items() if position not in on]
    if all(same_place(ons[0], header, rules) for header in ons[1:]):
        return not any(same_place(ons[0], header, rules) for header in offs) if ons else True
    return _moves_steadily(ons, rules) and not any(_on_path(header, ons, rules) for header in offs)


def _moves_steadily(ons: Sequence[Header], rules: CadenceRules) -> bool:
    """Return whether the ONs bear one name and lie on a path of constant motion, not faster than the limit."""
    first, last = ons[0], ons[-1]
    distance, hours = separation_arcmin(first, last), (last.tstart - first.tstart) * 24
    return (
        len({header.source_name for header in ons}) == 1
        and distance is not None
        and hours > 0
        and distance < rules.place_arcmin + rules.max_motion_arcmin_h * hours
        and all(_on_path(header, ons, rules) for header in ons[1:-1])
    )


def _on_path(header: Header, ons: Sequence[Header], rules: CadenceRules) -> bool:
    """Return whether a scan points where a target that moves from the first ON to the last is at that time."""
    if named_off(header.source_name) != named_off(ons[0].source_name):
        return False
    first, last = ons[0], ons[-1]
    whole, offset = offset_arcmin(first, last), offset_arcmin(first, header)
    if whole is None or offset is None:
        return header.source_name == first.source_name
    share = (header.tstart - first.tstart) / (last.tstart - first.tstart)
    return math.hypot(offset[0] - share * whole[0], offset[1] - share * whole[1]) < rules.place_arcmin


def offset_arcmin(a: Header, b: Header) -> tuple[float, float] | None:
    """Return how far `b` lies east and north of `a`, in arcminutes; None where a header has no coordinates."""
    if not (a.has_coordinates and b.has_coordinates):
        return None
    east = ((b.src_raj - a.src_raj + 12) % 24 - 12) * 15 * math.cos(math.radians(a.src_dej))
    return 60 * east, 60 * (b.src_dej - a.src_dej)
