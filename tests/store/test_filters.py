"""Filters and orders of candidates against plain Python, on both databases."""

import math
import random
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import CANDIDATE, record_candidates
from sqlalchemy import func, select, update

from sentinel.errors import ConfigError
from sentinel.store.filters import KEYS, SORTS, beyond, ordering, parse_filter, parse_terms
from sentinel.store.labels import in_force, put_labels, undo_labels
from sentinel.store.queue import open_store
from sentinel.store.schema import attempt, candidate
from sentinel.web.query import FACETS

COUNT = 60
TARGETS = ("HIP99427", "HIP1", "hip1", "VOYAGER-1", "a_b", "aXb", "a[b", "100%")
FAR = 59103.0


def made_rows():
    """Return rows with every column that a filter reads, with gaps and equal values."""
    rng = random.Random(1)

    def maybe(value):
        return None if rng.random() < 0.2 else value

    return [
        {
            **CANDIDATE,
            "target": rng.choice(TARGETS),
            "probability": maybe(round(rng.random(), 1)),
            "joint_snr": maybe(rng.choice([8.0, 20.0, 20.5, 90.0])),
            "frequency_mhz": rng.choice([1420.4, 1420.5, 8419.0]) + i * 1e-6 * rng.choice([0, 1]),
            "drift_rate_hz_s": rng.choice([-1.0, 0.0, 0.35]),
            "drift_nhz": maybe(rng.uniform(-1, 1)),
            "bandwidth_hz": rng.choice([3.0, 12.0]),
            "strangeness": maybe(rng.choice([0.8, 1.0, 4.0])),
            "tstart_mjd": FAR + rng.choice([0.0, 0.5, 1.0, 1.999, 2.0]),
            "telescope": maybe(rng.choice(["GBT", "Parkes"])),
            "release_name": rng.choice(["equinox", "solstice"]),
            "allocations": maybe(rng.choice(["", "GPS L1", "GPS L1, GLONASS", "GLONASS L1"])),
            "comb_teeth": maybe(rng.choice([0, 7])),
            "seen_cadences": maybe(rng.choice([0, 1, 37])),
            "muted": maybe("hydrogen"),
            "kind": maybe(rng.choice(["signal", "side_lobe"])),
            "ra_deg": maybe(rng.uniform(0, 360)),
            "dec_deg": maybe(rng.uniform(-90, 90)),
        }
        for i in range(COUNT)
    ]


