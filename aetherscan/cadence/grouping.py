"""Group observations into ON/OFF cadences by their headers; file names are not used.

A *slice* holds the observations that can be searched together: one telescope and, to within a channel, the same fch1,
foff, nchans and tsamp. The scans of a slice are put in time order. **Every** six consecutive scans with one place at
positions 0, 2, 4 and other places at 1, 3, 5 are a cadence. Cadences may overlap: a target observed for twelve scans
gives four, and a star that was an OFF three times is a target too. Cutting a run into separate groups of six would make
the answer depend on which scan landed first. `CadenceRules.scans` gives another number than six, for every cadence: the
first four scans of an ABACAD look like a whole ABAC, so headers cannot say which was meant.

Scans are consecutive when no whole scan fits between them. Longer rests are allowed between the first and the last ON,
because the alternation continues after them, and before the last OFF, if later scans show that it is not the first ON
of another target. BACADA, the target second, is accepted only where its first OFF opens a run of scans and no ABACAD
cadence has the same three ONs. `docs/cadences.md` compares these rules with observers' own lists of cadences.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from aetherscan.cadence.geometry import FEWEST_SCANS
from aetherscan.cadence.names import named_off
from aetherscan.cadence.places import alternates, offset_arcmin, same_place, separation_arcmin
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, Header
from aetherscan.options.cadence import CadenceRules

SAME_SCAN_S = 20.0
"""Recording nodes start the same scan within this time of each other."""
SCAN_S = 292.1
"""Length of the scans whose median spacing is `SCAN_STEP_S`."""
CALIBRATORS = frozenset({"3C48", "3C123", "3C147", "3C196", "3C286", "3C295"})
SLICE: tuple[tuple[Callable[[Header], float], Callable[[Header], float]], ...] = (
    (lambda header: header.foff, lambda header: 1e-4 * abs(header.foff)),
    (lambda header: header.tsamp, lambda header: 1e-2 * header.tsamp),
    (lambda header: header.nchans, lambda _: 1),
    (lambda header: header.fch1, lambda header: abs(header.foff)),
)
"""Header values that a slice shares, and their tolerances: writers round, and shift fch1 by half a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Observations that are searched together."""

    members: tuple[int, ...]  # indices of the given headers, in time order
    target: str
    pattern: str  # one letter per place, A for the target: "ABACAD", "BACADA"
    on: tuple[int, ...]  # positions of the ONs


@dataclass(frozen=True, slots=True, kw_only=True)
class Ungrouped:
    """Observations that make no cadence, and the reason. An OFF among them may also belong to another cadence."""

    members: tuple[int, ...]  # indices of the given headers, in time order
    target: str
    reason: str
    pattern: str | None = None  # "A.ACAD" if all three ONs are there and only OFFs are missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """The cadences, and the observations left over. Second copies of an observation are in neither."""

    cadences: tuple[Cadence, ...]
    ungrouped: tuple[Ungrouped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    index: int
    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pointing:
    """Scans of the telescope that make a cadence when all slices are taken together."""

    on: tuple[int, ...]
    headers: Sequence[Header]


def find_cadences(headers: Sequence[Header], rules: CadenceRules | None = None) -> Grouping:
    """Find every cadence among `headers`, which may be in any order, and give the reason why the others are in none."""
    rules = rules or CadenceRules()
    unique = {headers[i].identity: _Scan(index=i, header=headers[i]) for i in reversed(range(len(headers)))}
    ordered = sorted(unique.values(), key=lambda scan: (scan.header.tstart, scan.header.identity))
    cadences: list[Cadence] = []
    ungrouped: list[Ungrouped] = []
    for telescope in {header.telescope_id for header in headers}:
        observations = [scan for scan in ordered if scan.header.telescope_id == telescope]
        starts = [scan.header.tstart for scan in observations]
        named = (rules.beams.on_beam, *rules.beams.off_beams)
        together, waiting = _beam_cadences([scan for scan in observations if scan.header.ibeam in named], rules)
        cadences += together
        ungrouped += waiting
        alone = [scan for scan in observations if scan.header.ibeam not in named]
        beams, without_beam = _split_into_beams(alone, rules)
        ungrouped += without_beam
        for beam in beams:
            all_slices = _name_voyager_offs(_merge_files(beam, rules)[0], rules)
            pointings = [
                _Pointing(on=cadence.on, headers=[headers[i] for i in cadence.members])
                for cadence in _slice_cadences(all_slices, starts, rules)
            ]
            for observed in _split_into_slices(beam):
                merged, set_aside = _merge_files(observed, rules)
                scans = _name_voyager_offs(merged, rules)
                found = _slice_cadences(scans, starts, rules)
                cadences += found
                ungrouped += set_aside + _group_incomplete(scans, found, pointings, rules)
    rank = {scan.index: i for i, scan in enumerate(ordered)}
    return Grouping(
        cadences=tuple(sorted(cadences, key=lambda cadence: [rank[i] for i in cadence.members])),
        ungrouped=tuple(sorted(ungrouped, key=lambda group: [rank[i] for i in group.members])),
    )


def _split_into_beams(observations: list[_Scan], rules: CadenceRules) -> tuple[list[list[_Scan]], list[Ungrouped]]:
    """Return the observations of each beam of a telescope, and those of which the beam is not known.

    Beams are distinguished by their numbers. Files without a number that start together at different places are beams
    too: they are numbered by their places relative to each other, which do not change from scan to scan.
    """
    numbered: dict[int, list[_Scan]] = {}
    for scan in observations:
        numbered.setdefault(max(scan.header.ibeam, -1), []).append(scan)
    clusters = _simultaneous(numbered.pop(-1, []))
    places = [_places(cluster, rules) for cluster in clusters]
    count = max(map(len, places), default=0)
    unnumbered: dict[int, list[_Scan]] = {}
    unknown: list[Ungrouped] = []
    for cluster, there in zip(clusters, places, strict=True):
        for scan in cluster:
            distances = [separation_arcmin(place, scan.header) for place in there]
            near = [i for i, distance in enumerate(distances) if distance is not None and distance < rules.place_arcmin]
            if count > 1 and (len(there) < count or not near):
                reason = f"beam not known: expected files of {count} simultaneous places, or ibeam, found {len(there)}"
                unknown.append(Ungrouped(members=(scan.index,), target=scan.header.source_name, reason=reason))
            else:
                unnumbered.setdefault(near[0] if count > 1 else 0, []).append(scan)
    return [*numbered.values(), *unnumbered.values()], unknown


def _simultaneous(scans: list[_Scan]) -> list[list[_Scan]]:
    """Return the scans, which are in time order, in groups that start together."""
    clusters: list[list[_Scan]] = []
    for scan in scans:
        if not clusters or _gap_s(clusters[-1][0], scan) > SAME_SCAN_S:
            clusters.append([])
        clusters[-1].append(scan)
    return clusters


def _beam_cadences(observations: list[_Scan], rules: CadenceRules) -> tuple[list[Cadence], list[Ungrouped]]:
    """Return a cadence of one ON and its OFFs for each scan of the beams that the rules name, and scans without one.

    Roles are those of the beams' numbers. Places are not compared: some headers have one place for all beams.
    """
    cadences: list[Cadence] = []
    ungrouped: list[Ungrouped] = []
    roles = rules.beams
    order = [roles.on_beam, *roles.off_beams]
    for observed in _split_into_slices(observations):
        scans: list[_Scan] = []
        for beam in {scan.header.ibeam for scan in observed}:
            of_beam, set_aside = _merge_files([scan for scan in observed if scan.header.ibeam == beam], rules)
            scans += of_beam
            ungrouped += set_aside
        for cluster in _simultaneous(sorted(scans, key=lambda scan: (scan.header.tstart, scan.header.ibeam))):
            members, beams = tuple(scan.index for scan in cluster), [scan.header.ibeam for scan in cluster]
            on = tuple(i for i, beam in enumerate(beams) if beam == roles.on_beam)
            target = cluster[on[0] if on else 0].header
            lengths = [scan.header.duration_s for scan in cluster]
            reason = ""
            if missing := [str(beam) for beam in order if beam not in beams]:
                reason = f"waiting for beam {', '.join(missing)} of the scan at MJD {target.tstart:.4f}"
            elif min(lengths) <= rules.min_length_ratio * max(lengths):
                reason = f"unequal length: simultaneous beams of {min(lengths):.0f} to {max(lengths):.0f} s"
            elif is_calibrator(target):
                reason = "the ON beam is on a calibrator"
            if reason:
                where = f"{reason} (fch1 {target.fch1:.4f} MHz; `beams:` in the configuration)"
                ungrouped.append(Ungrouped(members=members, target=target.source_name, reason=where))
                continue
            pattern = "".join("ABCDEFGHIJKLM"[order.index(beam)] for beam in beams)
            cadences.append(Cadence(members=members, target=target.source_name, pattern=pattern, on=on))
    return cadences, ungrouped


def _places(cluster: list[_Scan], rules: CadenceRules) -> list[Header]:
    """Return a header of each place that files of one scan have, ordered by their places relative to each other."""
    places: list[Header] = []
    for scan in cluster:
        distances = [separation_arcmin(place, scan.header) for place in places]
        if scan.header.has_coordinates and all(d is not None and d >= rules.place_arcmin for d in distances):
            places.append(scan.header)
    offsets = [offset_arcmin(places[0], place) or (0.0, 0.0) for place in places]
    # No two beams of a regular pattern lie on a line at right angles to this direction.
    along = [east * math.cos(1.0) + north * math.sin(1.0) for east, north in offsets]
    return [places[i] for i in sorted(range(len(places)), key=along.__getitem__)]


def _split_into_slices(observations: list[_Scan]) -> list[list[_Scan]]:
    parts = [observations]
    for value, tolerance in SLICE:
        groups, parts = parts, []
        for group in groups:
            ranked = sorted(group, key=lambda scan: value(scan.header))
            apart = (value(b.header) - value(a.header) > tolerance(b.header) for a, b in pairwise(ranked))
            cuts = [i for i, cut in enumerate(apart, 1) if cut]
            parts += [ranked[a:b] for a, b in pairwise([0, *cuts, len(ranked)])]
    return parts


def _merge_files(observations: list[_Scan], rules: CadenceRules) -> tuple[list[_Scan], list[Ungrouped]]:
    """Return one observation per scan, and those set aside: shorter files of a scan, and aborted scans."""
    scans: list[_Scan] = []
    set_aside: list[Ungrouped] = []
    for scan in sorted(observations, key=lambda scan: scan.header.tstart):
        gap = _gap_s(scans[-1], scan) if scans else math.inf
        restarted = gap <= rules.max_step_s and 2 * scans[-1].header.duration_s < scan.header.duration_s
        if gap > SAME_SCAN_S and not (restarted and same_place(scans[-1].header, scan.header, rules)):
            scans.append(scan)
            continue
        longer, shorter = sorted((scans.pop(), scan), key=lambda scan: scan.header.duration_s, reverse=True)
        scans.append(longer)
        kept = f"the file from MJD {longer.header.tstart:.4f} has {longer.header.ntime}"
        reason = f"set aside: {shorter.header.ntime} rows; {kept}"
        if longer.header.tstart == shorter.header.tstart:
            names = f"{longer.header.source_name} and {shorter.header.source_name}"
            reason += f"; expected scans at different times, found one tstart for {names}"
        set_aside.append(Ungrouped(members=(shorter.index,), target=shorter.header.source_name, reason=reason))
    return scans, set_aside


def _name_voyager_offs(scans: list[_Scan], rules: CadenceRules) -> list[_Scan]:
    """Add `_OFF` to the name of every second scan of a Voyager test, where names and coordinates are all the same."""
    named: list[_Scan] = []
    for scan in scans:
        name = scan.header.source_name
        ambiguous = named and "VOYAGER" in name.upper() and same_place(named[-1].header, scan.header, rules)
        off = bool(ambiguous) and _gap_s(named[-1], scan) <= rules.max_step_s
        named.append(replace(scan, header=replace(scan.header, source_name=f"{name}_OFF")) if off else scan)
    return named


def _slice_cadences(scans: list[_Scan], starts: Sequence[float], rules: CadenceRules) -> list[Cadence]:
    """Return the cadences of one slice; `starts` (MJD) are those of all observations of the telescope."""
    target_first: list[Cadence] = []
    target_second: list[Cadence] = []
    on_first, on_second = _roles(rules)
    for i in range(len(scans) - rules.scans + 1):
        group = scans[i : i + rules.scans]
        last = group[-1].header
        moved_on = starts[-1] > last.tstart + 2 * rules.max_step_s / SECONDS_PER_DAY
        following = scans[i + rules.scans : i + rules.scans + 2]
        is_last_off = moved_on and not any(same_place(last, scan.header, rules) for scan in following)
        first = _is_cadence(group, on_first, rules.scans - 1 if is_last_off else on_first[-1], starts, rules)
        second = len(on_second) > 1 and _is_cadence(group, on_second, on_second[-1], starts, rules)
        named_off_first = first and second and named_off(group[0].header.source_name)
        offs = [scan.header for scan in group[::2]]
        opens_run = i == 0 or _gap_s(scans[i - 1], group[0]) > rules.max_step_s
        if first and not named_off_first:
            target_first.append(_make_cadence(group, on_first, rules))
        elif second and (named_off_first or (opens_run and _may_be_offs(offs))):
            target_second.append(_make_cadence(group, on_second, rules))
    ons = {_on_members(cadence) for cadence in target_first}
    return target_first + [cadence for cadence in target_second if _on_members(cadence) not in ons]


def _roles(rules: CadenceRules) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions of the ONs where the target comes first (ABACAD), and where an OFF does (BACADA)."""
    return tuple(range(0, rules.scans, 2)), tuple(range(1, rules.scans, 2))


