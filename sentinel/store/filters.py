"""The filter of candidates: one grammar for the pages, the exports and `candidates ls`.

A filter is a list of `KEY=VALUE`, in the query of a URL or as arguments of a command. All keys must hold. A key that is
repeated holds if one of its values does. An empty value is no filter.

A range is `A..B`, `A..` or `..B`, with both ends included. Text may hold `*` for any characters. `KEYS` lists the keys
with their values. `sort=KEY` orders by a key of `SORTS`, `sort=-KEY` the other way; rows without a value are last.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Boolean, ColumnElement, Select, and_, false, func, literal, not_, or_, select, true, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from aetherscan.header import UNIX_EPOCH_MJD
from sentinel.errors import ConfigError
from sentinel.store.labels import LABELS, disagreed, standing_labels
from sentinel.store.schema import attempt, candidate

NUMBER = r"[+-]?\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?"
RANGE = re.compile(rf"({NUMBER})?\.\.({NUMBER})?")
LONGEST = 200
"""Characters of a value."""
MOST_TERMS = 100
MOST_STARS = 4
"""Many * in one pattern take long to compare."""
C = candidate.c
Condition = ColumnElement[bool]
Parsed = Callable[[str], Condition]
"""Makes the condition, given the name of the person who looks (for `label=mine` and `label=not-mine`)."""


class matches(FunctionElement[bool]):  # noqa: N801
    """Whether text matches a pattern, as SQL: the pattern for GLOB of SQLite, and that for LIKE of PostgreSQL."""

    type = Boolean()
    inherit_cache = True


class contains(FunctionElement[bool]):  # noqa: N801
    """Whether text contains another text, as SQL."""

    type = Boolean()
    inherit_cache = True


@compiles(matches, "sqlite")
def _sqlite_matches(element: Any, compiler: Any, **options: Any) -> str:
    column, glob, _ = element.clauses
    return f"({compiler.process(column, **options)} GLOB {compiler.process(glob, **options)})"


@compiles(matches, "postgresql")
def _postgresql_matches(element: Any, compiler: Any, **options: Any) -> str:
    column, _, like = element.clauses
    return f"({compiler.process(column, **options)} LIKE {compiler.process(like, **options)})"


@compiles(contains, "sqlite")
def _sqlite_contains(element: Any, compiler: Any, **options: Any) -> str:
    return f"(instr({compiler.process(element.clauses, **options)}) > 0)"


@compiles(contains, "postgresql")
def _postgresql_contains(element: Any, compiler: Any, **options: Any) -> str:
    return f"(strpos({compiler.process(element.clauses, **options)}) > 0)"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the grammar: what its values look like, and what they select."""

    values: str
    meaning: str
    parse: Callable[[str], Parsed]


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def _bounds(text: str) -> tuple[float | None, float | None]:
    found = RANGE.fullmatch(text)
    if not found or found.groups() == (None, None):
        raise ValueError("expected a range A..B, A.. or ..B of numbers")
    low, high = (None if end is None else float(end) for end in found.groups())
    if not all(math.isfinite(end) for end in (low, high) if end is not None):
        raise ValueError("expected finite numbers")
    if low is not None and high is not None and low > high:
        raise ValueError("expected the smaller number first")
    return low, high


def _between(column: ColumnElement[Any], low: float | None, high: float | None) -> Condition:
    ends = [column >= low] if low is not None else []
    return and_(*ends, *([column <= high] if high is not None else []))


def _range(column: ColumnElement[Any]) -> Callable[[str], Parsed]:
    def parse(text: str) -> Parsed:
        low, high = _bounds(text)
        return lambda _: _between(column, low, high)

    return parse


def _whole(column: ColumnElement[Any]) -> Callable[[str], Parsed]:
    """Parse a whole number or a range."""

    def parse(text: str) -> Parsed:
        low, high = (float(text), float(text)) if re.fullmatch(r"\d{1,9}", text) else _bounds(text)
        return lambda _: _between(column, low, high)

    return parse


