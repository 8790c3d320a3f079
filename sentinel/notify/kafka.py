"""Publish alerts on a Kafka topic, of those candidates only that a person has labeled `candidate`.

A topic is read by strangers, and a record cannot be taken back. So a message waits in state `held` until a candidate of
it has that label, an alert lists the labeled candidates and no others, and what was published and lost its label is
followed by a retraction. A record has the uid as key and the alert as value. Needs the package confluent-kafka
(`SENTINEL_EXTRAS=kafka`).
"""

from collections.abc import Callable
from typing import Any

from sentinel.errors import ConfigError, PostLaterError, PostRefusedError, PostUnknownError
from sentinel.notify.alerts import Alert, as_json, released
from sentinel.notify.outbox import Message

TIMEOUT_S = 20.0


class KafkaPoster:
    """A `Poster` for one topic."""

    def __init__(self, topic: str, settings: dict[str, Any], producer: Callable[[dict[str, Any]], Any] | None) -> None:
        """Make a producer that sends nothing twice by itself, and waits for all replicas.

        Args:
            topic: name of the topic.
            settings: of librdkafka: servers, and how to log in.
            producer: makes the producer; None: that of confluent-kafka.

        Raises:
            ConfigError: confluent-kafka is not installed.
        """
        self.topic = topic
        guarded = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": round(TIMEOUT_S * 1000)}
        self.producer = (producer or _producer)({**settings, **guarded})

    def post(self, message: Message, *, repeat: bool) -> str:  # noqa: ARG002
        """Publish the labeled candidates of a message; return its uid.

        Raises:
            PostRefusedError: nobody has labeled a candidate of it `candidate`.
        """
        alert = released(message.alert)
        if not alert["candidates"]:
            raise PostRefusedError("kafka: held until a person labels a candidate of it `candidate`")
        self._send(alert)
        return message.uid

    def find(self, message: Message) -> str | None:
        """Raise LookupError: a topic is not searched. A repeat has the same `alert_id`."""
        raise LookupError(f"kafka: no history in which to find {message.uid}")

    def edit(self, _ts: str, _text: str, alert: Alert) -> None:
        """Publish an update, or a retraction if no candidate is labeled `candidate` any more."""
        self._send(released(alert))

    def upload(self, _ts: str, _picture: str, _alert: Alert) -> None:
        """Do nothing: pictures are not published."""

    def _send(self, alert: Alert) -> None:
        outcome: list[Any] = []
        try:
            self.producer.produce(
                self.topic,
                key=str(alert["uid"]),
                value=as_json(alert),
                on_delivery=lambda error, _: outcome.append(error),
            )
            left = self.producer.flush(TIMEOUT_S)
        except BufferError as error:
            raise PostLaterError(f"kafka: {error}") from error
        except Exception as error:
            if type(error).__name__ != "KafkaException":
                raise
            raise PostLaterError(f"kafka: {error}") from error
        if left or not outcome:
            raise PostUnknownError(f"kafka: no receipt within {TIMEOUT_S:g} s")
        if outcome[0] is not None:
            raise PostUnknownError(f"kafka: {outcome[0]}")


def _producer(settings: dict[str, Any]) -> Any:
    try:
        from confluent_kafka import Producer
    except ImportError as error:
        raise ConfigError("kafka.servers: expected the package confluent-kafka: SENTINEL_EXTRAS=kafka") from error
    return Producer(settings)
