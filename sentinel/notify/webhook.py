"""Send messages as JSON to the URL of another program.

Every call is a POST. `{"uid", "text", "repeat", "alert"}` is a new message, `{"uid", "text", "edit": true, "alert"}`
replaces that with the same uid, and a form with `uid`, `alert` and the file `picture` adds a picture to it. A repeated
message has the same uid, and a repeated alert the same `alert_id`, so the receiver can drop it. Errors never contain
the URL, which may be a secret.
"""

from pathlib import Path
from typing import Any

import requests

from sentinel.config import secret
from sentinel.errors import PostGoneError, PostLaterError, PostUnknownError
from sentinel.notify.alerts import Alert, as_json
from sentinel.notify.outbox import Message, retry_after_s, was_sent

TIMEOUT_S = 20


class WebhookPoster:
    """A `Poster` for one URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        token = secret("SENTINEL_WEBHOOK_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def post(self, message: Message, *, repeat: bool) -> str:
        """Send a message; return its uid, which identifies it in later edits."""
        self._call(json={"uid": message.uid, "text": message.text, "repeat": repeat, "alert": message.alert})
        return message.uid

    def find(self, message: Message) -> str | None:
        """Raise LookupError: a webhook has no history to search."""
        raise LookupError(f"webhook: no history in which to find {message.uid}")

    def edit(self, ts: str, text: str, alert: Alert) -> None:
        """Send the new text and the new alert of a message."""
        self._call(json={"uid": ts, "text": text, "edit": True, "alert": alert})

    def upload(self, ts: str, picture: str, alert: Alert) -> None:
        """Send a picture that belongs to a message."""
        try:
            content = Path(picture).read_bytes()
        except OSError as error:
            raise PostLaterError(f"{Path(picture).name}: {error}") from error
        self._call(
            data={"uid": ts, "alert": as_json(alert)}, files={"picture": (Path(picture).name, content, "image/png")}
        )

    def _call(self, **content: Any) -> None:
        call(self.url, "webhook", headers=self.headers, gone=bool(content.get("json", {}).get("edit")), **content)


def call(url: str, name: str, method: str = "POST", *, gone: bool = False, **content: Any) -> requests.Response:
    """Make a request of a poster and return the reply.

    Args:
        url: of the destination; no error contains it.
        name: of the destination, for errors.
        method: of HTTP.
        gone: whether 404 and 410 mean that a posted message is gone.
        content: arguments of `requests.request`.

    Raises:
        PostLaterError: it was refused, or there was no connection.
        PostUnknownError: it may have been accepted.
        PostGoneError: the message is gone.
    """
    try:
        reply = requests.request(method, url, timeout=TIMEOUT_S, allow_redirects=False, **content)
    except requests.RequestException as error:
        if not was_sent(error):
            raise PostLaterError(f"{name}: no connection: {type(error).__name__}") from None
        raise PostUnknownError(f"{name}: the reply was lost: {type(error).__name__}") from None
    if reply.status_code >= 500:
        raise PostUnknownError(f"{name}: HTTP {reply.status_code}")
    if reply.status_code in (404, 410) and gone:
        raise PostGoneError(f"{name}: HTTP {reply.status_code}")
    if reply.status_code >= 300:
        raise PostLaterError(f"{name}: HTTP {reply.status_code}", retry_after_s(reply.headers.get("Retry-After")))
    return reply
