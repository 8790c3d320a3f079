"""Injected signals among the candidates of the queue: not told before the label, told after it, and never undone."""

import json

import pytest
from judging import inject
from sqlalchemy import select
from visitor import Browser, desk_of

from sentinel.store.labels import put_labels
from sentinel.store.schema import candidate, injected_label, label

JSON = {"Accept": "application/json"}


@pytest.fixture
def desk(judged, tmp_path):
    """Return a function that logs a person in."""
    with desk_of(judged, tmp_path) as port:
        yield lambda name="": Browser(port, judged, name)


def ids_in(page):
    return [int(number) for number in page.partition('data-ids="')[2].partition('"')[0].split()]


def test_the_queue_shows_an_injected_signal_like_a_candidate_and_the_label_tells(desk, judged):
    number = inject(judged, snr=34.0, probability=0.87)
    anna, ben = desk("anna"), desk("ben")
    page = anna.get("/label")[2]
    assert ids_in(page) == [1, number, *range(2, 9)]
    assert '<span id="left">9</span>' in page
    for path in (f"/candidates/{number}", f"/candidates/{number}?card=1", f"/candidates/{number}?card=1&blind=1"):
        status, _, page = anna.get(path)
        assert status == 200
        assert "inject" not in page.lower()
    reply = json.loads(anna.post("/labels", {"row": number, "label": "candidate"}, **JSON)[2])
    assert (reply["given"], reply["candidates"]) == ([], [])
    assert reply["told"] == [
        f"candidate {number} was an injected signal (SNR 34.0 in each ON, +0.350 Hz/s); you labeled it candidate"
    ]
    page = anna.get(f"/candidates/{number}")[2]
    assert "was an injected signal (SNR 34.0" in page
    assert "Nobody has labeled it" not in page
    assert ids_in(anna.get("/label")[2]) == list(range(1, 9))
    assert ids_in(ben.get("/label")[2]) == [1, number, *range(2, 9)]
    assert "inject" not in ben.get(f"/candidates/{number}")[2].lower()


def test_an_injected_signal_is_in_no_count_and_no_other_page(desk, judged):
    number = inject(judged)
    anna = desk("anna")
    assert anna.post("/labels", {"row": [1, number], "label": "candidate"})[0] == 303
    pages = ("/candidates", "/candidates.csv", "/candidates.json", "/cadences/1", "/at/1420.0", "/night.json", "/guide")
    for path in pages:
        page = anna.get(path)[2]
        assert not [text for text in (f"/candidates/{number}", f'"id": {number}', f"\n{number},") if text in page], path
    assert "8 candidates" in anna.get("/candidates")[2]
    with judged.read() as rows:
        assert list(rows.scalars(select(label.c.candidate_id))) == [1]
        assert rows.execute(select(injected_label.c.label, injected_label.c.by)).all() == [("candidate", "anna")]
        assert set(rows.scalars(select(candidate.c.id))) == set(range(1, 9))


def test_without_scripts_the_label_of_an_injected_signal_leads_to_its_page_which_tells(desk, judged):
    number = inject(judged)
    anna = desk("anna")
    status, headers, _ = anna.post("/labels", {"row": number, "label": "RFI", "next": "/label"})
    assert (status, headers["Location"]) == (303, f"/candidates/{number}")
    assert "you labeled it RFI" in anna.get(headers["Location"])[2]


def test_nobody_is_sent_to_follow_an_injected_signal(desk, judged):
    status, _, text = desk().get(f"/candidates/{inject(judged)}/follow")
    assert (status, text) == (404, "candidate 9 is an injected signal: there is nothing to follow\n")


def test_the_night_shows_how_people_label_injected_signals_and_the_metrics_name_nobody(desk, judged):
    first, second = inject(judged), inject(judged, "b")
    anna = desk("anna")
    assert "Reviewers" not in anna.get("/")[2]
    anna.post("/labels", {"row": first, "label": "candidate"})
    anna.post("/labels", {"row": second, "label": "unsure"})
    with judged.write() as rows:
        put_labels(rows, [1], "RFI", "ben", via="page")
    page = anna.get("/")[2]
    told = '<td class="n">1 of 2<small>0 RFI, 1 unsure</small></td><td class="n">0 of 0</td>'
    assert f'<th scope="row">anna</th>{told}' in page
    assert '<th scope="row">ben</th>' not in page
    metrics = anna.get("/metrics")[2]
    assert 'sentinel_reviewed_injections_total{label="candidate"} 1.0' in metrics
    assert 'sentinel_reviewed_injections_total{label="unsure"} 1.0' in metrics
    assert "anna" not in metrics