def _probability(text: str) -> Parsed:
    """Parse a range of probability. Rows that no forest scored have none; the store holds -1 there."""
    low, high = _bounds(text)
    return lambda _: (C.probability >= literal(0.0)) & _between(C.probability, low, high)


def _text(column: ColumnElement[Any], *, absent: bool = False) -> Callable[[str], Parsed]:
    """Parse text with `*` for any characters; with `absent`, `none` selects rows without text."""

    def parse(text: str) -> Parsed:
        if not text.isprintable():
            raise ValueError("expected printable text")
        if absent and text == "none":
            return lambda _: func.coalesce(column, "") == ""
        if text.count("*") > MOST_STARS:
            raise ValueError(f"expected at most {MOST_STARS} *")
        return lambda _: matches(column, _glob(text), _like(text)) if "*" in text else column == text

    return parse


def _glob(text: str) -> str:
    """Return the pattern of SQLite, whose LIKE ignores case."""
    return re.sub(r"([\[?])", r"[\1]", text)


def _like(text: str) -> str:
    """Return the pattern of PostgreSQL."""
    return re.sub(r"([%_\\])", r"\\\1", text).replace("*", "%")


def _allocation(text: str) -> Parsed:
    """Parse the name of a service; the column lists several, separated by commas."""
    if text == "none":
        return lambda _: func.coalesce(C.allocations, "") == ""
    if not text.isprintable():
        raise ValueError("expected printable text")
    listed = literal(", ") + C.allocations + literal(", ")
    return lambda _: contains(listed, f", {text}, ")


def _yes_or_no(condition: Callable[[], Condition]) -> Callable[[str], Parsed]:
    def parse(text: str) -> Parsed:
        if text not in {"yes", "no"}:
            raise ValueError("expected yes or no")
        return lambda _: condition() if text == "yes" else not_(condition())

    return parse


def _label(text: str) -> Parsed:
    if text not in LABEL_VALUES:
        raise ValueError(f"expected one of {', '.join(LABEL_VALUES)}")
    if text == "none":
        return lambda _: C.label_in_force.is_(None)
    if text == "disagreed":
        return lambda _: C.id.in_(disagreed())
    if text == "mine":
        return lambda person: C.id.in_(_labeled_by(person)) if person else false()
    if text == "not-mine":
        return lambda person: C.id.not_in(_labeled_by(person)) if person else true()
    return lambda _: C.label_in_force == text


def _labeled_by(person: str) -> Select[Any]:
    standing = standing_labels().subquery()
    return select(standing.c.candidate_id).where(standing.c.by == person)


def _mjd(text: str) -> int:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("expected a date YYYY-MM-DD, UTC, or a range of dates A..B")
    moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    return int((moment - datetime.fromtimestamp(0, UTC)) / timedelta(days=1) + UNIX_EPOCH_MJD)


def _night(text: str) -> Parsed:
    """Parse a day or a range of days, UTC, by the start of the first ON."""
    first, dots, last = text.partition("..")
    if text == "..":
        raise ValueError("expected a date YYYY-MM-DD, UTC, or a range of dates A..B")
    low = _mjd(first) if first else None
    high = (_mjd(last) + 1 if last else None) if dots else _mjd(first) + 1
    if low is not None and high is not None and low >= high:
        raise ValueError("expected the earlier date first")
    ends = [C.tstart_mjd >= low] if low is not None else []
    return lambda _: and_(*ends, *([C.tstart_mjd < high] if high is not None else []))


def _cone(text: str) -> Parsed:
    """Parse a cone on the sky, by the haversine formula, which is exact for small angles."""
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch(NUMBER, part.strip()) for part in parts):
        raise ValueError("expected RA,DEC,RADIUS in degrees, degrees and arcmin")
    ra, dec, radius = (float(part) for part in parts)
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 10_800):
        raise ValueError("expected RA 0 to 360, Dec -90 to 90 degrees, a radius above 0 and up to 10800 arcmin")
    to_rad = math.pi / 180
    half = math.sin(radius / 120 * to_rad) ** 2
    across = func.power(func.sin((C.dec_deg - dec) * (to_rad / 2)), 2)
    along = func.power(func.sin((C.ra_deg - ra) * (to_rad / 2)), 2)
    distance = across + math.cos(dec * to_rad) * func.cos(C.dec_deg * to_rad) * along
    near = C.dec_deg.between(dec - radius / 60 - 1e-9, dec + radius / 60 + 1e-9)
    return lambda _: near & (distance <= half)


