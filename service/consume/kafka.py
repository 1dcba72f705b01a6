"""A member of a Kafka consumer group, and the producer of its dead-letter topic; no other module imports aiokafka."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.conn import collect_hosts, create_conn

from isrf.contract.errors import ConfigError
from service.consume.messages import KafkaMessage

POLL_MS = 500
MOST_MESSAGES = 500
LOGIN_MS = 5000
BrokerError = errors.KafkaError
"""What Kafka's client raises: the member must join anew."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
_REFUSALS = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.TopicAuthorizationFailedError,
    errors.InvalidGroupIdError,
    errors.InvalidTopicError,
)
"""What stays so until somebody changes a setting, or the rights in Kafka."""
_FIX = "See `python -m service consume --help`."
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
        """Returns the arguments that consumer and producer share; raises `ConfigError` for options that cannot work."""
        self._check()
        found: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security}
        if self.security.endswith("SSL"):
            try:
                found["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                what = f"--ca-file {self.ca_file!r} cannot be read as certificates ({type(error).__name__})."
                fix = "Let it name a file in PEM that this process can read."
                raise ConfigError("config.kafka_ca_file", what, fix=fix) from None
        if self.security.startswith("SASL"):
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return found

    def _check(self) -> None:
        for topic in (self.topic, self.dead_letter):
            if topic is not None and _TOPIC.fullmatch(topic) is None:
                raise ConfigError("config.kafka_topic", f"{topic[:100]!r} is no name of a topic.", fix=_FIX)
        if self.topic == self.dead_letter:
            what = f"the topic {self.topic!r} is its own --dead-letter: what is refused would be read again for ever."
            raise ConfigError("config.kafka_topic", what, fix="Name another topic in --dead-letter.")
        try:
            hosts = collect_hosts(self.servers)
        except ValueError:
            hosts = []
        if not hosts or not all(host and 0 < port < 65536 for host, port, _ in hosts):
            raise ConfigError(
                "config.kafka_servers",
                f"{self.servers[:100]!r} are no addresses of brokers.",
                fix="Give HOST:PORT,HOST:PORT in --kafka.",
            )
        if self.security.startswith("SASL") and not (self.username and self.password):
            raise ConfigError(
                "config.kafka_login",
                f"--security {self.security} needs a user name and a password of Kafka.",
                fix="Set ISRF_KAFKA_USERNAME and ISRF_KAFKA_PASSWORD, or files in …_FILE.",
            )


class KafkaBroker:
    """The `Broker` over aiokafka; use it as an asynchronous context."""

    def __init__(self, options: KafkaOptions) -> None:
        """Raises `ConfigError` for options that cannot work."""
        self._options, connection = options, options.connection()
        self._login = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
        self._consumer = AIOKafkaConsumer(
            options.topic,
            group_id=options.group,
            enable_auto_commit=False,
            auto_offset_reset=options.start_at,
            **connection,
        )
        self._producer = None if options.dead_letter is None else AIOKafkaProducer(acks="all", **connection)

    async def __aenter__(self) -> "KafkaBroker":
        """Joins the group; raises `BrokerError`, and `ConfigError` for what Kafka refuses for good."""
        try:
            with _refusals():
                await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self) -> None:
        try:
            if self._producer is not None:
                await self._producer.start()
                with self._dead_letter():
                    # Known from the start, and not at the first message that is refused.
                    await self._producer.partitions_for(self._options.dead_letter)
            await self._consumer.start()
        except errors.KafkaConnectionError:
            await self._log_in()
            raise

    async def _log_in(self) -> None:
        """Raises the error of a wrong password: aiokafka says of it only that it reaches no broker."""
        if not self._options.security.startswith("SASL"):
            return
        for host, port, _ in collect_hosts(self._options.servers):
            try:
                (await create_conn(host, port, request_timeout_ms=LOGIN_MS, **self._login)).close()
            except _REFUSALS:
                raise
            except (OSError, BrokerError, TimeoutError):
                continue

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        if self._producer is not None:
            await self._producer.stop()

    async def poll(self) -> list[KafkaMessage]:
        with _refusals():
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
        """Copies key and value, or neither where the topic takes no message so large: the headers name the message."""
        if self._producer is None:
            return
        topic = self._options.dead_letter
        headers = [("isrf-reason", reason.encode()), ("isrf-message", message.place.encode())]
        with self._dead_letter():
            try:
                await self._producer.send_and_wait(topic, value=message.value, key=message.key, headers=headers)
            except _TOO_LARGE:
                await self._producer.send_and_wait(topic, value=b"", headers=headers)

    @contextmanager
    def _dead_letter(self) -> Iterator[None]:
        """Raises `ConfigError` where the dead-letter topic is missing or takes nothing from this user."""
        try:
            yield
        except (*_REFUSALS, errors.UnknownTopicOrPartitionError) as error:
            what = f"the topic {self._options.dead_letter!r} takes nothing ({type(error).__name__})."
            fix = "Create the topic of --dead-letter, and let the consumer's user write to it."
            raise ConfigError("config.kafka_dead_letter", what, fix=fix) from None

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        mine = self._consumer.assignment()
        kept = {TopicPartition(*name): offset for name, offset in offsets.items() if TopicPartition(*name) in mine}
        try:
            if kept:
                await self._consumer.commit(kept)
        except (errors.CommitFailedError, errors.IllegalStateError) as error:
            # Another member has the partition now, reads these messages again, and finds their events counted.
            _log.info("not_committed", reason=type(error).__name__)


@contextmanager
def _refusals() -> Iterator[None]:
    """Raises `ConfigError` for what Kafka refuses until a setting or a right changes."""
    try:
        yield
    except _REFUSALS as error:
        raise ConfigError(
            "config.kafka_refused",
            f"Kafka refuses this consumer ({type(error).__name__}).",
            fix="See ISRF_KAFKA_USERNAME, ISRF_KAFKA_PASSWORD and --sasl-mechanism, and the user's rights to read the "
            "topic and to join the group.",
        ) from None
