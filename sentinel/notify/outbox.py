"""The outbox: send each message once, oldest first, from any process.

A message is written in the transaction that records its candidates, and sent afterwards. The sending process holds it
in state `sending`. If that process dies, Slack may or may not have accepted the message: it becomes `unknown`, and is
looked for in the channel before it is sent again. The oldest unsent message blocks later ones, which keeps the order.

One message covers all band slices of a pointing sequence. The row of a later slice has that message as its parent: its
pictures go to the parent's thread, and the parent becomes *stale*, which means that its text is rebuilt from the store
and edited in place. A label has the same effect. Posters for machines get the same as an alert (`alerts`). A message
for `GATED`, which is public, is `held` until a person has labeled a candidate of it `candidate`. If more messages wait
than may be posted in an hour, they are folded into one digest, which is a parent as well. Edits are idempotent: if the
reply is lost, the edit is sent again.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection, Row, and_, case, exists, func, or_, select, update
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from aetherscan.header import NOT_MEASURED
from sentinel.errors import PostError, PostGoneError, PostRefusedError, PostUnknownError
from sentinel.failpoint import failpoint
from sentinel.notify.alerts import Alert, alert_of, with_picture
from sentinel.notify.followup import observer_line
from sentinel.notify.messages import ROWS, STORM, digest_text, message_text, one_line
from sentinel.store.labels import count_earlier_labels
from sentinel.store.queue import GATED, HELD, Store
from sentinel.store.schema import announced, cadence, candidate, labeled, meta, now, outbox, ranking

UNSENT = ("pending", "sending", "retry_at", "unknown")
SENT = ("sent", "reconciled")
SENDING_S = 120.0
"""Longer than a message or one picture can take: after this the sender counts as dead."""
SLOW_S = 30.0
"""A message in delivery for longer is reported: its sender may have died. Then it is sent after `SENDING_S`."""
LONGEST_WAIT_S = 45.0
"""Longest wait of a message that was refused, seconds. The status is ok within a minute after Slack is back."""
PICTURE_ATTEMPTS = 5
"""After this many attempts a message counts as sent without its pictures, so that it does not block later ones."""
HOUR_S = 3600.0
FOR_PEOPLE = ("slack",)
"""Posters that show the text of a message and need no alert."""
UNLIMITED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A row of the outbox that this process is sending."""

    id: int
    cadence_id: int
    uid: str
    text: str
    pictures: tuple[str, ...]
    uploaded: int
    attempts: int
    doubtful: bool
    ts: str | None
    created_at: float
    parent_id: int | None
    digest: bool | None
    stale_at: float | None
    parent_ts: str | None
    edit: bool  # already posted, and the text has changed
    alert: Alert  # the same for machines; empty for people


