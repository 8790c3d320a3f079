"""Group observations into ON/OFF cadences by what their headers say; file names are never asked.

A *slice* is the observations that can be laid over one another: one telescope and, to within a channel, the same fch1,
foff, nchans and tsamp. Inside a slice the scans stand in time order, and **every** six consecutive scans that show one
place at 0, 2, 4 and other places at 1, 3, 5 are a cadence. Windows may overlap: a target observed for twelve scans is
four cadences, and a star that was somebody's OFF three times is a target in its own right. Cutting a run into separate
sixes instead would depend on which scan of it landed first.

Scans are consecutive when no whole scan fits between them. The telescope may also rest between the first and the last
ON, for the alternation goes on afterwards; and before the last OFF, once later scans show that it is no new target's
first. BACADA, the target second, is read only where an OFF opens a run of scans and no OFF closes the same three ONs.
The page `docs/cadences.md` shows these rules on observers' own lists.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, Header

SAME_SCAN_S = 20.0
"""Recording nodes start one scan within this of each other."""
MAX_STEP_S = 600.0
"""Less than two of the shortest steps on record (309 s): nothing can have been missed in between."""
MAX_REST_S = 5400.0
"""Wind, a repair, a test scan: the longest rest on record after which observers took a cadence up again is 84 min."""
SAME_PLACE_DEG = 1 / 60
"""Inside GBT's beam at X band; OFF positions are several beams away."""
CALIBRATORS = frozenset({"3C48", "3C123", "3C147", "3C196", "3C286", "3C295"})
FIRST, SECOND = (0, 2, 4), (1, 3, 5)
"""Where the ONs are when the target leads (ABACAD), and when an OFF does (BACADA)."""
SLICE: tuple[tuple[Callable[[Header], float], Callable[[Header], float]], ...] = (
    (lambda header: header.foff, lambda header: 1e-4 * abs(header.foff)),
    (lambda header: header.tsamp, lambda header: 1e-2 * header.tsamp),
    (lambda header: header.nchans, lambda _: 1),
    (lambda header: header.fch1, lambda header: abs(header.foff)),
)
"""What a slice's observations share, and how far it may differ: writers round, and shift fch1 by half a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Six observations searched as one; `members` are places in the headers that were given, in time order."""

    members: tuple[int, int, int, int, int, int]
    target: str
    pattern: str  # the target is A wherever it stands: "ABACAD", "BACADA"
    on: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Observations that are in no cadence, and what they lack; some may also serve in a cadence beside theirs."""

    members: tuple[int, ...]
    target: str
    why: str
    pattern: str | None = None  # where only OFFs are missing: "A.ACAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Every observation is in a cadence, waiting, or a second copy of one that is."""

    cadences: tuple[Cadence, ...]
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    index: int
    header: Header


def find_cadences(headers: Sequence[Header]) -> Grouping:
    """Find every cadence among `headers`, given in any order, and say what the others wait for."""
    once = {headers[i].identity: _Scan(index=i, header=headers[i]) for i in reversed(range(len(headers)))}
    ordered = sorted(once.values(), key=lambda scan: (scan.header.tstart, scan.header.identity))
    cadences: list[Cadence] = []
    waiting: list[Waiting] = []
    for telescope in {header.telescope_id for header in headers}:
        observations = [scan for scan in ordered if scan.header.telescope_id == telescope]
        starts = [scan.header.tstart for scan in observations]
        pointings = _cadences(_scans(observations)[0], starts)
        for observed in _slices(observations):
            scans, aside = _scans(observed)
            found = _cadences(scans, starts)
            cadences += found
            waiting += aside + _lacking(scans, found, [(p.on, [headers[i] for i in p.members]) for p in pointings])
    place = {scan.index: rank for rank, scan in enumerate(ordered)}
    return Grouping(
        cadences=tuple(sorted(cadences, key=lambda cadence: [place[i] for i in cadence.members])),
        waiting=tuple(sorted(waiting, key=lambda group: [place[i] for i in group.members])),
    )


def _slices(observations: list[_Scan]) -> list[list[_Scan]]:
    parts = [observations]
    for value, tolerance in SLICE:
        groups, parts = parts, []
        for group in groups:
            ranked = sorted(group, key=lambda scan: value(scan.header))
            apart = (value(b.header) - value(a.header) > tolerance(b.header) for a, b in pairwise(ranked))
            cuts = [i for i, cut in enumerate(apart, 1) if cut]
            parts += [ranked[a:b] for a, b in pairwise([0, *cuts, len(ranked)])]
    return parts


