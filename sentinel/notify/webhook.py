"""Send messages as JSON to the URL of another program.

Every call is a POST. `{"uid", "text", "repeat"}` is a new message, `{"uid", "text", "edit": true}` replaces the text of
the message with that uid, and a form with `uid` and the file `picture` adds a picture to it. A repeated message has the
same uid, so the receiver can drop it. Errors never contain the URL, which may be a secret.
"""

from pathlib import Path
from typing import Any

import requests

from sentinel.config import secret
from sentinel.errors import PostGoneError, PostLaterError, PostUnknownError
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
        self._call(json={"uid": message.uid, "text": message.text, "repeat": repeat})
        return message.uid

    def find(self, message: Message) -> str | None:
        """Raise LookupError: a webhook has no history to search."""
        raise LookupError(f"webhook: no history in which to find {message.uid}")

    def edit(self, ts: str, text: str) -> None:
        """Send the new text of a message."""
        self._call(json={"uid": ts, "text": text, "edit": True})

    def upload(self, ts: str, picture: str) -> None:
        """Send a picture that belongs to a message."""
        try:
            content = Path(picture).read_bytes()
        except OSError as error:
            raise PostLaterError(f"{Path(picture).name}: {error}") from error
        self._call(data={"uid": ts}, files={"picture": (Path(picture).name, content, "image/png")})

    def _call(self, **content: Any) -> None:
        try:
            reply = requests.post(self.url, headers=self.headers, timeout=TIMEOUT_S, allow_redirects=False, **content)
        except requests.RequestException as error:
            if not was_sent(error):
                raise PostLaterError(f"webhook: no connection: {type(error).__name__}") from None
            raise PostUnknownError(f"webhook: the reply was lost: {type(error).__name__}") from None
        if reply.status_code >= 500:
            raise PostUnknownError(f"webhook: HTTP {reply.status_code}")
        if reply.status_code in (404, 410) and content.get("json", {}).get("edit"):
            raise PostGoneError(f"webhook: HTTP {reply.status_code}")
        if reply.status_code >= 300:
            raise PostLaterError(f"webhook: HTTP {reply.status_code}", retry_after_s(reply.headers.get("Retry-After")))