class Poster(Protocol):
    """A destination of messages. Each method may raise the errors below PostError."""

    def find(self, message: Message) -> str | None:
        """Return the identifier of a message that arrived, None if it did not; LookupError if that is not known."""
        ...

    def post(self, message: Message, *, repeat: bool) -> str:
        """Send a message, marked if it may be a `repeat`; return the identifier that it got."""
        ...

    def edit(self, ts: str, text: str, alert: Alert, /) -> None:
        """Replace the text, or the alert, of a posted message."""
        ...

    def upload(self, ts: str, picture: str, alert: Alert, /) -> None:
        """Add a picture to a message's thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """What the store holds about the cadences of a message."""

    cadences: Sequence[Mapping[str, Any]]  # with `count`, the candidates that are announced
    best: Sequence[Mapping[str, Any]]  # of these, for the text
    every: Sequence[Mapping[str, Any]]  # also those of earlier searches, for the alert
    at: float  # time of the store


def claim_message(
    store: Store, poster: str, gap_s: float, *, per_hour: int = UNLIMITED, link: str = ""
) -> Message | None:
    """Claim the oldest unsent message, or else an edit; None if none is due.

    Args:
        store: that holds the outbox.
        poster: name of the destination.
        gap_s: least time in seconds since the last message to it.
        per_hour: messages an hour after which the rest is folded into a digest.
        link: URL of the web pages, or an empty string.
    """
    earlier = outbox.alias("earlier")
    ours = outbox.c.poster == poster
    head = ~exists().where(earlier.c.id < outbox.c.id, earlier.c.poster == poster, earlier.c.state.in_(UNSENT))
    # A time far ahead was written before the clock was set back, and is ignored.
    recently = [(at > now() - gap_s) & (at < now() + gap_s) for at in (earlier.c.posted_at, earlier.c.edited_at)]
    recent = exists().where(earlier.c.poster == poster, or_(*recently))
    waited = ~func.coalesce(outbox.c.retry_at, 0).between(now(), now() + HOUR_S)
    due = (outbox.c.state == "pending") | (outbox.c.state.in_(("unknown", "retry_at")) & waited)
    free = func.coalesce(outbox.c.until, 0) < now()
    stale = and_(outbox.c.state.in_(SENT), outbox.c.stale_at.is_not(None), waited, free)
    line = select(outbox.c.id).where(ours, due, head, ~recent).limit(1)
    edits = select(outbox.c.id).where(ours, stale, ~recent).order_by(outbox.c.stale_at).limit(1)
    with store.write() as rows:
        rows.execute(select(meta.c.value).where(meta.c.key == "schema_version").with_for_update())  # one at a time
        count_earlier_labels(rows)
        far = outbox.c.until > now() + SENDING_S  # written before the clock was set back
        rows.execute(update(outbox).where(far).values(until=now() + SENDING_S))
        rows.execute(  # the sender died: a message with a ts was accepted, and one without may have been
            update(outbox)
            .where(outbox.c.state == "sending", outbox.c.until < now())
            .values(state="unknown", doubtful=outbox.c.ts.is_(None) & outbox.c.parent_id.is_(None))
        )
        _release(rows, poster)
        _fold_into_digest(rows, poster, per_hour)
        held: dict[str, Any] = {"until": now() + SENDING_S, "attempts": outbox.c.attempts + 1}
        first = rows.scalar(line)
        which = first or rows.scalar(edits)
        if which is None:
            return None
        if first:
            held["state"] = "sending"
        row = rows.execute(update(outbox).where(outbox.c.id == which).values(**held).returning(outbox)).one()
        covered = _covered(rows, row) if row.stale_at or poster not in FOR_PEOPLE else None
        parent_ts = rows.scalar(select(outbox.c.ts).where(outbox.c.id == row.parent_id)) if row.parent_id else None
    text = row.text
    alert: Alert = {}
    if covered:
        follow_up = "" if row.digest and poster in FOR_PEOPLE else _follow_up(covered)
        if row.stale_at:
            text = current_text(covered, link, follow_up, digest=bool(row.digest))
        if poster not in FOR_PEOPLE:
            alert = _alert(covered, row, link, follow_up, is_edit=first is None)
    pictures: tuple[str, ...] = () if row.digest else tuple(row.pictures)
    derived: dict[str, Any] = {"text": text, "pictures": pictures, "parent_ts": parent_ts, "edit": first is None}
    derived["alert"] = alert
    stored = [name for name in Message.__dataclass_fields__ if name not in derived]
    return Message(**derived, **{name: getattr(row, name) for name in stored})


def _release(rows: Connection, poster: str) -> None:
    """Make held messages due that list a candidate which a person has labeled `candidate`."""
    if poster != GATED:
        return
    slices = outbox.alias("slices")
    of_message = (slices.c.id == outbox.c.id) | (slices.c.parent_id == outbox.c.id)
    known = labeled().where(announced()).subquery()
    confirmed = exists().where(known.c.cadence_id == slices.c.cadence_id, of_message, known.c.label == "candidate")
    held = (outbox.c.poster == poster) & (outbox.c.state == HELD)
    rows.execute(update(outbox).where(held, confirmed.correlate(outbox)).values(state="pending", retry_at=None))


def _fold_into_digest(rows: Connection, poster: str, per_hour: int) -> None:
    """Fold waiting messages into one digest if more wait than may be posted this hour, or if a digest is open."""
    ours = outbox.c.poster == poster
    alone = ours & outbox.c.parent_id.is_(None) & outbox.c.digest.is_not(True)
    lately = outbox.c.posted_at > now() - HOUR_S
    posted = rows.scalars(select(func.count()).select_from(outbox).where(alone, lately)).one()
    wait = alone & outbox.c.state.in_(("pending", "retry_at")) & outbox.c.ts.is_(None)
    waiting = list(rows.scalars(select(outbox.c.id).where(wait).order_by(outbox.c.id).limit(per_hour + 1)))
    recent = ours & outbox.c.digest.is_(True) & (lately | outbox.c.posted_at.is_(None))
    open_digest = rows.scalar(select(outbox.c.id).where(recent).order_by(outbox.c.id.desc()).limit(1))
    if not waiting or (open_digest is None and posted + len(waiting) <= per_hour):
        return
    digest = open_digest or waiting[0]
    folded = {"state": "folded", "parent_id": digest}
    fold = wait & (outbox.c.id != digest)
    slices = outbox.alias("slices")
    children = select(slices.c.id).where(slices.c.parent_id.in_(select(outbox.c.id).where(fold)))
    rows.execute(update(outbox).where(outbox.c.id.in_(children)).values(**folded))
    rows.execute(update(outbox).where(fold).values(**folded))
    rows.execute(update(outbox).where(outbox.c.id == digest).values(digest=True, stale_at=now(), retry_at=None))


def _covered(rows: Connection, row: Row[Any]) -> Covered:
    cadence_ids = select(outbox.c.cadence_id).where((outbox.c.id == row.id) | (outbox.c.parent_id == row.id))
    columns = (cadence.c.id, cadence.c.target, cadence.c.band_low_mhz, cadence.c.band_high_mhz, cadence.c.tstart)
    current = (candidate.c.cadence_id == cadence.c.id) & announced()
    joined = cadence.outerjoin(candidate, current)
    counted = select(*columns, cadence.c.run, func.count(candidate.c.id).label("count")).select_from(joined)
    covered = counted.where(cadence.c.id.in_(cadence_ids)).group_by(cadence.c.id).order_by(cadence.c.id)
    measured = ~func.coalesce(candidate.c.note, "").contains(NOT_MEASURED)
    mine = labeled().where(candidate.c.cadence_id.in_(cadence_ids), candidate.c.muted.is_(None), measured)
    mine = mine.order_by(ranking().desc(), candidate.c.probability.desc())
    best = mine.where(announced()).limit(ROWS)
    every = [] if row.poster in FOR_PEOPLE else [dict(line) for line in rows.execute(mine).mappings()]
    return Covered(
        cadences=[dict(line) for line in rows.execute(covered).mappings()],
        best=[dict(line) for line in rows.execute(best).mappings()],
        every=every,
        at=float(rows.scalar(select(now())) or 0.0),
    )


def current_text(covered: Covered, link: str = "", follow_up: str = "", *, digest: bool = False) -> str:
    """Return the text of a message as the store would write it now: all its slices and labels.

    Args:
        covered: what the store holds about its cadences.
        link: address of the pages, or an empty string.
        follow_up: line for the observer.
        digest: whether it summarizes messages beyond the hourly limit.
    """
    cadences, best = covered.cadences, covered.best
    if digest:
        return digest_text(cadences, link=link and f"{link}/candidates")
    return message_text(
        cadences[0]["target"],
        (min(line["band_low_mhz"] for line in cadences), max(line["band_high_mhz"] for line in cadences)),
        cadences[0]["tstart"],
        best[0]["release_name"] if best else "-",
        best,
        total=sum(line["count"] for line in cadences),
        slices=len(cadences),
        link=link and f"{link}/cadences/{cadences[0]['id']}",
        follow_up=follow_up,
    )


def _follow_up(covered: Covered) -> str:
    """Return the line for the observer about the best candidate that is no interference; none in a storm."""
    total = sum(line["count"] for line in covered.cadences)
    best = next((line for line in covered.best if line["label"] != "RFI"), None)
    if best is None or total > STORM:
        return ""
    (run,) = (line["run"] for line in covered.cadences if line["id"] == best["cadence_id"])
    return observer_line(best, run or {}, covered.at)


def _alert(covered: Covered, row: Row[Any], link: str, follow_up: str, *, is_edit: bool) -> Alert:
    return alert_of(
        row.uid,
        covered.cadences,
        covered.every,
        revision=f"{round(row.stale_at * 1000)}" if is_edit else "0",
        issued_s=covered.at,
        pictures=row.pictures[: row.uploaded],
        follow_up=follow_up,
        url=link and f"{link}/cadences/{covered.cadences[0]['id']}",
    )


def deliver(store: Store, poster: Poster, message: Message) -> bool:
    """Send a message and its pictures, or an edit; return whether that succeeded. Record a failure in its row."""
    if message.edit:
        return _edit(store, poster, message)
    ts, found = message.ts or message.parent_ts, None
    try:
        repeat = ts is None and message.doubtful
        if repeat:
            with suppress(LookupError):
                found = ts = poster.find(message)
                repeat = False
        if ts is None:
            failpoint("before-send")
            ts = poster.post(message, repeat=repeat)
            failpoint("after-accept")
        if message.ts is None and message.parent_ts is None:
            _mark(store, message, ts=ts, posted_at=now())
            if not found:
                _mark_current(store, message)
    except PostUnknownError as error:
        _mark(store, message, state="unknown", doubtful=True, cause=str(error), **_later(message, error))
        return False
    except PostError as error:
        state = HELD if isinstance(error, PostRefusedError) else "retry_at"
        _mark(store, message, state=state, cause=str(error), **_later(message, error))
        return False
    cause = _upload(store, poster, message, ts)
    if cause and message.attempts < PICTURE_ATTEMPTS:
        return False
    state = "reconciled" if found else "sent"
    _mark(store, message, state=state, sent_at=now(), cause=cause, retry_at=None, until=None)
    if not cause:  # a picture may have been drawn since its turn came
        with store.write() as rows:
            resume_uploads(rows, message.cadence_id)
    return True


def resume_uploads(rows: Connection, cadence_id: int, without: Sequence[str] = ()) -> None:
    """Make the messages of a cadence due again whose text was sent before their pictures were drawn.

    Args:
        rows: of the open transaction.
        cadence_id: whose messages have pictures.
        without: paths of pictures that will never be drawn.
    """
    sent = (outbox.c.cadence_id == cadence_id) & outbox.c.state.in_((*SENT, *UNSENT))
    for row in rows.execute(select(outbox).where(sent)).all():
        waiting = [path for path in row.pictures[row.uploaded :] if path not in without]
        waiting.sort(key=lambda path: not os.access(path, os.R_OK))
        this, pictures = update(outbox).where(outbox.c.id == row.id), [*row.pictures[: row.uploaded], *waiting]
        if pictures != row.pictures:
            rows.execute(this.values(pictures=pictures))
        if row.state in SENT and waiting and os.access(waiting[0], os.R_OK):
            rows.execute(this.values(state="retry_at", retry_at=now(), attempts=0))


def _upload(store: Store, poster: Poster, message: Message, ts: str) -> str | None:
    """Upload the pictures that exist to a message's thread; return the cause of a failure.

    A picture that is not drawn yet delays no message: `resume_uploads` makes the message due again.
    """
    try:
        for done, picture in enumerate(message.pictures[message.uploaded :], message.uploaded + 1):
            if not os.access(picture, os.R_OK):
                break
            failpoint("mid-upload")
            poster.upload(ts, picture, message.alert and with_picture(message.alert, picture))
            _mark(store, message, uploaded=done, until=now() + SENDING_S)
    except PostError as error:
        cause = f"pictures: {error}"
        _mark(store, message, state="retry_at", cause=cause, **_later(message, error))
        return cause
    return None


def _edit(store: Store, poster: Poster, message: Message) -> bool:
    """Edit a posted message. A digest that was deleted is posted again: no other message covers its cadences."""
    try:
        poster.edit(str(message.ts), message.text, message.alert)
    except PostGoneError as error:
        again = {"state": "pending", "ts": None, "doubtful": False} if message.digest else {"stale_at": None}
        _mark(store, message, cause=str(error), until=None, **again)
        return False
    except PostError as error:
        _mark(store, message, cause=str(error), until=None, **_later(message, error))
        return False
    _mark(store, message, edited_at=now(), cause=None, until=None, retry_at=None)
    _mark_current(store, message)
    return True


def _mark_current(store: Store, message: Message) -> None:
    """Record that the posted text is current, unless the message became stale again while it was sent."""
    with store.write() as rows:
        this = update(outbox).where(outbox.c.id == message.id, outbox.c.stale_at == message.stale_at)
        rows.execute(this.values(stale_at=None))
        children = (outbox.c.parent_id == message.id) & outbox.c.posted_at.is_(None)
        covered = children & (outbox.c.created_at <= (message.stale_at or 0))
        rows.execute(update(outbox).where(covered).values(posted_at=now()))


def deliver_all(
    store: Store, poster: Poster, name: str, gap_s: float, *, per_hour: int = UNLIMITED, link: str = ""
) -> int:
    """Send what is due now; return how many messages and edits were sent.

    Args:
        store: that holds the outbox.
        poster: the destination.
        name: of the destination in the outbox.
        gap_s: least time in seconds between two messages.
        per_hour: messages an hour after which the rest is folded into a digest.
        link: URL of the web pages, or an empty string.
    """
    sent = 0
    claim = partial(claim_message, store, name, gap_s, per_hour=per_hour, link=link)
    while (message := claim()) and deliver(store, poster, message):
        sent += 1
    return sent


def undelivered(store: Store) -> Mapping[str, Any]:
    """Return the number of messages in each state, the age in seconds of the oldest unsent one, and its cause."""
    unsent = outbox.c.state.in_(UNSENT)
    # The text of a message with `sent_at` has gone out; only pictures follow.
    waiting = (unsent & outbox.c.sent_at.is_(None)) | (outbox.c.state.in_(SENT) & outbox.c.stale_at.is_not(None))
    since = func.min(case((unsent, outbox.c.created_at), else_=outbox.c.stale_at))
    with store.read() as rows:
        states = rows.execute(select(outbox.c.state, func.count()).group_by(outbox.c.state)).all()
        oldest = rows.scalar(select(now() - since).where(waiting))
        slow = (outbox.c.state == "sending") & (outbox.c.until < now() + SENDING_S - SLOW_S)
        why = func.coalesce(outbox.c.cause, case((slow, f"in delivery for more than {SLOW_S:g} s")))
        cause = rows.scalar(select(why).where(waiting, why.is_not(None)).order_by(outbox.c.id).limit(1))
    return {"states": {row[0]: row[1] for row in states}, "oldest_s": oldest, "cause": cause}


def message_lines(store: Store, count: int) -> list[str]:
    """Return a line for each of the newest messages: id, state, age, poster, target, parent and cause."""
    columns = (outbox.c.id, outbox.c.state, outbox.c.poster, outbox.c.cause, outbox.c.parent_id)
    lines = select(*columns, (now() - outbox.c.created_at).label("age_s"), cadence.c.target).join(cadence)
    newest = lines.order_by(outbox.c.id.desc()).limit(count)
    with store.read() as rows:
        return [
            f"{row.id:>6}  {row.state:<10} {row.age_s:>8.0f} s  {row.poster:<8} {one_line(row.target, 16):<16}  "
            f"{f'in {row.parent_id}' if row.parent_id else ''}  {one_line(row.cause or '')}".rstrip()
            for row in rows.execute(newest)
        ]


def retry(store: Store, ids: Sequence[int]) -> int:
    """Make the messages `ids` due now, even if `off`; without ids, all unsent ones. Return how many."""
    chosen = (outbox.c.id.in_(ids) & outbox.c.state.in_((*UNSENT, "off"))) if ids else outbox.c.state.in_(UNSENT)
    with store.write() as rows:
        rows.execute(update(outbox).where(chosen, outbox.c.state == "off").values(state="pending"))
        return rows.execute(update(outbox).where(chosen, outbox.c.state != "sending").values(retry_at=now())).rowcount


def was_sent(error: BaseException | None) -> bool:
    """Return whether a request that failed may have been received: not if there was never a connection."""
    if isinstance(error, ConnectionRefusedError | socket.gaierror | NewConnectionError | ConnectTimeoutError):
        return False
    inner = [getattr(error, "reason", None), *getattr(error, "args", ())]
    return all(was_sent(part) for part in inner if isinstance(part, BaseException))


def retry_after_s(header: str | None) -> float | None:
    """Return the wait in seconds that an HTTP `Retry-After` asks for, at most an hour; None if it names no future time.

    The header holds seconds or a date (RFC 9110, section 10.2.3).
    """
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            date = parsedate_to_datetime(header or "")
        except ValueError:
            return None
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time()
    return min(seconds, HOUR_S) if seconds > 0 else None


def _later(message: Message, error: PostError) -> dict[str, Any]:
    wait_s = getattr(error, "after_s", None) or min(2.0**message.attempts, LONGEST_WAIT_S)
    return {"retry_at": now() + wait_s}


def _mark(store: Store, message: Message, **values: Any) -> None:
    with store.write() as rows:
        rows.execute(update(outbox).where(outbox.c.id == message.id).values(**values))
