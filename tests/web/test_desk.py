"""Pages, forms and exports of the desk, without a browser."""

import csv
import gzip
import hashlib
import io
import json
import re
import subprocess

import pytest
from judging import looks_like
from PIL import Image
from rows import record_candidates
from sqlalchemy import insert, select, update
from visitor import Browser, desk_of

from sentinel.commands import candidates
from sentinel.config import ROOT
from sentinel.store.filters import parse_terms
from sentinel.store.labels import put_labels
from sentinel.store.occupancy import Occupancy, remember
from sentinel.store.schema import artefact, cadence, candidate, label
from sentinel.web import events
from sentinel.web.alike import Latents
from sentinel.web.events import Mark, Position, news, position_now
from sentinel.web.query import one_candidate

STATIC = ROOT / "sentinel" / "web" / "static"
CADENCE = {
    "state": "done",
    "target": "T",
    "tstart": 59000.0,
    "band_low_mhz": 1.0,
    "band_high_mhz": 2.0,
    "created_at": 0,
}


@pytest.fixture
def desk(judged, tmp_path):
    """Return a function that logs a person in."""
    with desk_of(judged, tmp_path) as port:
        yield lambda name="": Browser(port, judged, name)


def rows_in(page):
    return [int(number) for number in re.findall(r'<tr data-row="(\d+)"', page)]


