"""Post messages, edits and pictures to Slack.

The client's own retries are off, because after a lost reply they would post a message twice. Each message carries its
`uid` as metadata, so that it can be found in the channel if the reply was lost. If the history cannot be read, the
message is sent again and marked as a possible repeat.
"""

from pathlib import Path
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from sentinel.config import secret
from sentinel.errors import PostError, PostGoneError, PostLaterError, PostUnknownError
from sentinel.notify.outbox import Message, retry_after_s, was_sent

EVENT = "sentinel"
TIMEOUT_S = 20
NOT_JSON = "non-JSON"
"""Part of the client's error when a proxy and not Slack answered."""
GONE = ("message_not_found", "cant_update_message", "edit_window_closed")
NO_HISTORY = ("missing_scope", "not_in_channel", "access_denied", "method_not_supported_for_channel_type")


class SlackPoster:
    """A `Poster` for one Slack channel."""

    def __init__(self, channel: str, api_url: str, token: str | None = None) -> None:
        self.channel = channel
        token = token or secret("SLACK_BOT_TOKEN")
        self.client = WebClient(token=token, base_url=api_url, timeout=TIMEOUT_S, retry_handlers=[])

    def post(self, message: Message, *, repeat: bool) -> str:
        """Post a message, marked as a possible repeat if `repeat`; return its timestamp."""
        mark = "\n_(may repeat an earlier message that Slack did not confirm)_" if repeat else ""
        metadata = {"event_type": EVENT, "event_payload": {"uid": message.uid}}
        reply = self._call(
            "chat.postMessage",
            json={"channel": self.channel, "text": message.text + mark, "metadata": metadata, "unfurl_links": False},
        )
        return str(reply["ts"])

    def find(self, message: Message) -> str | None:
        """Look for a message in the channel's history; return its timestamp, or None.

        Raises:
            LookupError: the token may not read the history.
        """
        cursor = ""
        while True:
            query = {"channel": self.channel, "oldest": f"{message.created_at - 60:.6f}", "cursor": cursor}
            query |= {"limit": "200", "include_all_metadata": "true"}
            try:
                reply = self._call("conversations.history", params=query)
            except PostLaterError as error:
                if str(error) in NO_HISTORY:
                    raise LookupError(f"history: {error}") from error
                raise
            for posted in reply["messages"]:
                if posted.get("metadata", {}).get("event_payload", {}).get("uid") == message.uid:
                    return str(posted["ts"])
            cursor = (reply.get("response_metadata") or {}).get("next_cursor", "")
            if not cursor:
                return None

    def edit(self, ts: str, text: str, _alert: object = None) -> None:
        """Replace the text of a posted message."""
        self._call("chat.update", json={"channel": self.channel, "ts": ts, "text": text})

    def upload(self, ts: str, picture: str, _alert: object = None) -> None:
        """Upload a picture to a message's thread."""
        try:
            self.client.files_upload_v2(
                filename=Path(picture).name, content=Path(picture).read_bytes(), channel=self.channel, thread_ts=ts
            )
        except SlackApiError as error:
            raise _later(error) from error
        except (SlackClientError, OSError) as error:
            raise PostLaterError(f"{Path(picture).name}: {error}") from error

    def check(self) -> str:
        """Return the name of the workspace that the token belongs to.

        Raises:
            PostError: Slack refuses the token, or the bot does not see the channel.
        """
        team = str(self._call("auth.test")["team"])
        try:
            self._call("conversations.history", params={"channel": self.channel, "limit": "1"})
        except PostLaterError as error:
            if str(error) != "missing_scope":
                raise
            return f"{team}; channel not checked, because the token has no channels:history"
        return team

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return self.client.api_call(method, **arguments).data
        except SlackApiError as error:
            if error.response.status_code >= 500 or NOT_JSON in str(error.response.get("error")):
                raise PostUnknownError(f"{method}: HTTP {error.response.status_code}") from error
            raise _later(error) from error
        except (SlackClientError, OSError, ValueError) as error:  # reset, timeout, or not JSON
            if not was_sent(error):
                raise PostLaterError(f"{method}: no connection: {error}") from error
            raise PostUnknownError(f"{method}: the reply was lost: {error}") from error


def _later(error: SlackApiError) -> PostError:
    reply = error.response
    cause = reply.get("error") if isinstance(reply.data, dict) else None
    if cause in GONE:
        return PostGoneError(cause)
    return PostLaterError(cause or f"HTTP {reply.status_code}", retry_after_s(reply.headers.get("Retry-After")))
