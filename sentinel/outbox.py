"""Messages on their way: each is sent once, oldest first, by whichever process comes to it.

A message is written with the candidates it speaks of, in one transaction, and sent afterwards. Whoever sends holds it
in `sending`; if that process dies, nobody knows whether Slack took the message: it becomes `unknown`, and is looked
for in the channel before it is sent again. The head of the line holds up the rest, so the order is kept.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import exists, func, select, update

from sentinel.errors import PostError, PostLaterError, PostUnknownError
from sentinel.failpoint import failpoint
from sentinel.schema import now, outbox
from sentinel.store import Store

UNSENT = ("pending", "sending", "retry_at", "unknown")
SENDING_S = 120.0
"""Longer than one request may take; then its sender is taken for dead."""
LONGEST_WAIT_S = 300.0
PICTURE_ATTEMPTS = 5
"""A message without its pictures is better than all the others behind it unsent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A row of the outbox, held by this process."""

    id: int
    uid: str
    text: str
    pictures: tuple[str, ...]
    uploaded: int
    attempts: int
    doubtful: bool
    ts: str | None
    created_at: float


class Poster(Protocol):
    """Where messages go. Each method raises PostLaterError or PostUnknownError."""

    def find(self, message: Message) -> str | None:
        """Return the name that the message has there, None if it never arrived; LookupError if nobody can tell."""
        ...

    def post(self, message: Message, *, repeat: bool) -> str:
        """Send the message, with a remark if it may be a `repeat`; return the name it got."""
        ...

    def upload(self, ts: str, picture: str) -> None:
        """Put a picture into the message's thread."""
        ...


def take(store: Store, poster: str, gap_s: float) -> Message | None:
    """Take the oldest unsent message, if it is due and the last one went out at least `gap_s` ago."""
    earlier = outbox.alias("earlier")
    head = ~exists().where(earlier.c.id < outbox.c.id, earlier.c.poster == poster, earlier.c.state.in_(UNSENT))
    recent = exists().where(earlier.c.poster == poster, earlier.c.sent_at > now() - gap_s)
    due = (outbox.c.state == "pending") | (
        outbox.c.state.in_(("unknown", "retry_at")) & (func.coalesce(outbox.c.retry_at, 0) <= now())
    )
    line = select(outbox.c.id).where(outbox.c.poster == poster, due, head, ~recent).limit(1)
    line = line.with_for_update(skip_locked=True)  # another host's poster may be at it
    with store.write() as rows:
        rows.execute(  # its sender died: with a name it was accepted, without one nobody knows
            update(outbox)
            .where(outbox.c.state == "sending", outbox.c.until < now())
            .values(state="unknown", doubtful=outbox.c.ts.is_(None))
        )
        row = rows.execute(
            update(outbox)
            .where(outbox.c.id == line.scalar_subquery())
            .values(state="sending", until=now() + SENDING_S, attempts=outbox.c.attempts + 1)
            .returning(*(outbox.c[name] for name in Message.__dataclass_fields__))
        ).one_or_none()
    return Message(**{**row._mapping, "pictures": tuple(row.pictures)}) if row else None  # noqa: SLF001


def deliver(store: Store, poster: Poster, message: Message) -> bool:
    """Send one message and its pictures; return whether it went out. A failure is on its row, with the cause."""
    ts, found = message.ts, None
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
        _mark(store, message, ts=ts)
    except PostUnknownError as error:
        _mark(store, message, state="unknown", doubtful=True, cause=str(error), **_later(message, error))
        return False
    except PostLaterError as error:
        _mark(store, message, state="retry_at", cause=str(error), **_later(message, error))
        return False
    cause = None
    try:
        for done, picture in enumerate(message.pictures[message.uploaded :], message.uploaded + 1):
            poster.upload(ts, picture)
            _mark(store, message, uploaded=done)
    except PostError as error:
        cause = f"pictures: {error}"
        if message.attempts < PICTURE_ATTEMPTS:
            _mark(store, message, state="retry_at", cause=cause, **_later(message, error))
            return False
    _mark(store, message, state="reconciled" if found else "sent", sent_at=now(), cause=cause)
    return True


def deliver_all(store: Store, poster: Poster, name: str, gap_s: float) -> int:
    """Send what is due now, at most one message each `gap_s`; return how many went out."""
    sent = 0
    while (message := take(store, name, gap_s)) and deliver(store, poster, message):
        sent += 1
    return sent


def undelivered(store: Store) -> Mapping[str, Any]:
    """Return how many messages are in each state, the age of the oldest unsent one in seconds, and the last cause."""
    unsent = outbox.c.state.in_(UNSENT)
    with store.read() as rows:
        states = rows.execute(select(outbox.c.state, func.count()).group_by(outbox.c.state)).all()
        oldest = rows.scalar(select(now() - func.min(outbox.c.created_at)).where(unsent))
        cause = rows.scalar(
            select(outbox.c.cause).where(unsent, outbox.c.cause.is_not(None)).order_by(outbox.c.id).limit(1)
        )
    return {"states": {row[0]: row[1] for row in states}, "oldest_s": oldest, "cause": cause}


def _later(message: Message, error: PostError) -> dict[str, Any]:
    wait_s = getattr(error, "after_s", None) or min(2.0**message.attempts, LONGEST_WAIT_S)
    return {"retry_at": now() + wait_s}


def _mark(store: Store, message: Message, **values: Any) -> None:
    with store.write() as rows:
        rows.execute(update(outbox).where(outbox.c.id == message.id).values(**values))