def _superseded() -> Condition:
    later = attempt.alias("later")
    same = (later.c.cadence_id == attempt.c.cadence_id) & (later.c.id > attempt.c.id) & (later.c.outcome == "done")
    return C.attempt_id.in_(select(attempt.c.id).join(later, same))


LABEL_VALUES = ("none", *LABELS, "disagreed", "mine", "not-mine")
KEYS = {
    "label": Key(" ".join(LABEL_VALUES), "label in force; people disagree; with or without one of your own", _label),
    "p": Key("A..B", "probability", _probability),
    "snr": Key("A..B", "SNR of all ONs together", _range(C.joint_snr)),
    "mhz": Key("A..B", "frequency, MHz", _range(C.frequency_mhz)),
    "drift": Key("A..B", "drift rate, Hz/s", _range(C.drift_rate_hz_s)),
    "nhz": Key("A..B", "drift rate over frequency, nHz (Hz/s/GHz)", _range(C.drift_nhz)),
    "width": Key("A..B", "bandwidth, Hz", _range(C.bandwidth_hz)),
    "strangeness": Key("A..B", "how unlike training signals: 1 one in ten, 3 one in 1,000", _range(C.strangeness)),
    "night": Key("YYYY-MM-DD or A..B", "day of the first ON, UTC", _night),
    "target": Key("NAME", "target, in the case of the header", _text(C.target)),
    "telescope": Key("NAME", "telescope", _text(C.telescope, absent=True)),
    "release": Key("NAME", "release that scored it", _text(C.release_name)),
    "cone": Key("RA,DEC,RADIUS", "place: degrees, degrees, arcmin", _cone),
    "allocation": Key("NAME or none", "service that may transmit there", _allocation),
    "comb": Key("yes no", "whether it belongs to a comb", _yes_or_no(lambda: func.coalesce(C.comb_teeth, 0) > 0)),
    "kind": Key("NAME or none", "kind that it looks most like", _text(C.kind, absent=True)),
    "seen": Key(
        "N or A..B", "cadences with a rejected line at its frequency", _whole(func.coalesce(C.seen_cadences, 0))
    ),
    "muted": Key("yes no", "whether it is in a mute zone", _yes_or_no(lambda: func.coalesce(C.muted, "") != "")),
    "superseded": Key("yes no", "whether its cadence was searched again since", _yes_or_no(_superseded)),
    "cadence": Key("N", "number of the cadence", _whole(C.cadence_id)),
}
"""The keys of the grammar."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A column that rows are ordered by."""

    column: ColumnElement[Any]
    nullable: bool = False


