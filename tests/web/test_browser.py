"""People at the desk, in a real browser: labels by keys, undo, several people, live events, no JavaScript."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import yaml
from browser import Person
from judging import inject, looks_like
from rows import record_candidates
from sqlalchemy import select
from visitor import Browser

from sentinel.config import ROOT
from sentinel.store.labels import standing_labels
from sentinel.store.queue import open_store
from sentinel.store.schema import candidate, label

PAGES = (
    "/",
    "/candidates",
    "/candidates?p=2",
    "/candidates/2",
    "/label?blind=1",
    "/cadences/1",
    "/at/1420.0",
    "/guide",
)


def counted(store):
    """Return the labels that count, by candidate and person."""
    with store.read() as rows:
        return {(row.candidate_id, row.by): row.label for row in rows.execute(standing_labels())}


def in_force(store):
    with store.read() as rows:
        labeled = candidate.c.label_in_force.is_not(None)
        return dict(rows.execute(select(candidate.c.id, candidate.c.label_in_force).where(labeled)).all())


def test_five_labels_by_keys_two_undone_and_the_store_holds_exactly_that(people, judged):
    anna = people("anna")
    anna.open("/label")
    for number, keys in enumerate(("c", "r", "2r", "u", "c"), 1):
        anna.page.wait_for_selector(f".card[data-card='{number}']")
        anna.press(*keys)
    anna.said("stored", 5)
    anna.press("z", "z")
    anna.said("undone", 2)
    anna.open("/label")
    assert anna.page.locator(".card").get_attribute("data-card") == "4"
    assert counted(judged) == {(1, "anna"): "candidate", (2, "anna"): "RFI", (3, "anna"): "RFI"}
    assert in_force(judged) == {1: "candidate", 2: "RFI", 3: "RFI"}
    with judged.read() as rows:
        given = rows.execute(select(label).order_by(label.c.id)).all()
    assert [row.reason for row in given] == [None, None, "seen at other targets", None, None]
    assert [row.undone_at is not None for row in given] == [False, False, False, True, True]
    assert {row.via for row in given} == {"page"}


def test_a_candidate_that_cannot_be_loaded_is_named(people, judged):
    anna = people("anna")
    anna.context.route("**/candidates/2?card=1*", lambda route: route.abort())
    anna.open("/label")
    anna.press("j")
    anna.said("candidate 2 not loaded")


def test_no_key_acts_while_a_field_has_the_focus(people, judged):
    anna = people("anna")
    anna.open("/label")
    anna.press("n", "c", "r", "u", "z", "s")
    assert anna.page.locator("#judge [name=note]").input_value() == "cruzs"
    anna.press("Escape", "r")
    anna.said("stored")
    with judged.read() as rows:
        (given,) = rows.execute(select(label)).all()
    assert (given.candidate_id, given.label, given.note) == (1, "RFI", "cruzs")


def test_the_table_is_labeled_by_keys_and_its_rows_follow(people, judged):
    anna = people("anna")
    anna.open("/candidates?sort=-p")
    anna.press("j", "r", "u", "k", "z")
    anna.said("undone")
    assert anna.page.locator("tr[data-row='1'] .is").inner_text() == "RFI"
    assert anna.page.locator("tr[data-row='2'] .is").inner_text() == "none"
    assert counted(judged) == {(1, "anna"): "RFI"}


def test_without_javascript_a_person_filters_labels_and_undoes(people, judged):
    anna = people("anna", java_script_enabled=False)
    anna.open("/candidates?p=0.8..")
    assert anna.page.locator("tr[data-row]").count() == 3
    anna.open("/label")
    for word in ("RFI", "candidate"):
        anna.follow(f"#judge button[value={word}]")
    assert counted(judged) == {(1, "anna"): "RFI", (2, "anna"): "candidate"}
    anna.open("/candidates/2")
    anna.follow("form[action='/labels/undo'] button")
    assert counted(judged) == {(1, "anna"): "RFI"}


def test_two_people_who_disagree_make_it_unsure_and_both_see_it(people, judged):
    anna, ben = people("anna"), people("ben")
    for window in (anna, ben):
        window.open("/candidates/3")
    anna.press("c")
    anna.said("stored")
    ben.sees("[data-label='3']", "anna")
    ben.press("r")
    ben.said("stored")
    assert in_force(judged) == {3: "unsure"}
    anna.sees("[data-label='3'] .is", "unsure")
    anna.open("/candidates?label=disagreed")
    assert anna.page.locator("tr[data-row]").count() == 1


def test_a_new_candidate_is_told_and_no_row_moves(people, judged):
    anna = people("anna")
    anna.open("/candidates")
    before = anna.page.locator("tr[data-row]").count()
    with judged.read() as rows:
        row = dict(rows.execute(select(candidate).where(candidate.c.id == 1)).mappings().one())
    for name in ("id", "cadence_id", "attempt_id"):
        del row[name]
    record_candidates(judged, [row, row])
    anna.sees("#news", "2 new")
    assert anna.page.locator("tr[data-row]").count() == before
    anna.follow("#news")
    anna.page.wait_for_selector(f"tr[data-row]:nth-child({before + 2})")


def test_look_alikes_are_labeled_in_one_act_and_undone_in_one(people, judged):
    anna = people("anna")
    anna.open("/candidates/1")
    assert [box.get_attribute("value") for box in anna.page.locator("#alike [name=row]").all()[:3]] == ["2", "3", "4"]
    anna.page.check("#alike [value='2']")
    anna.page.check("#alike [value='3']")
    anna.page.click("#alike button[value=RFI]")
    anna.said("stored")
    assert in_force(judged) == {2: "RFI", 3: "RFI"}
    anna.page.locator("h2").first.click()
    anna.press("z")
    anna.said("undone")
    assert in_force(judged) == {}


def test_the_map_of_the_night_is_drawn_and_a_click_opens_a_candidate(people):
    anna = people("anna")
    anna.open("/")
    anna.page.wait_for_selector("#map .u-over")
    over = anna.page.locator("#map .u-over")
    box = over.bounding_box()
    # All eight have one time, which is in the middle of the map. The mouse moves down until it is over one.
    for down in range(4, int(box["height"]), 4):
        place = {"x": box["width"] / 2, "y": down}
        over.hover(position=place)
        if over.get_attribute("title"):
            break
    assert over.evaluate("over => over.style.cursor") == "pointer"
    number = over.get_attribute("title").removeprefix("candidate ")
    with anna.page.expect_navigation():
        over.click(position=place)
    assert anna.page.url.endswith(f"/candidates/{number}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(people, judged, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    anna, number = people("anna", color_scheme=scheme), inject(judged)
    for shown, said in ((2, "stored"), (number, "was an injected signal")):
        anna.open(f"/candidates/{shown}")
        anna.press("r")
        anna.said(said)
    found = {}
    for path in (*PAGES, f"/candidates/{number}"):
        anna.open(path)
        if path == "/":
            anna.page.wait_for_selector("#map .u-over")
        rules = {} if scheme == "light" else {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
        broken = axe.run(anna.page, options=rules).response["violations"]
        found[path] = [(rule["id"], node["html"][:120]) for rule in broken for node in rule["nodes"]]
    assert {path: rules for path, rules in found.items() if rules} == {}


class WebProgram:
    """A web program in a process of its own, with its state in a folder."""

    def __init__(self, place):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        settings = {"state_dir": "var", "web": {"port": self.port}, "injections": {"canary_s": 0}}
        (place / "config.yaml").write_text(yaml.safe_dump(settings))
        self.environment = {"SENTINEL_CONFIG": str(place / "config.yaml"), "PYTHONPATH": str(ROOT)}
        self.process = None

    def start(self, failpoint=""):
        environment = {**os.environ, **self.environment, "SENTINEL_FAILPOINT": failpoint}
        command = [sys.executable, "-P", "-m", "sentinel.programs.program", "web"]
        self.process = subprocess.Popen(command, env=environment)
        Browser(self.port).until_it_answers(self.process)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture
def program(tmp_path):
    made = WebProgram(tmp_path)
    yield made
    made.stop()


@pytest.mark.fault(6, promise="P5")
def test_a_label_is_not_shown_as_stored_if_the_program_is_killed_before_the_commit(browser, program, tmp_path):
    (tmp_path / "var").mkdir()
    store = open_store(f"sqlite:///{tmp_path}/var/sentinel.db")
    record_candidates(store, [looks_like(i) for i in range(3)])
    program.start("before-label:kill")
    anna = Person(browser, store, program.port, "anna")
    anna.open("/label")
    anna.press("r")
    anna.said("NOT stored")
    assert program.process.wait(30) == -signal.SIGKILL
    assert counted(store) == {}
    assert "1 RFI stored" not in anna.page.locator("#strip").inner_text()
    program.start()
    anna.open("/label")
    assert anna.page.locator(".card").get_attribute("data-card") == "1"
    anna.press("r")
    anna.said("stored")
    assert counted(store) == {(1, "anna"): "RFI"}
    anna.close()
    store.engine.dispose()


def test_an_injected_signal_is_told_after_its_label_and_undo_takes_the_label_before(people, judged):
    number = inject(judged, probability=0.87)
    anna = people("anna")
    anna.open("/label")
    for shown, key in ((1, "r"), (number, "c"), (2, "u")):
        anna.page.wait_for_selector(f".card[data-card='{shown}']")
        anna.press(key)
    anna.said("stored", 3)
    anna.said(f"candidate {number} was an injected signal")
    anna.press("z", "z")
    anna.said("undone", 2)
    assert counted(judged) == {}
    assert anna.page.locator("#left").inner_text() == "8"