def draw(store, path, number=1):
    """Give a candidate a picture; return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (780, 830), "white").save(path, dpi=(100, 100))
    with store.write() as rows:
        cadence_id = rows.scalar(select(candidate.c.cadence_id).where(candidate.c.id == number))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        values = {"cadence_id": cadence_id, "candidate_id": number, "kind": "waterfall", "path": str(path)}
        rows.execute(insert(artefact).values(**values, sha256=sha256))
        rows.execute(update(candidate).where(candidate.c.id == number).values(picture=str(path)))
    return path.read_bytes()


def test_page_export_and_command_select_the_same_rows_in_the_same_order(desk, judged):
    query = "p=0.6..0.85&sort=mhz&target=HIP*"
    page = rows_in(desk().get(f"/candidates?{query}")[2])
    listed = [int(line.split()[0]) for line in candidates.newest(judged, 20, parse_terms(query.split("&")))]
    table = [int(row["id"]) for row in csv.DictReader(io.StringIO(desk().get(f"/candidates.csv?{query}")[2]))]
    text = [row["id"] for row in json.loads(desk().get(f"/candidates.json?{query}")[2])]
    ecsv = [line.split()[0] for line in desk().get(f"/candidates.ecsv?{query}")[2].splitlines() if line[0] != "#"]
    assert page == listed == table == text == [2, 3, 4, 5, 6, 7]
    assert ecsv == ["id", *map(str, page)]


def test_the_facets_count_what_their_links_select(desk, judged):
    with judged.write() as rows:
        put_labels(rows, [1, 2, 3], "RFI", "anna", via="page")
        put_labels(rows, [3], "candidate", "ben", via="page")
    anna = desk("anna")
    page = anna.get("/candidates?p=0.6..")[2]
    links = re.findall(
        r'<li><a href="\?([^"]*label[^"]*)"[^>]*><span class="cut">(\w+)</span> <span class="count">(\d+)', page
    )
    assert {(word, int(count)) for _, word, count in links} == {("none", 4), ("RFI", 2), ("unsure", 1)}
    for query, _, count in links:
        assert len(rows_in(anna.get(f"/candidates?{query.replace('&amp;', '&')}")[2])) == int(count)
    assert rows_in(anna.get("/candidates?label=mine")[2]) == [3, 2, 1]
    assert rows_in(anna.get("/candidates?label=disagreed")[2]) == [3]


def test_the_kinds_of_candidates_are_counted_selected_and_shown_but_not_to_a_blind_reviewer(desk, judged):
    with judged.write() as rows:
        lobes = {"kind": "side_lobe", "kind_probability": 0.71}
        rows.execute(update(candidate).where(candidate.c.id.in_([1, 2])).values(**lobes))
        rows.execute(update(candidate).where(candidate.c.id == 3).values(kind="signal", kind_probability=0.9))
    anna = desk("anna")
    page = anna.get("/candidates")[2]
    counts = dict(re.findall(r'kind=\w+"[^>]*><span class="cut">(\w+)</span> <span class="count">(\d+)', page))
    assert (counts["side_lobe"], counts["signal"]) == ("2", "1")
    assert rows_in(anna.get("/candidates?kind=side_lobe")[2]) == [2, 1]
    assert page.count("looks like: side lobe 0.71") == 2
    assert "side lobe" in anna.get("/candidates/1")[2]
    assert "side lobe" not in anna.get("/candidates/1?card=1&blind=1")[2]


def test_pages_of_the_table_lead_forward_and_back_over_every_row(desk, judged):
    record_candidates(judged, [looks_like(i % 7) for i in range(230)])
    browser, seen, where = desk(), [], "/candidates?sort=-p"
    for _ in range(3):
        page = browser.get(where)[2]
        seen.append(rows_in(page))
        if found := re.search(r'rel="next" href="([^"]+)"', page):
            where = "/candidates" + found[1].replace("&amp;", "&")
    assert [len(rows) for rows in seen] == [100, 100, 38]
    assert len({row for rows in seen for row in rows}) == 238
    back = re.search(r'rel="prev" href="([^"]+)"', page)[1].replace("&amp;", "&")
    assert rows_in(browser.get(f"/candidates{back}")[2]) == seen[1]
    assert browser.get("/candidates?after=[1]")[0] == 400
    assert browser.get('/candidates?sort=mhz&after=["x",1]')[0] == 400


def test_a_wrong_filter_is_refused_in_one_line_on_every_page_that_has_one(desk):
    for path in ("/candidates", "/label", "/candidates.csv", "/candidates.json"):
        status, _, page = desk().get(f"{path}?p=2..1")
        assert status == 400
        assert "filter p: expected the smaller number first, found &#39;2..1&#39;" in page
    assert desk().get("/?night=never")[0] == 400


def test_blind_review_hides_probability_labels_and_the_head_of_the_picture(desk, judged, tmp_path):
    whole = draw(judged, tmp_path / "var" / "pictures" / "a.png")
    with judged.write() as rows:
        put_labels(rows, [1], "RFI", "ben", via="page")
        put_labels(rows, [2], "candidate", "ben", via="page")
    anna = desk("anna")
    for path in ("/candidates/1?card=1", "/label?label=RFI&start=1"):
        assert all(text in anna.get(path)[2] for text in ("0.900", "ben"))
        page = anna.get(f"{path}&blind=1")[2]
        assert not [text for text in ("0.900", "ben", "strangeness", "is rfi") if text in page]
    assert 'data-card="3"' in anna.get("/label?blind=1&sort=-p")[2]  # by id: an order would tell the probability
    picture = "/candidates/1/picture.png"
    assert len(whole) == int(anna.request("HEAD", picture)[1]["Content-Length"])
    assert len(whole) != int(anna.request("HEAD", f"{picture}?blind=1")[1]["Content-Length"])
    assert anna.post("/labels", {"row": 1, "label": "RFI", "blind": "1"})[0] == 303
    with judged.read() as rows:
        assert rows.scalars(select(label.c.blind).where(label.c.by == "anna")).all() == [True]


def test_a_picture_is_served_from_the_picture_folder_only(desk, judged, tmp_path):
    secret = tmp_path / "secret.png"
    (tmp_path / "var" / "pictures").mkdir(parents=True)
    (tmp_path / "var" / "pictures" / "link.png").symlink_to(secret)
    for number, path in ((1, secret), (2, tmp_path / "var" / "pictures" / ".." / ".." / "secret.png"),
                         (3, tmp_path / "var" / "pictures" / "link.png")):  # fmt: skip
        draw(judged, path, number)
        assert desk().get(f"/candidates/{number}/picture.png")[0] == 404
        assert desk().get(f"/candidates/{number}/thumbnail.png")[0] == 404


def test_a_thumbnail_shows_the_panels_only(desk, judged, tmp_path):
    draw(judged, tmp_path / "var" / "pictures" / "a.png")
    status, headers, _ = desk().request("HEAD", "/candidates/1/thumbnail.png")
    assert (status, headers["Content-Type"], "immutable" in headers["Cache-Control"]) == (200, "image/png", True)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"row": 1, "label": "RFI"}, 303),
        ({"row": 1, "label": "rfi"}, 400),
        ({"row": 1}, 400),
        ({"label": "RFI"}, 400),
        ({"row": [1, 2, 99], "label": "RFI"}, 404),
        ({"row": "x", "label": "RFI"}, 400),
        ({"row": 1, "label": "RFI", "reason": "because"}, 400),
        ({"row": 1, "label": "RFI", "note": "n" * 2001}, 400),
        ({"row": 1, "label": "RFI", "note": "n" * 70_000}, 413),
        ({"row": 1, "label": "RFI", "token": "0" * 64}, 403),
        ({"row": 1, "label": "RFI", "token": ""}, 403),
        ({"row": list(range(1, 600)), "label": "RFI"}, 400),
    ],
)
def test_a_form_is_stored_whole_or_refused_whole(desk, judged, fields, status):
    assert desk("anna").post("/labels", fields)[0] == status
    with judged.read() as rows:
        assert len(rows.execute(select(label)).all()) == (1 if status == 303 else 0)


def test_nobody_undoes_the_label_of_another(desk, judged):
    anna, ben = desk("anna"), desk("ben")
    given = json.loads(anna.post("/labels", {"row": 1, "label": "RFI"}, Accept="application/json")[2])
    assert given == {"given": [1], "candidates": [{"id": 1, "label": "RFI", "people": [["anna", "RFI"]]}]}
    assert json.loads(ben.post("/labels/undo", {"given": 1}, Accept="application/json")[2])["candidates"] == []
    undone = json.loads(anna.post("/labels/undo", {"given": 1}, Accept="application/json")[2])
    assert undone["candidates"] == [{"id": 1, "label": None, "people": []}]


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", ""])
def test_a_form_leads_back_to_this_server_only(desk, target):
    _, headers, _ = desk("anna").post("/labels", {"row": 1, "label": "RFI", "next": target})
    assert headers["Location"] == "/candidates/1"


def test_labels_of_the_command_and_of_the_page_count_alike(desk, judged):
    candidates.put_label(judged, 1, "candidate", "anna")
    assert "candidate" in desk("anna").get("/candidates?label=mine")[2]
    desk("anna").post("/labels", {"row": 1, "label": "RFI"})
    with judged.read() as rows:
        assert rows.scalar(select(candidate.c.label_in_force).where(candidate.c.id == 1)) == "RFI"


def test_a_desk_that_is_read_only_offers_no_labels(judged, tmp_path):
    with desk_of(judged, tmp_path, read_only=True) as port:
        anna = Browser(port)
        assert "<fieldset disabled>" in anna.get("/label")[2]
        assert anna.post("/labels", {"row": 1, "label": "RFI"})[0] == 403


def test_look_alikes_are_the_nearest_of_the_same_release_and_new_ones_are_found(judged):
    latents = Latents()
    with judged.read() as rows:
        assert [row_id for row_id, _ in latents.nearest(rows, one_candidate(rows, 3), 4)] in (
            [2, 4, 1, 5],
            [4, 2, 1, 5],
            [2, 4, 5, 1],
            [4, 2, 5, 1],
        )
    other = {"release_sha256": "ee" * 32, "release_name": "r2", "latents_f32": [2.0] * 48}
    record_candidates(judged, [looks_like(2), looks_like(2, latents_f32=[2.0] * 32), looks_like(2)])
    with judged.write() as rows:
        rows.exec_driver_sql(f"INSERT INTO release VALUES ('{'ee' * 32}', 'r2', 0)")
        rows.execute(update(candidate).where(candidate.c.id == 11).values(other))
    with judged.read() as rows:
        assert latents.nearest(rows, one_candidate(rows, 3), 1) in ([(9, 0.0)], [(11, 0.0)])
        fresh = Latents().nearest(rows, one_candidate(rows, 3), 2)
    assert fresh[0] == (9, 0.0)
    assert fresh[1][0] in {2, 4}


def test_a_position_is_spelled_and_read_again():
    position = Position(candidates=Mark(120, (115, 117)), labels=Mark(8), undone_at=12.5)
    assert Position.parse(str(position)) == position
    assert [Position.parse(text) for text in ("", "1-2", "x", "1-2-3\n", "9" * 99)] == [None] * 5


def test_events_name_what_is_new_once_and_find_rows_that_were_committed_late(judged):
    with judged.write() as rows:
        rows.execute(label.delete())
        row = dict(rows.execute(select(candidate).where(candidate.c.id == 1)).mappings().one())
        start = position_now(rows)
        rows.execute(insert(candidate).values({**row, "id": 11}))
        ahead, found = news(rows, start)
        assert found == {"candidates": [11], "labels": []}
        assert ahead.candidates == Mark(11, (9, 10))
        rows.execute(insert(candidate).values({**row, "id": 10}))
        ahead, found = news(rows, Position.parse(str(ahead)))
        assert found["candidates"] == [10]
        given = put_labels(rows, [2, 3], "RFI", "anna", via="page")
        ahead, found = news(rows, ahead)
        assert found == {"candidates": [], "labels": [2, 3]}
        rows.execute(update(label).where(label.c.id == given[0]).values(undone_at=events._undone_at(rows) + 10))
        ahead, found = news(rows, ahead)
        assert found["labels"] == [2]
        assert news(rows, ahead)[1] == {"candidates": [], "labels": []}


def test_what_was_vendored_is_what_was_published_and_our_own_scripts_stay_small():
    vendor = STATIC / "vendor"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=vendor, check=True)
    listed = {line.split()[1] for line in (vendor / "SHA256SUMS").read_text().splitlines()}
    assert listed | {"SHA256SUMS"} == {path.name for path in vendor.iterdir()}
    own = [path.read_bytes() for path in STATIC.glob("*.js")]
    assert max(map(len, own)) < 25_000
    assert len(gzip.compress(b"".join(own))) < 14_000
    ours = [*STATIC.glob("*.*s*"), *(STATIC.parent / "templates").glob("*.html")]
    assert [
        path.name
        for path in ours
        if re.search(
            r"(?i)(src|href)=\"(https?:)?//|url\(|@import|<script>|<style| on\w+=\"| style=\"", path.read_text()
        )
    ] == []


def test_the_map_of_a_night_has_every_candidate_of_that_day(desk):
    points = json.loads(desk().get("/night.json")[2])
    assert sorted(points["id"]) == list(range(1, 9))
    assert json.loads(desk().get("/night.json?night=2001-01-01")[2])["id"] == []


def test_what_is_typed_leads_to_a_candidate_or_a_frequency(desk):
    assert desk().get("/go?to=17")[1]["Location"] == "/candidates/17"
    assert desk().get("/go?to=1420.5")[1]["Location"] == "/at/1420.5"
    for text in ("", "x", "1e9", "-1", "1/2", "9" * 12):
        assert desk().get(f"/go?to={text}")[0] == 404
    for path in ("/candidates/99", "/candidates/" + "9" * 30, "/at/x", "/at/1e3", "/cadences/99"):
        assert desk().get(path)[0] == 404


def test_the_page_of_a_frequency_tells_in_how_many_cadences_lines_there_were_rejected(desk, judged):
    assert "Memory of interference" not in desk().get("/at/1420.0")[2]
    with judged.write() as rows:
        for number, (target, mhz) in enumerate((("A", 1420.0), ("B", 1420.0003), ("B", 1420.1), ("A", 1420.0))):
            at = {"telescope_id": 6, "target": target, "tstart": 59000.0 + number, "band_mhz": (1400.0, 1500.0)}
            rows.execute(insert(cadence).values(**{**CADENCE, "key": str(number)}))
            remember(rows, number + 2, Occupancy(**at, lines_mhz=[mhz]))
    page = desk().get("/at/1420.0")[2]
    assert "lines here in <b>3 of the 4</b> newest cadences that cover this frequency, of 2 targets" in page
    assert "the last on 2020-06-03 00:00:00 UTC" in page
    assert "lines here in <b>0 of the 4</b> newest cadences that cover this frequency. " in desk().get("/at/1450.0")[2]
    assert "Memory of interference" not in desk().get("/at/1501.0")[2]