def _may_be_offs(headers: Sequence[Header]) -> bool:
    """Return whether scans may be OFFs. Scans of one name are a target, even if it moved too far for an ON."""
    names = {header.source_name for header in headers}
    return not is_calibrator(headers[0]) and (len(names) > 1 or named_off(headers[0].source_name))


def _on_members(cadence: Cadence) -> tuple[int, ...]:
    return tuple(cadence.members[i] for i in cadence.on)


def _is_cadence(
    group: list[_Scan], on: tuple[int, ...], rest_until: int, starts: Sequence[float], rules: CadenceRules
) -> bool:
    """Return whether scans are a cadence.

    Args:
        group: scans of one slice in time order.
        on: positions of the ONs.
        rest_until: position before which the last rest may end; the first may begin after the first ON.
        starts: MJD at which all observations of the telescope start, sorted.
        rules: of cadences.
    """
    target, lengths = group[on[0]].header, [scan.header.duration_s for scan in group]
    return (
        alternates({i: scan.header for i, scan in enumerate(group)}, on, rules)
        and not is_calibrator(target)
        and min(lengths) > rules.min_length_ratio * max(lengths)
        and all(
            _gap_s(a, b) <= rules.max_step_s or (on[0] <= i < rest_until and _is_rest(a, b, starts, rules))
            for i, (a, b) in enumerate(pairwise(group))
        )
    )


