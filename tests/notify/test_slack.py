"""Each message is sent once and in order, even if Slack fails."""

import json
import socket
import time
import uuid
from email.utils import formatdate

import pytest
from rows import record
from sqlalchemy import func, insert, select, update

from sentinel.commands.candidates import newest, put_label
from sentinel.config import Config
from sentinel.errors import ConfigError, PostError
from sentinel.notify.messages import message_text
from sentinel.notify.outbox import (
    claim_message,
    deliver_all,
    message_lines,
    resume_uploads,
    retry,
    retry_after_s,
    undelivered,
)
from sentinel.notify.outbox import deliver as deliver_message
from sentinel.notify.poster import deliver_due
from sentinel.notify.slack import SlackPoster
from sentinel.notify.webhook import WebhookPoster
from sentinel.store.schema import cadence, candidate, now, outbox

ROW = {"frequency_mhz": 8419.3197, "drift_rate_hz_s": 0.35, "snr": [20.0] * 6, "probability": 0.9}


def put(store, text, pictures=(), **values):
    """Put a message into the outbox, as a worker does with the candidates."""
    with store.write() as rows:
        key = uuid.uuid4().hex
        new = {"key": key, "state": "done", "target": "T", "tstart": 59000, "band_low_mhz": 1, "band_high_mhz": 2}
        made = rows.scalars(insert(cadence).values(**new, created_at=now()).returning(cadence.c.id)).one()
        message = {"poster": "slack", "state": "pending", "text": text, "pictures": list(pictures), **values}
        rows.execute(insert(outbox).values(cadence_id=made, uid=key, created_at=now(), **message))


def deliver(store, slack, times=1, per_hour=1000):
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    return sum(deliver_all(store, poster, "slack", 0, per_hour=per_hour) for _ in range(times))


@pytest.mark.fault(29, promise="P5")
@pytest.mark.parametrize("refused", ["not_in_channel", "channel_not_found"])
def test_a_channel_that_the_bot_does_not_see_fails_the_check(slack, refused):
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    assert poster.check() == "Test Observatory"
    slack.always["conversations.history"] = "missing_scope"
    assert poster.check() == "Test Observatory; channel not checked, because the token has no channels:history"
    slack.always["conversations.history"] = refused
    with pytest.raises(PostError, match=refused):
        poster.check()


def deliver_to_webhook(store, slack):
    return deliver_all(store, WebhookPoster(slack.url + "hook"), "webhook", 0)


def states(store):
    with store.read() as rows:
        return list(rows.scalars(select(outbox.c.state).order_by(outbox.c.id)))


def texts(slack):
    return [message["text"] for message in slack.messages]


def due_now(store):
    with store.write() as rows:
        rows.execute(update(outbox).values(retry_at=now() - 1))


def test_messages_are_sent_once_in_order_with_their_pictures_in_the_thread(store, slack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG" * 100)
    put(store, "one", [str(tmp_path / "a.png")])
    put(store, "two")
    assert deliver(store, slack, 3) == 2
    assert texts(slack) == ["one", "two"]
    assert slack.files == [{"bytes": 300, "thread_ts": slack.messages[0]["ts"], "channel": "C1"}]
    assert states(store) == ["sent", "sent"]


def test_a_message_that_is_off_is_never_sent(store, slack):
    put(store, "one", state="off")
    assert deliver(store, slack) == 0
    assert undelivered(store) == {"states": {"off": 1}, "oldest_s": None, "cause": None}


@pytest.mark.fault(28, promise="P3")
def test_the_poster_waits_as_long_as_retry_after_says(store, slack):
    slack.modes["chat.postMessage"].append(429)
    put(store, "one")
    put(store, "two")
    assert deliver(store, slack, 3) == 0
    with store.read() as rows:
        wait_s = rows.scalar(select(outbox.c.retry_at - now()).where(outbox.c.text == "one"))
    assert 5 < wait_s <= 7
    assert states(store) == ["retry_at", "pending"]
    due_now(store)
    assert deliver(store, slack) == 2
    assert texts(slack) == ["one", "two"]


@pytest.mark.fault(28, promise="P3")
@pytest.mark.parametrize("poster", ["slack", "webhook"])
@pytest.mark.parametrize(("ahead_s", "low_s", "high_s"), [(60, 50, 60), (9000, 3500, 3600), (-60, 0, 3)])
def test_the_poster_waits_until_the_date_in_retry_after(store, slack, poster, ahead_s, low_s, high_s):
    slack.retry_after = formatdate(time.time() + ahead_s, usegmt=True)
    slack.modes["chat.postMessage"].append(429)
    slack.modes["hook"].append(429)
    put(store, "one", poster=poster)
    assert (deliver if poster == "slack" else deliver_to_webhook)(store, slack) == 0
    with store.read() as rows:
        assert low_s < rows.scalar(select(outbox.c.retry_at - now())) <= high_s
    due_now(store)
    assert (deliver if poster == "slack" else deliver_to_webhook)(store, slack) == 1


@pytest.mark.parametrize("header", [None, "", "-3", "0", "nan", "soon", "Mon, 99 Nov 2026 12:00:00 GMT"])
def test_a_retry_after_that_names_no_future_time_is_ignored(header):
    assert retry_after_s(header) is None


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("inf", 3600.0)])
def test_a_retry_after_in_seconds_is_at_most_an_hour(header, seconds):
    assert retry_after_s(header) == seconds


