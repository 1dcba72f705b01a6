"""A member of a Kafka consumer group, and the producer of its dead-letter topic; no other module imports aiokafka."""

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from service.consume.messages import KafkaMessage

POLL_MS = 500
MOST_MESSAGES = 500
BrokerError = KafkaError
"""What Kafka's client raises: the member must join anew."""

_log = structlog.get_logger("service")


class KafkaOptions(NamedTuple):
    """How to reach and read a topic."""

    servers: str
    topic: str
    group: str
    start_at: str = "earliest"  # or latest: where a group without offsets begins
    dead_letter: str | None = None  # topic
    security: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    ca_file: str | None = None
    username: str | None = None
    password: str | None = None

    def connection(self) -> dict[str, Any]:
        """Returns the arguments that consumer and producer share."""
        found: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security}
        if self.security.endswith("SSL"):
            found["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        if self.security.startswith("SASL"):
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return found


class KafkaBroker:
    """The `Broker` over aiokafka; use it as an asynchronous context."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._consumer = AIOKafkaConsumer(
            options.topic,
            group_id=options.group,
            enable_auto_commit=False,
            auto_offset_reset=options.start_at,
            **options.connection(),
        )
        self._producer = None if options.dead_letter is None else AIOKafkaProducer(acks="all", **options.connection())

    async def __aenter__(self) -> "KafkaBroker":
        try:
            await self._consumer.start()
            if self._producer is not None:
                await self._producer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        if self._producer is not None:
            await self._producer.stop()

    async def poll(self) -> list[KafkaMessage]:
        found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MOST_MESSAGES)
        return [
            KafkaMessage(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value)
            for records in found.values()
            for one in records
        ]

    async def stay(self) -> None:
        """Polls without taking messages, as a member that does not poll is taken for dead."""
        mine = self._consumer.assignment()
        self._consumer.pause(*mine)
        await self._consumer.getmany(timeout_ms=0)
        self._consumer.resume(*(mine & self._consumer.assignment()))

    async def bury(self, message: KafkaMessage, reason: str) -> None:
        if self._producer is None:
            return
        headers = [("isrf-reason", reason.encode()), ("isrf-message", message.place.encode())]
        await self._producer.send_and_wait(
            self._options.dead_letter, value=message.value, key=message.key, headers=headers
        )

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        mine = self._consumer.assignment()
        kept = {TopicPartition(*name): offset for name, offset in offsets.items() if TopicPartition(*name) in mine}
        try:
            if kept:
                await self._consumer.commit(kept)
        except (CommitFailedError, IllegalStateError) as error:
            # Another member has the partition now, reads these messages again, and finds their events counted.
            _log.info("not_committed", reason=type(error).__name__)