def _is_rest(a: _Scan, b: _Scan, starts: Sequence[float], rules: CadenceRules) -> bool:
    """Return whether at most `max_rest_s` passed between two scans, without a scan in any slice in between."""
    tolerance = SAME_SCAN_S / SECONDS_PER_DAY
    between = bisect_left(starts, b.header.tstart - tolerance) - bisect_right(starts, a.header.tstart + tolerance)
    return _gap_s(a, b) <= rules.max_rest_s and between <= 0


def _make_cadence(group: list[_Scan], on: tuple[int, ...], rules: CadenceRules) -> Cadence:
    headers = [scan.header for scan in group]
    return Cadence(
        members=tuple(scan.index for scan in group),
        target=headers[on[0]].source_name,
        pattern=_letters(headers, on, rules),
        on=on,
    )


def _letters(headers: Sequence[Header], on: Sequence[int], rules: CadenceRules) -> str:
    """Return a letter for each scan: A for the ONs, B and further letters for the places of the OFFs."""
    places: list[Header] = []
    pattern = ""
    for i, header in enumerate(headers):
        if i in on:
            pattern += "A"
            continue
        number = next((n for n, place in enumerate(places) if same_place(place, header, rules)), len(places))
        places += [header] if number == len(places) else []
        pattern += "BCDEFGHIJKLM"[number]
    return pattern


