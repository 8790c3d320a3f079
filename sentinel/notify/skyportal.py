"""Send messages to SkyPortal (van der Walt et al. 2019, doi:10.21105/joss.01247), as a source with comments.

A message becomes a source at the place of its target, with the id `sentinel-UID` (POST /api/sources, which may be
repeated), and a comment with the text (POST /api/sources/ID/comments). An edit replaces the comment (PUT), and a
picture is a comment with an attachment. A message whose reply was lost is looked for among the comments, which carry
the uid. The token is that of a SkyPortal user with the permissions `Upload data` and `Comment`.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentinel.config import secret
from sentinel.errors import PostLaterError, PostRefusedError, PostUnknownError
from sentinel.notify.alerts import Alert
from sentinel.notify.outbox import Message
from sentinel.notify.webhook import call

NAME = "skyportal"


class SkyPortalPoster:
    """A `Poster` for one SkyPortal.

    The identifier of a posted message is that of its source and of its comment, with a slash between them.
    """

    def __init__(self, url: str, group_ids: tuple[int, ...] = ()) -> None:
        """Read the token from the environment.

        Args:
            url: of the server, without `/api`.
            group_ids: groups that see the source; none: all of the user.
        """
        self.url, self.group_ids = f"{url.rstrip('/')}/api/sources", list(group_ids)
        self.headers = {"Authorization": f"token {secret('SENTINEL_SKYPORTAL_TOKEN') or ''}"}

    def post(self, message: Message, *, repeat: bool) -> str:  # noqa: ARG002
        """Make the source and its comment; return their identifiers.

        Raises:
            PostRefusedError: the place of the target is not known.
        """
        best: Mapping[str, Any] = next(iter(message.alert["candidates"]), {})
        place = {"ra": best.get("ra_deg"), "dec": best.get("dec_deg")}
        if None in place.values():
            raise PostRefusedError(f"{NAME}: no coordinates of the target, which a source needs")
        source = _source(message)
        origin = {"origin": "Sentinel", "altdata": dict(message.alert)}
        self._call("POST", "", json={"id": source, **place, **origin, **self._groups()})
        comment = {"text": _text(message.text, message.uid), **self._groups()}
        reply = self._call("POST", f"/{source}/comments", json=comment)
        return f"{source}/{_data(reply)['comment_id']}"

    def find(self, message: Message) -> str | None:
        """Look for the comment with the uid of a message; return its identifier, or None."""
        source = _source(message)
        try:
            reply = self._call("GET", f"/{source}/comments")
        except PostLaterError as error:
            if str(error) in (f"{NAME}: HTTP 400", f"{NAME}: HTTP 404"):  # there is no such source yet
                return None
            raise
        for comment in _data(reply):
            if message.uid in str(comment.get("text")):
                return f"{source}/{comment['id']}"
        return None

    def edit(self, ts: str, text: str, alert: Alert) -> None:
        """Replace the text of the comment of a message."""
        source, _, comment = ts.partition("/")
        changed = {"text": _text(text, str(alert["uid"])), **self._groups()}
        self._call("PUT", f"/{source}/comments/{comment}", gone=True, json=changed)

    def upload(self, ts: str, picture: str, _alert: Alert) -> None:
        """Add a picture as a comment with an attachment."""
        source, name = ts.partition("/")[0], Path(picture).name
        try:
            body = base64.b64encode(Path(picture).read_bytes()).decode()
        except OSError as error:
            raise PostLaterError(f"{name}: {error}") from error
        comment = {"text": f"waterfall {name}", "attachment": {"body": body, "name": name}, **self._groups()}
        self._call("POST", f"/{source}/comments", json=comment)

    def _groups(self) -> dict[str, Any]:
        return {"group_ids": self.group_ids} if self.group_ids else {}

    def _call(self, method: str, path: str, **content: Any) -> Any:
        return call(f"{self.url}{path}", NAME, method, headers=self.headers, **content)


def _source(message: Message) -> str:
    return f"sentinel-{message.uid}"


def _text(text: str, uid: str) -> str:
    """Return the text of a comment: `@name` would notify a user of that name, and a target may have any name."""
    return f"{text.replace('@', '(at)')}\n{uid}"


def _data(reply: Any) -> Any:
    try:
        content = reply.json()
        if content["status"] == "success":
            return content["data"]
    except (ValueError, KeyError, TypeError):
        pass
    raise PostUnknownError(f"{NAME}: expected a reply in JSON with status success, found another")