@pytest.mark.fault(30, promise="P3")
@pytest.mark.parametrize("mode", ["reset", "lost", "text", 500])
def test_a_message_whose_reply_was_lost_is_searched_for_and_sent_at_most_once(store, slack, mode):
    slack.modes["chat.postMessage"].append(mode)
    put(store, "one")
    assert deliver(store, slack) == 0
    assert states(store) == ["unknown"]
    due_now(store)
    assert deliver(store, slack) == 1
    assert texts(slack) == ["one"]
    assert states(store) == ["reconciled" if mode in ("lost", "text") else "sent"]
    assert slack.calls.count("chat.postMessage") == (1 if mode in ("lost", "text") else 2)


@pytest.mark.fault(30, promise="P3")
def test_a_repeat_is_marked_if_the_history_cannot_be_read(store, slack):
    slack.modes["chat.postMessage"].append("lost")
    slack.modes["conversations.history"].append("missing_scope")
    put(store, "one")
    deliver(store, slack)
    due_now(store)
    assert deliver(store, slack) == 1
    assert texts(slack)[0] == "one"
    assert "may repeat" in texts(slack)[1]


def test_a_message_of_a_dead_sender_is_searched_for_before_it_is_sent_again(store, slack):
    put(store, "one")
    message = claim_message(store, "slack", 0)
    SlackPoster("C1", slack.url, "xoxb-test").post(message, repeat=False)
    assert claim_message(store, "slack", 0) is None
    with store.write() as rows:
        rows.execute(update(outbox).values(until=now() - 1))
    assert deliver(store, slack) == 1
    assert (texts(slack), states(store)) == (["one"], ["reconciled"])


def test_a_message_that_never_had_a_connection_is_sent_later_and_is_no_repeat(store, slack):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    put(store, "one")
    put(store, "two", poster="webhook")
    assert deliver_all(store, SlackPoster("C1", nobody, "xoxb-test"), "slack", 0) == 0
    assert deliver_all(store, WebhookPoster(nobody), "webhook", 0) == 0
    assert states(store) == ["retry_at", "retry_at"]
    assert "no connection" in undelivered(store)["cause"]
    due_now(store)
    assert deliver(store, slack) + deliver_to_webhook(store, slack) == 2
    assert [sent["repeat"] for sent in slack.messages if "repeat" in sent] == [False]


@pytest.mark.fault(32, promise="P3")
def test_a_message_whose_sender_died_before_the_clock_was_set_back_is_sent_soon(store, slack):
    put(store, "one")
    put(store, "two")
    claim_message(store, "slack", 0)
    with store.write() as rows:
        rows.execute(update(outbox).where(outbox.c.state == "sending").values(until=now() + 3700))
    assert deliver(store, slack) == 0
    with store.write() as rows:
        rows.execute(update(outbox).where(outbox.c.state == "sending").values(until=outbox.c.until - 121))
    assert deliver(store, slack, 2) == 2
    assert texts(slack)[0].startswith("one")


def test_a_message_whose_sender_died_is_reported_before_it_is_sent_again(store):
    put(store, "one")
    claim_message(store, "slack", 0)
    assert undelivered(store)["cause"] is None
    with store.write() as rows:
        rows.execute(update(outbox).values(until=outbox.c.until - 31))
    assert undelivered(store)["cause"] == "in delivery for more than 30 s"