def _group_incomplete(
    scans: list[_Scan], found: list[Cadence], pointings: Sequence[_Pointing], rules: CadenceRules
) -> list[Ungrouped]:
    """Group the scans of a slice that are in no cadence.

    Scans of a cadence that other slices have go together; any others go together as long as they alternate.

    Args:
        scans: of the slice, in time order.
        found: its cadences.
        pointings: cadences of all slices together.
        rules: of cadences.
    """
    used = {i for cadence in found for i in cadence.members}
    free = [scan for scan in scans if scan.index not in used]
    ungrouped: list[Ungrouped] = []
    for pointing in pointings:
        first, last = pointing.headers[0], pointing.headers[-1]
        if unused := {scan.index for scan in _scans_between(free, first, last)}:
            present = {
                position: scan
                for position, header in enumerate(pointing.headers)
                for scan in _scans_between(scans, header, header)
            }
            members = {scan.index for scan in present.values()}
            if len(present) < rules.scans and not unused.isdisjoint(members):
                ungrouped.append(_incomplete(present, pointing.on, rules, pointing.headers))
                free = [scan for scan in free if scan.index not in members]
    while free:
        starts = ((_first_scans(free, on, rules), on) for on in _roles(rules))
        present, on = max(starts, key=lambda start: len(start[0]))
        obstacles = _obstacles([*present.values(), *free[len(present) :][:1]], present, on, rules)
        group = _incomplete(present, on, rules)
        missing = (
            [group.reason] if len(present) < rules.scans or not obstacles else ["waiting for scans that are a cadence"]
        )
        ungrouped.append(replace(group, reason="; ".join([*missing, *obstacles])))
        free = free[len(present) :]
    return ungrouped


