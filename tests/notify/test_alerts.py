"""Machines get the same as people: alerts that their schema describes, once each, in public only what is labeled."""

import json
import math
import sys
from types import ModuleType

import jsonschema
import pytest
from fake_skyportal import FakeSkyPortal
from rows import CANDIDATE, record, record_candidates
from sqlalchemy import insert, select, update

from sentinel.commands.candidates import put_label
from sentinel.config import Config, Kafka
from sentinel.errors import ConfigError
from sentinel.notify import poster as posters
from sentinel.notify.alerts import MOST, SCHEMA, alert_of, as_json, released
from sentinel.notify.kafka import KafkaPoster
from sentinel.notify.outbox import deliver_all, message_lines, resume_uploads, retry, undelivered
from sentinel.notify.skyportal import SkyPortalPoster
from sentinel.notify.webhook import WebhookPoster
from sentinel.store.labels import undo_labels
from sentinel.store.schema import attempt, cadence, label, now, outbox

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
CADENCE = {"id": 8, "target": "T", "tstart": 59000.0, "band_low_mhz": 1.0, "band_high_mhz": 2.0}


def row(number=1, **changes):
    return {**CANDIDATE, "id": number, "cadence_id": 8, "label": None, "superseded": False, **changes}


def due_now(store):
    with store.write() as rows:
        rows.execute(update(outbox).values(retry_at=now() - 1))


def states(store):
    with store.read() as rows:
        return list(rows.scalars(select(outbox.c.state).order_by(outbox.c.id)))


def undo(store):
    """Undo every label."""
    with store.write() as rows:
        undo_labels(rows, list(rows.scalars(select(label.c.id))), "a person")


def supersede(store):
    with store.write() as rows:
        (first,) = rows.execute(select(attempt.c.cadence_id).limit(1)).one()
        done = {"number": 2, "token": "again", "started_at": now(), "outcome": "done"}
        rows.execute(insert(attempt).values(cadence_id=first, **done))
        rows.execute(update(outbox).values(stale_at=now()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"probability": None, "snr": [1.0] * 12, "valid": None},
        {"probability": math.nan, "snr": [math.inf, 1.0], "strangeness": math.nan},
        {"target": "<!channel>\n\x1b[31m\u202e" * 9, "note": None, "ra_deg": 302.7, "dec_deg": -12.0},
        {"label": "candidate"},
        {"label": "RFI"},
    ],
)
def test_every_alert_is_valid_and_is_json(changes):
    alert = alert_of("ab", [CADENCE], [row(**changes)], revision="0", issued_s=1.6e9)
    VALIDATOR.validate(json.loads(as_json(alert)))
    assert alert["kind"] == "initial"


def test_the_schema_refuses_what_is_not_in_it():
    alert = alert_of("ab", [CADENCE], [row()], revision="0", issued_s=1.6e9)
    assert not VALIDATOR.is_valid({**alert, "kind": "joke"})
    assert not VALIDATOR.is_valid({**alert, "extra": 1})
    assert not VALIDATOR.is_valid({**alert, "candidates": [{"id": 1}]})


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ([{}, {"label": "RFI"}], "update"),
        ([{"superseded": True}, {"label": "RFI"}], "retraction"),
        ([{"label": "unsure"}], "update"),
        ([], "retraction"),
    ],
)
def test_an_alert_of_which_no_candidate_stands_is_a_retraction(changes, kind):
    rows = [row(i, **each) for i, each in enumerate(changes)]
    alert = alert_of("ab", [CADENCE], rows, revision="7", issued_s=1.6e9, follow_up="look")
    VALIDATOR.validate(alert)
    assert (alert["kind"], alert["follow_up"]) == (kind, "look" if kind == "update" else "")


def test_a_storm_is_cut_but_counted_and_labeled_candidates_are_never_cut():
    rows = [row(i, probability=i / 1000) for i in range(500)]
    rows[3]["label"] = "candidate"
    alert = alert_of("ab", [CADENCE], rows, revision="0", issued_s=1.6e9)
    assert (len(alert["candidates"]), alert["counts"]["current"]) == (MOST, 500)
    assert [each["id"] for each in alert["candidates"][:2]] == [3, 499]
    assert [each["id"] for each in released(alert)["candidates"]] == [3]


def to_webhook(store, slack):
    return deliver_all(store, WebhookPoster(slack.url + "hook"), "webhook", 0)


def alerts_of(slack):
    return [message["alert"] for message in slack.messages if "alert" in message]