@pytest.mark.fault(29, promise="P5")
@pytest.mark.parametrize("cause", ["invalid_auth", "channel_not_found"])
def test_a_wrong_token_or_channel_is_reported_and_the_message_waits(store, slack, cause):
    slack.modes["chat.postMessage"].append(cause)
    put(store, "one")
    deliver(store, slack)
    assert undelivered(store)["cause"] == cause
    due_now(store)
    assert deliver(store, slack) == 1


def test_a_picture_that_is_not_drawn_yet_delays_no_message(store, slack, tmp_path):
    put(store, "one", [str(tmp_path / "a.png")])
    put(store, "two")
    assert deliver(store, slack, 2) == 2
    assert texts(slack) == ["one", "two"]
    assert states(store) == ["sent", "sent"]
    assert deliver(store, slack, 2) == 0
    (tmp_path / "a.png").write_bytes(b"PNG")
    with store.write() as rows:
        resume_uploads(rows, 1)
    assert undelivered(store)["oldest_s"] is None  # its text has been sent
    assert deliver(store, slack, 2) == 1
    assert [file["thread_ts"] for file in slack.files] == [slack.messages[0]["ts"]]
    assert states(store) == ["sent", "sent"]
    with store.write() as rows:
        resume_uploads(rows, 1)
    assert deliver(store, slack, 2) == 0


def test_a_picture_that_cannot_be_sent_stops_delaying_messages_after_some_attempts(store, slack, tmp_path):
    (tmp_path / "a.png").mkdir()  # opening it fails
    put(store, "one", [str(tmp_path / "a.png")], attempts=4)
    put(store, "two")
    assert deliver(store, slack) == 2
    with store.read() as rows:
        assert "a.png" in rows.scalar(select(outbox.c.cause).where(outbox.c.text == "one"))


def test_a_sender_that_takes_long_for_its_pictures_keeps_the_message(store, slack, tmp_path):
    pictures = [tmp_path / name for name in ("a.png", "b.png")]
    for picture in pictures:
        picture.write_bytes(b"PNG")
    put(store, "one", list(map(str, pictures)))

    class Slow(SlackPoster):
        def upload(self, ts, picture, *alert):
            if picture == str(pictures[1]):
                assert claim_message(store, "slack", 0) is None
            super().upload(ts, picture)
            with store.write() as rows:  # as if each picture had taken most of the time
                rows.execute(update(outbox).values(until=now() - 1))

    message = claim_message(store, "slack", 0)
    poster = Slow("C1", slack.url, "xoxb-test")
    assert deliver_message(store, poster, message)
    assert [file["bytes"] for file in slack.files] == [3, 3]


def test_messages_are_no_closer_than_the_configured_gap(store, slack):
    put(store, "one")
    put(store, "two")
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    assert deliver_all(store, poster, "slack", 1000) == 1
    assert claim_message(store, "slack", 1000) is None


def test_a_message_names_target_band_mjd_release_and_the_best_rows():
    rows = [{**ROW, "probability": p / 10} for p in range(9)]
    text = message_text("HIP99427", (8418.1, 8421.0), 59103.02, "first", rows)
    for part in ("*9 candidates*", "HIP99427", "8418.100-8421.000 MHz", "59103.02000", "first", "p 0.800"):
        assert part in text
    assert "p 0.300" not in text


def test_a_row_lists_the_remarks_on_its_frequency():
    facts = {"allocations": "Iridium", "clock": "", "comb_teeth": 9, "comb_spacing_hz": 41666.67, "seen_before": 3}
    text = message_text("HIP99427", (1600, 1700), 59103.02, "first", [{**ROW, **facts}])
    assert "p 0.900  Iridium; comb of 9 lines, 41.6667 kHz apart; seen before: 3\n" in text


def test_a_row_that_looks_like_interference_says_so_and_one_that_looks_like_a_signal_does_not():
    def text(kind):
        return message_text("HIP99427", (1600, 1700), 59103.02, "first", [{**ROW, "kind": kind, **probable}])

    probable = {"kind_probability": 0.7049}
    assert "p 0.900  looks like: side lobe 0.7\n" in text("side_lobe")
    assert "p 0.900\n" in text("signal")
    assert "p 0.900\n" in text(None)