SORTS = {
    "id": Sort(C.id),
    "p": Sort(C.probability),
    "snr": Sort(C.joint_snr, nullable=True),
    "mhz": Sort(C.frequency_mhz),
    "drift": Sort(C.drift_rate_hz_s),
    "width": Sort(C.bandwidth_hz),
    "strangeness": Sort(C.strangeness, nullable=True),
    "seen": Sort(C.seen_cadences, nullable=True),
    "utc": Sort(C.tstart_mjd),
    "target": Sort(C.target),
}
NEWEST_FIRST = "-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter and an order of candidates.

    Attributes:
        terms: the values of each key, as text.
        sort: key of `SORTS`, with `-` before it for descending order.
    """

    terms: Mapping[str, tuple[str, ...]]
    sort: str = NEWEST_FIRST

    def conditions(self, person: str = "", *, without: str = "") -> list[Condition]:
        """Return the conditions as SQL.

        Args:
            person: who looks, for `label=mine` and `label=not-mine`.
            without: key that is left out, for the counts of its values.
        """
        terms = {key: values for key, values in self.terms.items() if key != without}
        terms.setdefault("superseded", ("no",))
        return [or_(*(KEYS[key].parse(value)(person) for value in values)) for key, values in terms.items()]

    def query(self, changes: Mapping[str, tuple[str, ...]] | None = None, *, sort: str | None = None) -> str:
        """Return the query of a URL, with the values of some keys, or the order, changed."""
        terms = {**self.terms, **(changes or {})}
        pairs = [(key, value) for key in KEYS for value in terms.get(key, ())]
        sort = sort or self.sort
        return urlencode([*pairs, *([("sort", sort)] if sort != NEWEST_FIRST else [])])

    def ordered(self, sort: str) -> "Filter":
        """Return the filter with another order."""
        return replace(self, sort=sort)


def parse_filter(pairs: Iterable[tuple[str, str]], *, sort: str = NEWEST_FIRST) -> Filter:
    """Return the filter that keys and values spell.

    Args:
        pairs: key and value of each term; a value that is empty is no term.
        sort: order if none is given.

    Raises:
        ConfigError: one line: the key, what was expected, and what was found.
    """
    terms: dict[str, tuple[str, ...]] = {}
    for key, given in pairs:
        value = given.strip()
        if not value:
            continue
        if key == "sort":
            sort = _checked_sort(value)
            continue
        if key not in KEYS:
            raise ConfigError(f"filter: expected a key of {', '.join(KEYS)} or sort, found {_short(key)}")
        if len(value) > LONGEST or sum(map(len, terms.values())) >= MOST_TERMS:
            raise ConfigError(f"filter {key}: expected at most {LONGEST} characters and {MOST_TERMS} values")
        try:
            KEYS[key].parse(value)
        except ValueError as error:
            raise ConfigError(f"filter {key}: {error}, found {_short(value)}") from error
        terms[key] = tuple(dict.fromkeys((*terms.get(key, ()), value)))
    return Filter(terms=terms, sort=sort)


def parse_terms(words: Iterable[str]) -> Filter:
    """Return the filter that arguments `KEY=VALUE` of a command spell.

    Raises:
        ConfigError: an argument is no term.
    """
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"filter: expected KEY=VALUE, such as p=0.9.., found {_short(word)}")
        pairs.append((key, value))
    return parse_filter(pairs)


def _checked_sort(text: str) -> str:
    if text.removeprefix("-") not in SORTS:
        raise ConfigError(f"filter sort: expected one of {', '.join(SORTS)}, with or without -, found {_short(text)}")
    return text


def ordering(sort: str, *, backward: bool = False) -> list[ColumnElement[Any]]:
    """Return the ORDER BY of a sort; rows without a value are last, and the id decides between equal ones."""
    by, descending = SORTS[sort.removeprefix("-")], sort.startswith("-") != backward
    terms = [by.column] if by.column is C.id else [by.column, C.id]
    order: list[ColumnElement[Any]] = [term.desc() if descending else term.asc() for term in terms]
    absent = by.column.is_(None)
    return [absent.desc() if backward else absent.asc(), *order] if by.nullable else order


def beyond(sort: str, value: Any, row_id: int, *, backward: bool = False) -> Condition:
    """Return, as SQL, whether a row comes after another in an order.

    Args:
        sort: the order.
        value: of its column in the other row.
        row_id: id of the other row.
        backward: whether it comes before instead.
    """
    by, descending = SORTS[sort.removeprefix("-")], sort.startswith("-") != backward
    after_id = C.id < row_id if descending else C.id > row_id
    if by.column is C.id:
        return after_id
    if by.nullable and value is None:
        return (by.column.is_(None) & after_id) if not backward else or_(by.column.is_not(None), after_id)
    other = literal(value, by.column.type)
    after = (
        tuple_(by.column, C.id) < tuple_(other, literal(row_id))
        if descending
        else (tuple_(by.column, C.id) > tuple_(other, literal(row_id)))
    )
    if not by.nullable:
        return after
    return or_(by.column.is_(None), after) if not backward else and_(by.column.is_not(None), after)