def _scans(observations: list[_Scan]) -> tuple[list[_Scan], list[Waiting]]:
    """Return one observation per scan, and those set aside: shorter files of a scan, scans that were begun again."""
    scans: list[_Scan] = []
    aside: list[Waiting] = []
    for scan in sorted(observations, key=lambda scan: scan.header.tstart):
        gap = _gap_s(scans[-1], scan) if scans else math.inf
        again = gap <= MAX_STEP_S and 2 * scans[-1].header.duration_s < scan.header.duration_s
        if gap > SAME_SCAN_S and not (again and _same(scans[-1].header, scan.header)):
            scans.append(scan)
            continue
        more, less = sorted((scans.pop(), scan), key=lambda scan: scan.header.duration_s, reverse=True)
        scans.append(more)
        why = f"set aside: {less.header.ntime} rows, and {more.header.ntime} from MJD {more.header.tstart:.4f}"
        aside.append(Waiting(members=(less.index,), target=less.header.source_name, why=why))
    return _told_apart(scans), aside


def _told_apart(scans: list[_Scan]) -> list[_Scan]:
    """Name every second scan of a spacecraft's run its OFF, where neither names nor coordinates do (Voyager tests)."""
    named: list[_Scan] = []
    for scan in scans:
        name = scan.header.source_name
        untold = named and "VOYAGER" in name.upper() and _same(named[-1].header, scan.header)
        off = bool(untold) and _gap_s(named[-1], scan) <= MAX_STEP_S
        named.append(replace(scan, header=replace(scan.header, source_name=f"{name}_OFF")) if off else scan)
    return named


def _cadences(scans: list[_Scan], starts: Sequence[float]) -> list[Cadence]:
    """Return the cadences of one slice; `starts` are those of all observations of the telescope."""
    found: list[Cadence] = []
    led_by_off: list[Cadence] = []
    for i in range(len(scans) - 5):
        six = scans[i : i + 6]
        moved_on = starts[-1] > six[5].header.tstart + 2 * MAX_STEP_S / SECONDS_PER_DAY
        alone = moved_on and not any(_same(six[5].header, scan.header) for scan in scans[i + 6 : i + 8])
        first, second = _reads(six, FIRST, 5 if alone else 4, starts), _reads(six, SECOND, 5, starts)
        primary_second = first and second and _is_off(six[0].header)
        opens = i == 0 or _gap_s(scans[i - 1], six[0]) > MAX_STEP_S
        if first and not primary_second:
            found.append(_cadence(six, FIRST))
        elif second and (primary_second or (opens and not _is_calibrator(six[0].header))):
            led_by_off.append(_cadence(six, SECOND))
    taken = {tuple(cadence.members[i] for i in cadence.on) for cadence in found}
    return found + [one for one in led_by_off if tuple(one.members[i] for i in one.on) not in taken]


def _reads(six: list[_Scan], on: tuple[int, int, int], rest_until: int, starts: Sequence[float]) -> bool:
    """Tell whether six scans are a cadence with its ONs at `on`, resting only from the first ON to `rest_until`."""
    target, lengths = six[on[0]].header, [scan.header.duration_s for scan in six]
    return (
        all(_same(target, scan.header) == (i in on) for i, scan in enumerate(six))
        and not _is_calibrator(target)
        and 2 * min(lengths) > max(lengths)
        and all(
            _gap_s(a, b) <= MAX_STEP_S or (on[0] <= i < rest_until and _rests(a, b, starts))
            for i, (a, b) in enumerate(pairwise(six))
        )
    )


def _rests(a: _Scan, b: _Scan, starts: Sequence[float]) -> bool:
    """Tell whether the telescope took no scan at all, in any slice, between two that are not too far apart."""
    tolerance = SAME_SCAN_S / SECONDS_PER_DAY
    between = bisect_left(starts, b.header.tstart - tolerance) - bisect_right(starts, a.header.tstart + tolerance)
    return _gap_s(a, b) <= MAX_REST_S and between <= 0


def _cadence(six: list[_Scan], on: tuple[int, int, int]) -> Cadence:
    places = [six[on[0]].header]
    pattern = ""
    for scan in six:
        letter = next((i for i, place in enumerate(places) if _same(place, scan.header)), len(places))
        places += [scan.header][: letter == len(places)]
        pattern += "ABCDEF"[letter]
    a, b, c, d, e, f = (scan.index for scan in six)
    return Cadence(members=(a, b, c, d, e, f), target=places[0].source_name, pattern=pattern, on=on)