def test_a_row_without_remarks_has_none():
    unknown = dict.fromkeys(("allocations", "clock", "comb_teeth", "comb_spacing_hz", "seen_before"))
    for facts in ({}, unknown, {**unknown, "allocations": "", "clock": "", "comb_teeth": 0, "seen_before": 0}):
        assert "p 0.900\n" in message_text("HIP99427", (1600, 1700), 59103.02, "first", [{**ROW, **facts}])


def test_a_late_band_slice_edits_the_message_and_adds_its_pictures_to_the_thread(store, slack, tmp_path):
    (tmp_path / "late.png").write_bytes(b"PNG")
    record(store)
    deliver(store, slack)
    late = record(store, tstart=59000.00001, count=2, pictures=[str(tmp_path / "late.png")])
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.id == late).values(band_low_mhz=2, band_high_mhz=3))
    assert deliver(store, slack) == 2
    (only,) = slack.messages
    assert "*3 candidates* toward *T*: 1.000-3.000 MHz in 2 slices" in only["text"]
    assert slack.files[0]["thread_ts"] == only["ts"]
    assert states(store) == ["sent", "sent"]
    with store.read() as rows:
        assert all(rows.scalars(select(outbox.c.posted_at)))


def test_band_slices_recorded_before_the_message_is_sent_are_in_its_first_text(store, slack):
    record(store)
    record(store)
    deliver(store, slack)
    assert "in 2 slices" in texts(slack)[0]
    assert slack.calls.count("chat.postMessage") == 1
    assert slack.calls.count("chat.update") == 0


def test_another_target_or_pointing_has_its_own_message(store, slack):
    record(store)
    record(store, "U")
    record(store, tstart=59000.02)
    assert deliver(store, slack) == len(texts(slack)) == 3


def test_a_label_is_added_to_the_message_of_its_candidate(store, slack):
    record(store, pictures=["/nowhere.png"], count=2)
    deliver(store, slack)
    for word in ("unsure", "RFI"):
        put_label(store, 1, word, "a person")
    for _ in range(6):  # until the picture is given up
        due_now(store)
        deliver(store, slack)
    assert "labeled RFI" in texts(slack)[0]
    assert "unsure" not in texts(slack)[0]
    assert len(texts(slack)) == 1
    assert "labeled RFI" in newest(store, 5)[1]


def test_a_failed_edit_is_tried_again_unless_the_message_was_deleted(store, slack):
    record(store)
    deliver(store, slack)
    put_label(store, 1, "RFI", "a person")
    slack.modes["chat.update"].append(429)
    assert deliver(store, slack) == 0
    assert undelivered(store)["oldest_s"] is not None
    due_now(store)
    slack.messages.clear()
    assert deliver(store, slack, 2) == 0
    assert undelivered(store)["oldest_s"] is None
    assert slack.messages == []


def test_messages_beyond_the_hourly_limit_become_one_digest_that_is_edited(store, slack):
    for number in range(5):
        record(store, f"T{number}")
        deliver(store, slack, per_hour=3)
    assert [text.split("\n")[0].split(":")[0] for text in texts(slack)] == [
        "*1 candidate* toward *T0*",
        "*1 candidate* toward *T1*",
        "*1 candidate* toward *T2*",
        "*2 candidates in 2 cadences*",
    ]
    assert states(store) == ["sent", "sent", "sent", "sent", "folded"]
    assert undelivered(store)["oldest_s"] is None
    with store.read() as rows:
        assert all(rows.scalars(select(outbox.c.posted_at)))


def test_a_deleted_digest_is_posted_again(store, slack):
    for number in range(3):
        record(store, f"T{number}")
    deliver(store, slack, per_hour=1)
    slack.messages.clear()
    record(store, "T3")
    deliver(store, slack, 3, per_hour=1)
    assert "*4 candidates in 4 cadences*" in texts(slack)[0]


@pytest.mark.fault(27, promise="P3")
@pytest.mark.parametrize(("waiting", "posts"), [(8, 8), (40, 1)])
def test_after_an_hour_without_slack_messages_are_sent_in_order_or_in_one_digest(store, slack, waiting, posts):
    for number in range(waiting):
        record(store, f"T{number}")
        slack.modes["chat.postMessage"].append("fatal_error")
        deliver(store, slack, per_hour=30)
        due_now(store)
    slack.modes.clear()
    deliver(store, slack, 3, per_hour=30)
    assert len(texts(slack)) == posts
    posted = "\n".join(texts(slack))
    assert all(f"T{number}" in posted for number in range(min(waiting, 20)))
    places = [posted.find(f"T{number}") for number in range(8)]
    assert places == sorted(places)
    if posts == 1:
        assert "*40 candidates in 40 cadences*" in posted
        assert "and 20 more cadences" in posted
    assert undelivered(store)["oldest_s"] is None


