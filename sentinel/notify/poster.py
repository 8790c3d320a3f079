"""The program that delivers what workers left: messages that were refused, doubted, or whose worker died."""

import logging

from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.notify.outbox import Poster, deliver_all
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Store

LOG = logging.getLogger(__name__)
PERIOD_S = 2.0


def poster_of(config: Config, name: str) -> Poster:
    """Return who carries messages under that name."""
    if name == "slack":
        from sentinel.notify.slack import SlackPoster

        return SlackPoster(str(config.slack_channel), config.slack.api_url)
    from sentinel.notify.webhook import WebhookPoster

    return WebhookPoster(str(config.webhook_url))


def deliver_due(config: Config, store: Store) -> int:
    """Deliver what is due everywhere; return how many messages and edits went out."""
    sent = 0
    for name in config.posters:
        pace = config.slack if name == "slack" else config.webhook
        sent += deliver_all(
            store, poster_of(config, name), name, 1 / pace.per_second, per_hour=pace.per_hour, link=config.web.url or ""
        )
    return sent


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Deliver what is due every two seconds; idle where there is nowhere to post."""
    while True:
        try:
            loop.heartbeat(posts_to=" ".join(config.posters) or "nobody")
            deliver_due(config, store)
        except StoreError as error:
            LOG.error("%s; messages wait, the next try comes in %g s", error, PERIOD_S)
        except Exception:
            LOG.exception("messages wait; the next try comes in %g s", PERIOD_S)
        if loop.wait(PERIOD_S):
            return