def _lacking(
    scans: list[_Scan], found: list[Cadence], pointings: list[tuple[tuple[int, int, int], list[Header]]]
) -> list[Waiting]:
    """Group a slice's scans that are in no cadence: by what other slices saw, else by how far the alternation goes."""
    used = {i for cadence in found for i in cadence.members}
    free = [scan for scan in scans if scan.index not in used]
    waiting: list[Waiting] = []
    for on, seen in pointings:
        if lost := {scan.index for scan in _within(free, seen[0], seen[5])}:
            present = {
                position: scan for position, header in enumerate(seen) for scan in _within(scans, header, header)
            }
            if len(present) < 6 and not lost.isdisjoint(scan.index for scan in present.values()):
                waiting.append(_wait(present, on, seen))
                lost = {scan.index for scan in present.values()}
                free = [scan for scan in free if scan.index not in lost]
    while free:
        present, on = max(((_begun(free, on), on) for on in (FIRST, SECOND)), key=lambda reading: len(reading[0]))
        waiting.append(_wait(present, on))
        free = free[len(present) :]
    return waiting


def _begun(scans: list[_Scan], on: tuple[int, int, int]) -> dict[int, _Scan]:
    """Return the first scans by position, for as long as they could be one cadence with holes."""
    present = {0: scans[0]}
    position = 0
    for last, scan in pairwise(scans):
        position += max(1, round(_gap_s(last, scan) / SCAN_STEP_S))
        more = {**present, position: scan}
        target = next((held.header for i, held in more.items() if i in on), scan.header)
        if position > 5 or _is_calibrator(target) or any(_same(target, more[i].header) != (i in on) for i in more):
            break
        present = more
    return present


def _wait(present: dict[int, _Scan], on: tuple[int, int, int], seen: Sequence[Header] = ()) -> Waiting:
    """Say which positions are missing, where the first would have been, and in which slice."""
    held = [scan.header for scan in present.values()]
    target = next((scan.header for i, scan in present.items() if i in on), held[0]).source_name
    missing, name = [i for i in range(6) if i not in present], "ABACAD" if on == FIRST else "BACADA"
    why = "waiting for one more OFF: six scans of unequal length, or an OFF before them that has its own ON"
    if missing:
        gap = missing[0]
        beside = present[gap - 1].header if gap else held[0]
        clue = f"{'after' if gap else 'before'} {beside.source_name} at MJD {beside.tstart:.4f}"
        if seen:
            clue = f"{seen[gap].source_name} at MJD {seen[gap].tstart:.4f}, which other slices have"
        why = (
            f"waiting for position {', '.join(map(str, missing))} of {name}: "
            f"the {'ON' if gap in on else 'OFF'} {clue} (fch1 {held[0].fch1:.4f} MHz)"
        )
    members = tuple(present[i].index for i in sorted(present))
    letters = "".join(letter if i in present else "." for i, letter in enumerate(name))
    searchable = "." in letters and letters.count("A") == 3 and letters.count(".") < 3
    return Waiting(members=members, target=target, why=why, pattern=letters if searchable else None)


def _within(scans: list[_Scan], first: Header, last: Header) -> list[_Scan]:
    """Return the scans that started with `first`, with `last` or between them, to within a node's delay."""
    delay = SAME_SCAN_S / SECONDS_PER_DAY
    start = bisect_left(scans, first.tstart - delay, key=lambda scan: scan.header.tstart)
    return scans[start : bisect_right(scans, last.tstart + delay, key=lambda scan: scan.header.tstart)]


def _gap_s(a: _Scan, b: _Scan) -> float:
    return (b.header.tstart - a.header.tstart) * SECONDS_PER_DAY


def _same(a: Header, b: Header) -> bool:
    """Tell whether two scans pointed at one place: coordinates decide; names do where a header has none.

    An OFF is never its ON, for its header may carry the catalog's coordinates of the ON.
    """
    if _is_off(a) != _is_off(b):
        return False
    if not all(math.isfinite(h.src_raj + h.src_dej) and (h.src_raj, h.src_dej) != (0, 0) for h in (a, b)):
        return a.source_name == b.source_name  # writers that know no coordinates put zeros
    east = ((a.src_raj - b.src_raj + 12) % 24 - 12) * 15 * math.cos(math.radians(a.src_dej))
    return math.hypot(east, a.src_dej - b.src_dej) < SAME_PLACE_DEG


def _is_off(header: Header) -> bool:
    return header.source_name.upper().endswith(("_OFF", "_R"))  # Parkes: source _S, reference _R


def _is_calibrator(header: Header) -> bool:
    return header.source_name.upper().removeprefix("DIAG_").removesuffix("_OFF") in CALIBRATORS