def test_the_webhook_gets_an_initial_alert_updates_and_a_retraction(store, slack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    record(store, posters=["webhook"], count=2, pictures=[str(tmp_path / "a.png")])
    assert to_webhook(store, slack) == 1
    for number, word in ((1, "RFI"), (2, "RFI"), (2, "candidate")):
        put_label(store, number, word, "a person")
        assert to_webhook(store, slack) == 1
    supersede(store)
    assert to_webhook(store, slack) == 1
    alerts = alerts_of(slack)
    for alert in alerts:
        VALIDATOR.validate(alert)
    assert [alert["kind"] for alert in alerts] == ["initial", "update", "retraction", "update", "retraction"]
    assert len({alert["uid"] for alert in alerts}) == 1
    assert len({alert["alert_id"] for alert in alerts}) == 5
    assert alerts[1]["pictures"] == ["a.png"]
    (form,) = [message["form"] for message in slack.messages if "form" in message]
    with_picture = json.loads(form.split(b'name="alert"')[1].split(b"\r\n\r\n")[1].split(b"\r\n--")[0])
    VALIDATOR.validate(with_picture)
    assert (with_picture["kind"], with_picture["pictures"]) == ("update", ["a.png"])


def test_a_label_that_is_undone_makes_the_alert_an_update_again(store, slack):
    record(store, posters=["webhook"])
    to_webhook(store, slack)
    put_label(store, 1, "RFI", "a person")
    to_webhook(store, slack)
    undo(store)
    to_webhook(store, slack)
    assert [alert["kind"] for alert in alerts_of(slack)] == ["initial", "retraction", "update"]


def test_an_alert_whose_receipt_was_lost_is_repeated_under_its_id(store, slack):
    record(store, posters=["webhook"])
    slack.modes["hook"].extend(["lost", 200, "lost"])
    assert to_webhook(store, slack) == 0
    due_now(store)
    assert to_webhook(store, slack) == 1
    put_label(store, 1, "RFI", "a person")
    assert to_webhook(store, slack) == 0
    due_now(store)
    assert to_webhook(store, slack) == 1
    ids = [alert["alert_id"] for alert in alerts_of(slack)]
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_a_message_without_candidates_of_slack_needs_no_alert(store, slack):
    record(store, posters=["slack"])
    from sentinel.notify.outbox import claim_message

    assert claim_message(store, "slack", 0).alert == {}


@pytest.fixture
def portal(monkeypatch):
    monkeypatch.setenv("SENTINEL_SKYPORTAL_TOKEN", "sesame")
    server = FakeSkyPortal()
    yield server
    server.close()


def placed(store, **changes):
    """Record a candidate with coordinates, and a message to SkyPortal about it."""
    message = {"posters": ["skyportal"], "state": "pending", "text": "one @all", "pictures": [], "sequence": "6 T"}
    place = {"ra_deg": 302.7, "dec_deg": 77.2}
    record_candidates(store, [{**CANDIDATE, **place, **changes}], lambda _: dict(message))


def to_skyportal(store, portal):
    return deliver_all(store, SkyPortalPoster(portal.url, (4,)), "skyportal", 0)


def test_a_message_is_a_source_with_a_comment_that_labels_edit_and_pictures_follow(store, portal, tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    placed(store)
    assert to_skyportal(store, portal) == 1
    put_label(store, 1, "RFI", "a person")
    assert to_skyportal(store, portal) == 1
    with store.write() as rows:
        rows.execute(update(outbox).values(pictures=[str(tmp_path / "a.png")]))
        resume_uploads(rows, 1)
    assert to_skyportal(store, portal) == 1
    ((source, made),) = portal.sources.items()
    assert (made["ra"], made["dec"], made["group_ids"]) == (302.7, 77.2, [4])
    VALIDATOR.validate(made["altdata"])
    text, picture = (portal.comments[number] for number in (1, 2))
    assert "labeled RFI" in text["text"]
    assert "@" not in text["text"]
    assert (picture["obj_id"], picture["attachment"]) == (source, {"body": "UE5H", "name": "a.png"})


@pytest.mark.parametrize("modes", [["lost"], [200, "lost"], [503], [200, 503]])
def test_a_message_whose_reply_was_lost_is_found_among_the_comments(store, portal, modes):
    placed(store)
    portal.modes.extend(modes)
    assert to_skyportal(store, portal) == 0
    due_now(store)
    assert to_skyportal(store, portal) == 1
    assert (len(portal.sources), len(portal.comments)) == (1, 1)


def test_a_target_without_coordinates_is_held_and_delays_nothing(store, portal):
    placed(store, ra_deg=None)
    assert to_skyportal(store, portal) == 0
    assert states(store) == ["held"]
    assert "no coordinates of the target" in message_lines(store, 1)[0]
    assert undelivered(store)["oldest_s"] is None


def test_a_wrong_token_is_reported_and_the_message_waits(store, portal, monkeypatch):
    monkeypatch.setenv("SENTINEL_SKYPORTAL_TOKEN", "other")
    placed(store)
    assert to_skyportal(store, portal) == 0
    assert undelivered(store)["cause"] == "skyportal: HTTP 401"


class FakeProducer:
    """A producer that keeps what it is given; `error` is what its receipts say, and `silent` sends none."""

    def __init__(self, settings=None):
        self.settings, self.records, self.error, self.silent = settings, [], None, False

    def produce(self, topic, *, key, value, on_delivery):
        self.records.append((topic, key, json.loads(value)))
        self.receipt = on_delivery

    def flush(self, _):
        if self.silent:
            return 1
        self.receipt(self.error, None)
        return 0


@pytest.fixture
def topic():
    return FakeProducer()


def to_kafka(store, topic):
    return deliver_all(store, KafkaPoster("alerts", {}, lambda _: topic), "kafka", 0)


def test_nothing_is_published_before_a_person_labels_a_candidate(store, topic):
    record(store, posters=["kafka"], count=2)
    assert to_kafka(store, topic) == 0
    put_label(store, 1, "RFI", "a person")
    put_label(store, 2, "unsure", "a person")
    assert to_kafka(store, topic) == 0
    assert retry(store, ()) == 0
    assert (states(store), topic.records) == (["held"], [])
    assert undelivered(store)["oldest_s"] is None
    put_label(store, 2, "candidate", "a person")
    assert to_kafka(store, topic) == 1
    ((name, key, alert),) = topic.records
    VALIDATOR.validate(alert)
    assert (name, key, alert["kind"]) == ("alerts", alert["uid"], "initial")
    assert [each["id"] for each in alert["candidates"]] == [2]


def test_what_was_published_and_lost_its_label_is_retracted(store, topic):
    record(store, posters=["kafka"])
    put_label(store, 1, "candidate", "a person")
    to_kafka(store, topic)
    undo(store)
    assert to_kafka(store, topic) == 1
    assert [alert["kind"] for _, _, alert in topic.records] == ["initial", "retraction"]
    assert topic.records[1][2]["candidates"] == []


def test_a_label_that_is_undone_before_its_alert_is_sent_keeps_it_back(store, topic):
    record(store, posters=["kafka"])
    put_label(store, 1, "candidate", "a person")
    undo(store)
    assert to_kafka(store, topic) == 0
    with store.write() as rows:  # as if it had been due already
        rows.execute(update(outbox).values(state="pending"))
    assert to_kafka(store, topic) == 0
    assert (states(store), topic.records) == (["held"], [])


def test_a_later_slice_is_published_with_the_first_and_only_if_it_is_labeled(store, topic):
    record(store, posters=["kafka"])
    record(store, posters=["kafka"])
    assert states(store) == ["held", "folded"]
    put_label(store, 2, "candidate", "a person")
    assert to_kafka(store, topic) == 1
    ((_, _, alert),) = topic.records
    assert [each["id"] for each in alert["candidates"]] == [2]
    assert len(alert["cadences"]) == 2


def test_a_record_without_a_receipt_is_published_again_under_its_id(store, topic):
    record(store, posters=["kafka"])
    put_label(store, 1, "candidate", "a person")
    for silent, error in ((True, None), (False, "_MSG_TIMED_OUT"), (False, None)):
        topic.silent, topic.error = silent, error
        sent = to_kafka(store, topic)
        due_now(store)
    assert sent == 1
    assert len({alert["alert_id"] for _, _, alert in topic.records}) == 1


def test_the_producer_waits_for_all_replicas_and_logs_in_over_tls(topic):
    made = []
    config = Kafka(servers="kafka.scimma.org:9092", username="u")
    KafkaPoster("alerts", config.client("sesame"), lambda settings: made.append(settings) or topic)
    assert made[0]["security.protocol"] == "SASL_SSL"
    assert made[0]["sasl.password"] == "sesame"
    assert (made[0]["acks"], made[0]["enable.idempotence"]) == ("all", True)
    assert Kafka(servers="localhost:9092").client(None)["security.protocol"] == "PLAINTEXT"


def test_kafka_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    posters._kafka_poster.cache_clear()
    with pytest.raises(ConfigError, match="SENTINEL_EXTRAS=kafka"):
        posters.poster_named(Config(kafka={"servers": "localhost:9092"}), "kafka")
    module = ModuleType("confluent_kafka")
    module.Producer = FakeProducer
    monkeypatch.setitem(sys.modules, "confluent_kafka", module)
    assert posters.poster_named(Config(kafka={"servers": "localhost:9092"}), "kafka").producer.settings
    posters._kafka_poster.cache_clear()


def test_a_worker_does_not_wait_for_kafka(store, topic, monkeypatch):
    config = Config(kafka={"servers": "localhost:9092"})
    monkeypatch.setattr(posters, "_kafka_poster", lambda *_: KafkaPoster("alerts", {}, lambda _: topic))
    record(store, posters=["kafka"])
    put_label(store, 1, "candidate", "a person")
    assert posters.deliver_due(config, store, held=False) == 0
    assert posters.deliver_due(config, store) == 1


def test_only_configured_posters_get_messages():
    assert Config().posters == ()
    names = {"skyportal": {"url": "http://localhost"}, "kafka": {"servers": "localhost:9092"}}
    assert Config(**names).posters == ("skyportal", "kafka")


def test_a_cadence_of_the_rows_is_the_one_that_the_alert_names(store, slack):
    number = record(store, posters=["webhook"])
    to_webhook(store, slack)
    with store.read() as rows:
        band = rows.execute(select(cadence.c.band_low_mhz, cadence.c.band_high_mhz)).one()
    (alert,) = alerts_of(slack)
    assert (alert["cadences"], alert["band_mhz"]) == ([number], list(band))