@pytest.mark.fault(27, promise="P5")
def test_a_message_is_tried_again_within_a_minute_however_long_slack_was_away(store, slack):
    put(store, "one", attempts=50)
    slack.modes["chat.postMessage"].append(500)
    deliver(store, slack)
    with store.read() as rows:
        assert 0 < rows.scalars(select(outbox.c.retry_at - now())).one() < 60


@pytest.mark.fault(31, promise="P3")
@pytest.mark.parametrize(("cadences", "part"), [(1, "most likely interference"), (40, "in 40 cadences*")])
def test_all_of_5000_candidates_are_stored_and_announced_in_one_message(store, slack, cadences, part):
    for number in range(cadences):
        record(store, f"T{number}", count=5000 // cadences)
    assert deliver(store, slack, 3, per_hour=30) == 1
    assert "*5000 candidates" in texts(slack)[0]
    assert part in texts(slack)[0]
    assert len(texts(slack)[0]) < 1500
    with store.read() as rows:
        assert rows.scalars(select(func.count()).select_from(candidate)).one() == 5000


def test_waiting_messages_can_be_listed_and_made_due_at_once(store, slack):
    slack.modes["chat.postMessage"].append("not_in_channel")
    record(store, "A\x1b[31m\nB")
    record(store, "U", state="off")
    deliver(store, slack)
    waiting = message_lines(store, 9)
    assert [line.split()[1] for line in waiting] == ["off", "retry_at"]
    assert waiting[1].endswith("not_in_channel")
    assert waiting[1].isprintable()
    assert retry(store, ()) == 1
    assert deliver(store, slack) == 1
    assert retry(store, (2,)) == 1
    assert deliver(store, slack) == 1


def test_a_webhook_gets_messages_edits_and_pictures_as_json(store, slack, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("sesame\n")
    monkeypatch.setenv("SENTINEL_WEBHOOK_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "a.png").write_bytes(b"PNG")
    record(store, posters=["slack", "webhook"], pictures=[str(tmp_path / "a.png")])
    assert deliver_to_webhook(store, slack) == 1
    put_label(store, 1, "RFI", "a person")
    assert deliver_to_webhook(store, slack) == 1
    message, picture, edit = slack.messages
    assert b"a.png" in picture["form"]
    assert (message["repeat"], edit["edit"], message["uid"] == edit["uid"]) == (False, True, True)
    assert "labeled RFI" in edit["text"]
    assert slack.headers["Authorization"] == "Bearer sesame"
    assert states(store) == ["pending", "sent"]


@pytest.mark.fault(29, promise="P5")
def test_a_token_that_cannot_be_read_does_not_delay_the_webhook(store, slack, tmp_path, monkeypatch):
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "none"))
    config = Config(slack={"channel": "C1", "api_url": slack.url}, webhook={"url": slack.url + "hook"})
    record(store, posters=["slack", "webhook"])
    with pytest.raises(ConfigError, match="SLACK_BOT_TOKEN_FILE: expected a file"):
        deliver_due(config, store)
    assert states(store) == ["pending", "sent"]


@pytest.mark.fault(30, promise="P3")
def test_a_webhook_whose_reply_was_lost_gets_a_marked_repeat_and_its_address_is_in_no_error(store, slack):
    slack.modes["hook"].extend(["lost", 500, 429])
    record(store, posters=["webhook"])
    for _ in range(3):
        assert deliver_to_webhook(store, slack) == 0
        assert slack.url not in json.dumps(undelivered(store))
        due_now(store)
    assert deliver_to_webhook(store, slack) == 1
    assert [message["repeat"] for message in slack.messages] == [False, True]
    assert len({message["uid"] for message in slack.messages}) == 1


@pytest.mark.fault(40, promise="P3")
def test_a_target_name_cannot_mention_slack_users():
    text = message_text("<!channel>\n&" + "x" * 300, (1, 2), 59000, "r", [ROW])
    assert "&lt;!channel&gt; &amp;" in text
    assert "<!" not in text
    assert len(text) < 400
