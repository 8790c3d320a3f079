"""The program that delivers what workers left: messages that were refused, doubted, or whose worker died."""

import logging

from sentinel.config import Config
from sentinel.outbox import deliver_all
from sentinel.program import Bell
from sentinel.store import Store

LOG = logging.getLogger(__name__)
PERIOD_S = 2.0


def run(config: Config, store: Store, bell: Bell) -> None:
    """Deliver what is due every two seconds; idle where Slack is off."""
    poster = None
    if config.slack_channel:
        from sentinel.slack import SlackPoster

        poster = SlackPoster(config.slack_channel, config.slack.api_url)
    while True:
        try:
            bell.beat(slack="on" if poster else "off")
            if poster:
                deliver_all(store, poster, "slack", 1 / config.slack.per_second)
        except Exception:
            LOG.exception("messages wait; the next try comes in %g s", PERIOD_S)
        if bell.wait(PERIOD_S):
            return
