"""Each message goes out once and in order, whatever Slack does."""

import uuid

import pytest
from sqlalchemy import insert, select, update

from sentinel.outbox import deliver_all, take, undelivered
from sentinel.schema import cadence, now, outbox
from sentinel.slack import SlackPoster, message_text

ROW = {"frequency_mhz": 8419.3197, "drift_rate_hz_s": 0.35, "snr": [20.0] * 6, "probability": 0.9}


def put(store, text, pictures=(), **values):
    """Put a message into the outbox, as a worker does with the candidates."""
    with store.write() as rows:
        key = uuid.uuid4().hex
        new = {"key": key, "state": "done", "target": "T", "tstart": 59000, "band_low_mhz": 1, "band_high_mhz": 2}
        made = rows.scalars(insert(cadence).values(**new, created_at=now()).returning(cadence.c.id)).one()
        message = {"poster": "slack", "state": "pending", "text": text, "pictures": list(pictures), **values}
        rows.execute(insert(outbox).values(cadence_id=made, uid=key, created_at=now(), **message))


def deliver(store, slack, times=1):
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    return sum(deliver_all(store, poster, "slack", 0) for _ in range(times))


def states(store):
    with store.read() as rows:
        return list(rows.scalars(select(outbox.c.state).order_by(outbox.c.id)))


def texts(slack):
    return [one["text"] for one in slack.messages]


def due_now(store):
    with store.write() as rows:
        rows.execute(update(outbox).values(retry_at=now() - 1))


def test_messages_go_out_once_and_in_order_with_their_pictures_in_the_thread(store, slack, tmp_path):
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


def test_slack_is_given_the_time_it_asks_for(store, slack):
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


@pytest.mark.parametrize("mode", ["reset", "lost", "text", 500])
def test_a_message_whose_reply_was_lost_is_looked_for_and_sent_at_most_once(store, slack, mode):
    slack.modes["chat.postMessage"].append(mode)
    put(store, "one")
    assert deliver(store, slack) == 0
    assert states(store) == ["unknown"]
    due_now(store)
    assert deliver(store, slack) == 1
    assert texts(slack) == ["one"]
    assert states(store) == ["reconciled" if mode in ("lost", "text") else "sent"]
    assert slack.calls.count("chat.postMessage") == (1 if mode in ("lost", "text") else 2)


def test_where_history_cannot_be_read_a_repeat_is_marked(store, slack):
    slack.modes["chat.postMessage"].append("lost")
    slack.modes["conversations.history"].append("missing_scope")
    put(store, "one")
    deliver(store, slack)
    due_now(store)
    assert deliver(store, slack) == 1
    assert texts(slack)[0] == "one"
    assert "may repeat" in texts(slack)[1]


def test_a_sender_that_died_leaves_a_message_that_is_looked_for(store, slack):
    put(store, "one")
    message = take(store, "slack", 0)
    SlackPoster("C1", slack.url, "xoxb-test").post(message, repeat=False)
    assert take(store, "slack", 0) is None
    with store.write() as rows:
        rows.execute(update(outbox).values(until=now() - 1))
    assert deliver(store, slack) == 1
    assert (texts(slack), states(store)) == (["one"], ["reconciled"])


def test_a_wrong_token_is_told_and_nothing_is_lost(store, slack):
    slack.modes["chat.postMessage"].append("invalid_auth")
    put(store, "one")
    deliver(store, slack)
    assert undelivered(store)["cause"] == "invalid_auth"
    due_now(store)
    assert deliver(store, slack) == 1


def test_a_picture_that_cannot_be_sent_does_not_hold_up_messages_for_ever(store, slack):
    put(store, "one", ["/nowhere/a.png"], attempts=4)
    put(store, "two")
    assert deliver(store, slack) == 2
    with store.read() as rows:
        assert "a.png" in rows.scalar(select(outbox.c.cause).where(outbox.c.text == "one"))


def test_messages_keep_the_distance_that_slack_allows(store, slack):
    put(store, "one")
    put(store, "two")
    poster = SlackPoster("C1", slack.url, "xoxb-test")
    assert deliver_all(store, poster, "slack", 1000) == 1
    assert take(store, "slack", 1000) is None


def test_a_message_names_target_band_mjd_release_and_the_best_rows():
    rows = [{**ROW, "probability": p / 10} for p in range(9)]
    text = message_text("HIP99427", (8418.1, 8421.0), 59103.02, "first", rows)
    for part in ("*9 candidates*", "HIP99427", "8418.100-8421.000 MHz", "59103.02000", "first", "p 0.800"):
        assert part in text
    assert "p 0.300" not in text


def test_a_row_says_what_is_known_of_its_frequency():
    facts = {"allocations": "Iridium", "clock": "", "comb_teeth": 9, "comb_spacing_hz": 41666.67, "seen_before": 3}
    text = message_text("HIP99427", (1600, 1700), 59103.02, "first", [{**ROW, **facts}])
    assert "p 0.900  Iridium; comb of 9 at 41.6667 kHz; seen before: 3\n" in text


def test_a_row_of_which_nothing_is_known_says_nothing():
    unknown = dict.fromkeys(("allocations", "clock", "comb_teeth", "comb_spacing_hz", "seen_before"))
    for facts in ({}, unknown, {**unknown, "allocations": "", "clock": "", "comb_teeth": 0, "seen_before": 0}):
        assert "p 0.900\n" in message_text("HIP99427", (1600, 1700), 59103.02, "first", [{**ROW, **facts}])


def test_a_hostile_name_mentions_nobody():
    text = message_text("<!channel>\n&" + "x" * 300, (1, 2), 59000, "r", [ROW])
    assert "&lt;!channel&gt; &amp;" in text
    assert "<!" not in text
    assert len(text) < 400