def _first_scans(scans: list[_Scan], on: tuple[int, ...], rules: CadenceRules) -> dict[int, _Scan]:
    """Return the first scans by position, as many as can belong to one cadence with gaps."""
    present = {0: scans[0]}
    position = 0
    for last, scan in pairwise(scans):
        gap = _gap_s(last, scan) - max(0.0, last.header.duration_s - SCAN_S)
        position += 1 if gap <= rules.max_step_s else max(1, round(gap / SCAN_STEP_S))
        longer = {**present, position: scan}
        target = next((member.header for i, member in longer.items() if i in on), scan.header)
        headers = {i: member.header for i, member in longer.items()}
        offs = [header for i, header in headers.items() if i not in on]
        steady = alternates(dict(enumerate(offs)), range(len(offs)), rules)
        strayed = 0 not in on and not _may_be_offs(offs) and not steady
        if position >= rules.scans or is_calibrator(target) or strayed or not alternates(headers, on, rules):
            break
        present = longer
    return present


def _obstacles(scans: list[_Scan], present: dict[int, _Scan], on: tuple[int, ...], rules: CadenceRules) -> list[str]:
    """Name the rules, besides missing scans, that keep scans from being a cadence, with what was found.

    Args:
        scans: those of `present` and the one that follows them, if any.
        present: scans by position.
        on: positions of the ONs.
        rules: of cadences.
    """
    found = []
    positions = [*present, max(present) + 1]
    for (i, a), (j, b) in pairwise(zip(positions, scans, strict=False)):
        gap, follows = _gap_s(a, b), j == i + 1 or not same_place(a.header, b.header, rules)
        if follows and rules.max_step_s < gap <= rules.max_rest_s:
            found.append(f"spacing: {_when(b)} starts {gap:.0f} s after {_when(a)}, over {rules.max_step_s:g} s")
    short, long = (choose(present.values(), key=lambda scan: scan.header.duration_s) for choose in (min, max))
    if short.header.duration_s <= rules.min_length_ratio * long.header.duration_s:
        lengths = (
            f"{_when(short)} is {short.header.duration_s:.0f} s long and {_when(long)} {long.header.duration_s:.0f} s"
        )
        found.append(f"unequal length: {lengths}, a ratio of less than {rules.min_length_ratio:g}")
    following = {**{i: scan.header for i, scan in present.items()}, max(present) + 1: scans[-1].header}
    if len(scans) > len(present) and max(present) < rules.scans - 1 and not alternates(following, on, rules):
        target = next((scan.header for i, scan in present.items() if i in on), None)
        distance = target and separation_arcmin(target, scans[-1].header)
        if target and distance is not None:
            role = "an ON" if max(present) + 1 in on else "an OFF"
            where = f"{distance:.1f}' from the first ON, place_arcmin {rules.place_arcmin:g}"
            found.append(f"place: {_when(scans[-1])} does not point where {role} would ({where})")
    return [f"{obstacle} (`cadence:` in the configuration)" for obstacle in found]