LABELS = [(1, "RFI", "anna"), (1, "RFI", "ben"), (2, "RFI", "anna"), (2, "candidate", "ben"), (3, "unsure", "ben"),
          (4, "candidate", "anna"), (4, "RFI", "anna"), (5, "candidate", "ben")]  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request, tmp_path_factory):
    """Return a store with candidates and labels, and their rows with the labels of each person."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('filters')}/sentinel.db"
    else:
        url = request.getfixturevalue("postgres").database()
    store = open_store(url)
    rows = made_rows()
    for first in range(0, COUNT, 10):
        record_candidates(store, rows[first : first + 10])
    with store.write() as changed:
        ids = list(changed.scalars(select(candidate.c.id).order_by(candidate.c.id)))
        for row_id, row in zip(ids, rows, strict=True):
            columns = {name: row[name] for name in ("muted", "seen_cadences", "telescope", "ra_deg", "dec_deg")}
            columns |= {name: row[name] for name in ("joint_snr", "drift_nhz")}
            changed.execute(update(candidate).where(candidate.c.id == row_id).values(**columns))
        for number, word, person in LABELS:
            put_labels(changed, [ids[number]], word, person, via="page")
        undo_labels(changed, put_labels(changed, [ids[6]], "RFI", "anna", via="page"), "anna")
        # The second cadence was searched again: its candidates are superseded.
        old = changed.execute(select(attempt).where(attempt.c.cadence_id == 2)).mappings().one()
        changed.execute(attempt.insert().values({**old, "id": 1000, "token": "t", "number": 2}))
    said = {}
    for number, word, person in LABELS:
        said.setdefault(number, {})[person] = word
    plain = [
        {**row, "id": row_id, "said": said.get(i, {}), "superseded": 10 <= i < 20, "cadence_id": i // 10 + 1}
        for i, (row_id, row) in enumerate(zip(ids, rows, strict=True))
    ]
    yield store, plain
    store.engine.dispose()
    if request.param == "postgresql":
        request.getfixturevalue("postgres").drop_all()


def inside(value, text):
    low, high = (float(end) if end else None for end in text.split(".."))
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def separation_deg(ra, dec, row):
    if row["ra_deg"] is None or row["dec_deg"] is None:
        return math.inf
    a, b = math.radians(dec), math.radians(row["dec_deg"])
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(math.radians(ra - row["ra_deg"]))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


RANGES = {"p": "probability", "snr": "joint_snr", "mhz": "frequency_mhz", "drift": "drift_rate_hz_s",
          "nhz": "drift_nhz", "width": "bandwidth_hz", "strangeness": "strangeness"}  # fmt: skip
TEXTS = {"target": "target", "telescope": "telescope", "release": "release_name", "kind": "kind"}


def has_label(text, row, person):
    words = list(row["said"].values())
    found = {"none": not words, "disagreed": len(set(words)) > 1, "mine": bool(person) and person in row["said"]}
    found["not-mine"] = not found["mine"]
    return found.get(text, in_force(words) == text if words else False)


def has_text(name, text, row):
    return not row[name] if text == "none" else fnmatchcase(row[name] or "", text.replace("[", "[[]"))


def has_allocation(text, row):
    listed = (row["allocations"] or "").split(", ")
    return text in listed if text != "none" else listed == [""]


def in_cone(text, row):
    ra, dec, radius = map(float, text.split(","))
    return separation_deg(ra, dec, row) <= radius / 60


def in_nights(text, row):
    day = (datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=row["tstart_mjd"])).strftime("%Y-%m-%d")
    first, dots, last = text.partition("..")
    return day == first if not dots else (not first or day >= first) and (not last or day <= last)


def counts(value, text):
    return inside(value or 0, text if ".." in text else f"{text}..{text}")


HOLDS = {
    **{key: lambda text, row, _, name=name: inside(row[name], text) for key, name in RANGES.items()},
    **{key: lambda text, row, _, name=name: has_text(name, text, row) for key, name in TEXTS.items()},
    "label": has_label,
    "allocation": lambda text, row, _: has_allocation(text, row),
    "cone": lambda text, row, _: in_cone(text, row),
    "night": lambda text, row, _: in_nights(text, row),
    "seen": lambda text, row, _: counts(row["seen_cadences"], text),
    "cadence": lambda text, row, _: row["cadence_id"] == int(text),
    "comb": lambda text, row, _: bool(row["comb_teeth"]) == (text == "yes"),
    "muted": lambda text, row, _: bool(row["muted"]) == (text == "yes"),
    "superseded": lambda text, row, _: row["superseded"] == (text == "yes"),
}
"""For each key, whether a row has a value, given who looks."""


def numbers(*values):
    ends = st.sampled_from(values)
    both = st.tuples(ends, ends).map(lambda pair: f"{min(pair)}..{max(pair)}")
    return st.one_of(both, ends.map(lambda value: f"{value}.."), ends.map(lambda value: f"..{value}"))


DAYS = [f"2020-09-{day}" for day in (10, 11, 12, 13)]  # MJD 59103 is 2020-09-11
VALUES = {
    "label": st.sampled_from(["none", "candidate", "RFI", "unsure", "disagreed", "mine", "not-mine"]),
    "p": numbers(0, 0.3, 0.5, 1), "snr": numbers(0, 20, 20.5, 1e3), "mhz": numbers(1420.4, 1420.50001, 9000),
    "drift": numbers(-1, 0, 0.35), "nhz": numbers(-0.5, 0, 0.5), "width": numbers(3, 5, 12),
    "strangeness": numbers(0.8, 2, 4),
    "night": st.one_of(st.sampled_from(DAYS), st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map(
        lambda pair: f"{min(pair)}..{max(pair)}"), st.sampled_from([f"..{DAYS[1]}", f"{DAYS[2]}.."])),
    "target": st.sampled_from([*TARGETS, "HIP*", "*1", "a_*", "a[*", "*%", "*X*", "*"]),
    "telescope": st.sampled_from(["GBT", "Par*", "none"]), "release": st.sampled_from(["equinox", "*s*", "x"]),
    "kind": st.sampled_from(["signal", "s*", "none"]),
    "cone": st.tuples(st.floats(0, 360), st.floats(-90, 90), st.sampled_from([300, 3000, 5400])).map(
        lambda cone: "{:.3f},{:.3f},{}".format(*cone)),
    "allocation": st.sampled_from(["GPS L1", "GLONASS", "none", "L1"]), "comb": st.sampled_from(["yes", "no"]),
    "seen": st.sampled_from(["0", "1", "1..", "..36", "37"]), "muted": st.sampled_from(["yes", "no"]),
    "superseded": st.sampled_from(["yes", "no"]), "cadence": st.sampled_from(["1", "2"]),
}  # fmt: skip
FILTERS = st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.lists(VALUES[key], min_size=1, max_size=2) for key in keys})
)


def test_every_key_has_values_in_the_test():
    assert VALUES.keys() == HOLDS.keys() == KEYS.keys()


def rank(row, sort):
    """Return the place of a row in an order: rows without a value last, then by value, then by id."""
    name = {"id": "id", "p": "probability", "snr": "joint_snr", "mhz": "frequency_mhz", "drift": "drift_rate_hz_s",
            "width": "bandwidth_hz", "strangeness": "strangeness", "seen": "seen_cadences", "utc": "tstart_mjd",
            "target": "target"}[sort.removeprefix("-")]  # fmt: skip
    value = -1.0 if sort.endswith("p") and row[name] is None else row[name]
    return (value is None, 0 if value is None else value, row["id"])


def in_order(rows, sort):
    absent = [row for row in rows if rank(row, sort)[0]]
    present = [row for row in rows if not rank(row, sort)[0]]
    order = {"key": lambda row: rank(row, sort)[1:], "reverse": sort.startswith("-")}
    return [*sorted(present, **order), *sorted(absent, **order)]


@settings(max_examples=60)
@given(
    terms=FILTERS,
    sort=st.sampled_from([*SORTS, *(f"-{key}" for key in SORTS)]),
    person=st.sampled_from(["", "anna", "ben"]),
    page=st.integers(1, 20),
)
def test_filters_orders_and_pages_agree_with_plain_python(filled, terms, sort, person, page):
    store, plain = filled
    asked = parse_filter([(key, text) for key, texts in terms.items() for text in texts], sort=sort)
    wanted = {"superseded": ["no"]} | terms
    expected = [
        row
        for row in in_order(plain, sort)
        if all(any(HOLDS[key](text, row, person) for text in texts) for key, texts in wanted.items())
    ]
    query = select(candidate).where(*asked.conditions(person))
    column = SORTS[sort.removeprefix("-")].column.name
    with store.read() as rows:
        whole = rows.execute(query.order_by(*ordering(sort))).mappings().all()
        assert [row["id"] for row in whole] == [row["id"] for row in expected]
        if len(whole) <= page:
            return
        last, first = whole[page - 1], whole[page]
        after = query.where(beyond(sort, last[column], last["id"])).order_by(*ordering(sort))
        assert [row.id for row in rows.execute(after)] == [row["id"] for row in whole[page:]]
        before = beyond(sort, first[column], first["id"], backward=True)
        back = query.where(before).order_by(*ordering(sort, backward=True))
        assert [row.id for row in rows.execute(back)] == [row["id"] for row in whole[:page][::-1]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["p=0.9"], r"filter p: expected a range A\.\.B, A\.\. or \.\.B of numbers, found '0.9'"),
        (["p=1..0"], "filter p: expected the smaller number first, found '1..0'"),
        (["p=.."], "filter p: expected a range"),
        (["p=nan..1"], "filter p: expected a range"),
        (["snr=1e999.."], "filter snr: expected finite numbers"),
        (["label=rfi"], "filter label: expected one of none, .*, disagreed, mine, not-mine, found 'rfi'"),
        (["night=yesterday"], "filter night: expected a date YYYY-MM-DD"),
        (["night=2020-02-30"], "filter night: .*found '2020-02-30'"),
        (["night=2020-02-03..2020-02-02"], "filter night: expected the earlier date first"),
        (["night=.."], "filter night: expected a date"),
        (["cone=1,2"], "filter cone: expected RA,DEC,RADIUS"),
        (["cone=400,2,1"], "filter cone: expected RA 0 to 360"),
        (["comb=maybe"], "filter comb: expected yes or no"),
        (["seen=-1"], "filter seen: expected a range"),
        (["target=*a*b*c*d*"], r"filter target: expected at most 4 \*"),
        (["target=a\x00b"], "filter target: expected printable text"),
        (["target=" + "x" * 201], "filter target: expected at most 200 characters"),
        (["colour=red"], "filter: expected a key of label, p, .*found 'colour'"),
        (["sort=name"], "filter sort: expected one of id, p, .*found 'name'"),
        (["p"], r"filter: expected KEY=VALUE, such as p=0.9\.\., found 'p'"),
    ],
)
def test_a_wrong_filter_is_refused_in_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as refused:
        parse_terms(words)
    assert "\n" not in str(refused.value)


def test_empty_values_are_no_filter_and_the_query_of_a_filter_spells_it_again():
    asked = parse_filter([("p", "0.5.."), ("target", "a&b=*"), ("label", ""), ("p", "..0.1"), ("sort", "-p")])
    assert asked.terms == {"p": ("0.5..", "..0.1"), "target": ("a&b=*",)}
    assert asked.query() == "p=0.5..&p=..0.1&target=a%26b%3D%2A&sort=-p"
    assert asked.query({"p": ()}, sort="mhz") == "target=a%26b%3D%2A&sort=mhz"


@pytest.mark.parametrize(
    "terms", [{"p": "0.2.."}, {"mhz": "..1420", "label": "none"}, {"snr": "20..", "cone": "10,20,30"}, {"width": "..5"}]
)
def test_the_counts_of_a_filter_are_read_from_one_index_and_no_row(tmp_path, terms):
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    columns = [column for column, _ in FACETS.values()]
    chosen = select(*columns, func.count()).where(*parse_filter(terms.items()).conditions()).group_by(*columns)
    with store.read() as rows:
        text = str(chosen.compile(rows, compile_kwargs={"literal_binds": True}))
        steps = [line[3] for line in rows.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    store.engine.dispose()
    assert "COVERING INDEX candidate_filter" in steps[0]
    assert not [step for step in steps if "B-TREE" in step]
