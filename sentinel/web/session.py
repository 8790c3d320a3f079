"""Who a visitor is: one-time login links, and the sessions that they begin.

`./sentinel.py web login` puts a code into the store and prints a link with it. Whoever may open the store may do so; a
host has many users, and only its loopback address is shared. The store holds hashes of codes and sessions, so reading
it gives neither. A link ends after ten minutes or one use, a session after two weeks.
"""

import hashlib
import json
import secrets
import socket
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from sentinel.config import Config
from sentinel.errors import ConfigError, StoreError
from sentinel.notify.messages import one_line
from sentinel.store.queue import Store, insert_if_absent
from sentinel.store.schema import heartbeat, in_last, meta, now

LINK_S = 600.0
SESSION_S = 14 * 86_400.0
SILENT_S = 60.0
"""A web program without a heartbeat for longer does not run, seconds."""
LONGEST_NAME = 64
SECRET = "web:secret"  # noqa: S105 - the key of the row that holds it
LINKS, SESSIONS = "weblink:", "session:"
DIGITS = 48
"""Hexadecimal digits of a hash that are part of a key; the column holds 64 characters."""


def checked_name(name: str) -> str:
    """Return the name of a person, without blanks around it.

    Raises:
        ConfigError: it is empty, too long, or holds characters that cannot be printed.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"expected a name of 1 to {LONGEST_NAME} printable characters, found {one_line(name, 80)!r}")
    return name


def new_link(store: Store, name: str) -> str:
    """Return a code that begins one session of the person `name`, within `LINK_S`."""
    return _put(store, LINKS, checked_name(name), LINK_S)


def redeem(store: Store, code: str) -> str | None:
    """Use up the code of a link; return the cookie of a new session, or None if the code is void."""
    name = _take(store, _key(LINKS, code))
    return None if name is None else _put(store, SESSIONS, name, SESSION_S)


def session_name(store: Store, cookie: str) -> str | None:
    """Return the name of the person whose session a cookie holds, or None."""
    with store.read() as rows:
        return _valid(rows, rows.scalar(select(meta.c.value).where(meta.c.key == _key(SESSIONS, cookie))))


def end_session(store: Store, cookie: str) -> None:
    """End a session."""
    _take(store, _key(SESSIONS, cookie))


def server_secret(store: Store) -> str:
    """Return the secret that tokens of forms are made with; all hosts that share a store have the same."""
    with store.write() as rows:
        rows.execute(insert_if_absent(rows, meta).values(key=SECRET, value=secrets.token_hex(32)))
        return str(rows.scalars(select(meta.c.value).where(meta.c.key == SECRET)).one())


def address(config: Config, store: Store) -> str:
    """Return the address of the pages: the configured one, or that of the web program on this host.

    Raises:
        StoreError: there is none.
    """
    if config.web.url:
        return config.web.url.rstrip("/")
    own = (heartbeat.c.name == f"web@{socket.gethostname()}") & in_last(heartbeat.c.at, SILENT_S)
    with store.read() as rows:
        facts = rows.scalar(select(heartbeat.c.facts).where(own)) or {}
    if "://" not in (at := str(facts.get("web", "no web program runs on this host"))):
        raise StoreError(f"expected pages to log in to, found: {at}")
    return at


def _key(kind: str, text: str) -> str:
    return kind + hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _put(store: Store, kind: str, name: str, seconds: float) -> str:
    text = secrets.token_urlsafe(32)
    with store.write() as rows:
        _forget_ended(rows)
        value = json.dumps({"name": name, "until": rows.scalars(select(now())).one() + seconds})
        rows.execute(insert(meta).values(key=_key(kind, text), value=value))
    return text


def _take(store: Store, key: str) -> str | None:
    with store.write() as rows:
        return _valid(rows, rows.scalar(delete(meta).where(meta.c.key == key).returning(meta.c.value)))


def _valid(rows: Connection, value: str | None) -> str | None:
    facts: dict[str, Any] = json.loads(value or "{}")
    valid = facts and rows.scalars(select(now())).one() < facts["until"]
    return str(facts["name"]) if valid else None


def _forget_ended(rows: Connection) -> None:
    kept = meta.c.key.startswith(LINKS) | meta.c.key.startswith(SESSIONS)
    for key, value in rows.execute(select(meta.c.key, meta.c.value).where(kept)).all():
        if _valid(rows, value) is None:
            rows.execute(delete(meta).where(meta.c.key == key))
