"""The poster program: deliver messages that were refused, may be lost, or whose worker died."""

import logging
from functools import lru_cache

from sentinel.config import Config, Kafka, secret
from sentinel.errors import StoreError
from sentinel.notify.messages import one_line
from sentinel.notify.outbox import Poster, deliver_all
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import GATED, Store

LOG = logging.getLogger(__name__)
PERIOD_S = 2.0


def poster_named(config: Config, name: str) -> Poster:
    """Return the poster `slack`, `skyportal`, `kafka` or `webhook`."""
    if name == "slack":
        from sentinel.notify.slack import SlackPoster

        return SlackPoster(str(config.slack_channel), config.slack.api_url)
    if name == "skyportal":
        from sentinel.notify.skyportal import SkyPortalPoster

        return SkyPortalPoster(str(config.skyportal.url), config.skyportal.group_ids)
    if name == "kafka":
        return _kafka_poster(config.kafka.model_dump_json(), secret("SENTINEL_KAFKA_PASSWORD"))
    from sentinel.notify.webhook import WebhookPoster

    return WebhookPoster(str(config.webhook_url))


@lru_cache(maxsize=1)
def _kafka_poster(settings: str, password: str | None) -> Poster:
    """Return the poster of a topic; one process keeps one producer, which has a thread and connections."""
    from sentinel.notify.kafka import KafkaPoster

    kafka = Kafka.model_validate_json(settings)
    return KafkaPoster(kafka.topic, kafka.client(password), None)


def deliver_due(config: Config, store: Store, *, held: bool = True) -> int:
    """Deliver the messages and edits that are due in every configured poster; return how many were delivered.

    Workers leave out the poster whose messages are `held`: a person must have acted first, and a search that follows
    need not wait until its server replies. An error of one poster, such as a token that cannot be read, is raised after
    the others have delivered theirs.
    """
    sent, link, errors = 0, config.web.url or "", list[Exception]()
    for name in config.posters:
        if name == GATED and not held:
            continue
        limits = getattr(config, name)
        try:
            poster, gap_s = poster_named(config, name), 1 / limits.per_second
            sent += deliver_all(store, poster, name, gap_s, per_hour=limits.per_hour, link=link)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
    if errors:
        raise errors[0]
    return sent


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Deliver due messages every two seconds; only send heartbeats if no poster is configured."""
    failed = ""
    while True:
        try:
            loop.heartbeat(posts_to=" ".join(config.posters) or "nobody", error=failed)
            failed = ""
            deliver_due(config, store)
        except StoreError as error:
            LOG.error("%s; messages wait, next attempt in %g s", error, PERIOD_S)
        except Exception as error:
            failed = one_line(f"{type(error).__name__}: {error}")
            LOG.exception("messages wait; next attempt in %g s", PERIOD_S)
        if loop.wait(PERIOD_S):
            return
