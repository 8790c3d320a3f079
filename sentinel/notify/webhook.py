"""A webhook: messages as JSON to whatever program is told of them, with plain HTTP.

Every call is a POST: `{"uid", "text", "repeat"}` is a new message, `{"uid", "text", "edit": true}` takes the place of
the one with that uid, and a form with `uid` and the file `picture` belongs below it. A repeat has the uid of the first,
so a receiver can tell. Errors never hold the address, which may be a secret itself.
"""

from pathlib import Path
from typing import Any

import requests

from sentinel.config import secret
from sentinel.errors import PostGoneError, PostLaterError, PostUnknownError
from sentinel.notify.outbox import Message, retry_after_s

TIMEOUT_S = 20


class WebhookPoster:
    """An address, as the outbox sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        token = secret("SENTINEL_WEBHOOK_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def post(self, message: Message, *, repeat: bool) -> str:
        """Send a message; its name there is its uid."""
        self._call(json={"uid": message.uid, "text": message.text, "repeat": repeat})
        return message.uid

    def find(self, message: Message) -> str | None:
        """Say that nobody can tell: a webhook has no history."""
        raise LookupError(f"webhook: cannot be asked for {message.uid}")

    def edit(self, ts: str, text: str) -> None:
        """Say what a message is to be replaced by."""
        self._call(json={"uid": ts, "text": text, "edit": True})

    def upload(self, ts: str, picture: str) -> None:
        """Send one picture that belongs to a message."""
        try:
            content = Path(picture).read_bytes()
        except OSError as error:
            raise PostLaterError(f"{Path(picture).name}: {error}") from error
        self._call(data={"uid": ts}, files={"picture": (Path(picture).name, content, "image/png")})

    def _call(self, **how: Any) -> None:
        try:
            reply = requests.post(self.url, headers=self.headers, timeout=TIMEOUT_S, allow_redirects=False, **how)
        except requests.RequestException as error:
            raise PostUnknownError(f"webhook: the reply was lost: {type(error).__name__}") from None
        if reply.status_code >= 500:
            raise PostUnknownError(f"webhook: HTTP {reply.status_code}")
        if reply.status_code in (404, 410) and how.get("json", {}).get("edit"):
            raise PostGoneError(f"webhook: HTTP {reply.status_code}")
        if reply.status_code >= 300:
            raise PostLaterError(f"webhook: HTTP {reply.status_code}", retry_after_s(reply.headers.get("Retry-After")))