def _when(scan: _Scan) -> str:
    return f"{scan.header.source_name} at MJD {scan.header.tstart:.4f}"


def _incomplete(
    present: dict[int, _Scan], on: tuple[int, ...], rules: CadenceRules, elsewhere: Sequence[Header] = ()
) -> Ungrouped:
    """Describe an incomplete cadence: which positions are missing, when the first of them was due, and in which slice.

    Args:
        present: scans by position.
        on: positions of the ONs.
        rules: of cadences.
        elsewhere: headers of its scans in other slices, where those have them.
    """
    headers = [scan.header for scan in present.values()]
    target = next((scan.header for i, scan in present.items() if i in on), headers[0]).source_name
    offs = iter("BCDEFGHIJKLM")
    name = "".join("A" if i in on else next(offs) for i in range(rules.scans))
    missing = [i for i in range(rules.scans) if i not in present]
    reason = "waiting for one more OFF: scans of unequal length, or an OFF before them that has its own ON"
    if missing:
        gap = missing[0]
        neighbor = present[gap - 1].header if gap else headers[0]
        due = f"{'after' if gap else 'before'} {neighbor.source_name} at MJD {neighbor.tstart:.4f}"
        if elsewhere:
            due = f"{elsewhere[gap].source_name} at MJD {elsewhere[gap].tstart:.4f}, which other slices have"
        reason = (
            f"waiting for position {', '.join(map(str, missing))} of {name}: "
            f"the {'ON' if gap in on else 'OFF'} {due} (fch1 {headers[0].fch1:.4f} MHz)"
        )
        if len(present) >= FEWEST_SCANS and missing == list(range(len(present), rules.scans)):
            reason += f"; a cadence has {rules.scans} scans: `cadence.scans` in the configuration"
    members = tuple(present[i].index for i in sorted(present))
    letters = "".join(letter if i in present else "." for i, letter in enumerate(name))
    searchable = letters.count("A") == len(on) and 0 < letters.count(".") < rules.scans - len(on)
    return Ungrouped(members=members, target=target, reason=reason, pattern=letters if searchable else None)


def _scans_between(scans: list[_Scan], first: Header, last: Header) -> list[_Scan]:
    """Return the scans that started from `first` to `last`, both included, to within `SAME_SCAN_S`."""
    delay = SAME_SCAN_S / SECONDS_PER_DAY
    start = bisect_left(scans, first.tstart - delay, key=lambda scan: scan.header.tstart)
    return scans[start : bisect_right(scans, last.tstart + delay, key=lambda scan: scan.header.tstart)]


def _gap_s(a: _Scan, b: _Scan) -> float:
    return (b.header.tstart - a.header.tstart) * SECONDS_PER_DAY


def is_calibrator(header: Header) -> bool:
    """Return whether a scan is of a calibrator, which is never a target."""
    return header.source_name.upper().removeprefix("DIAG_").removesuffix("_OFF") in CALIBRATORS
