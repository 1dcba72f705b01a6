"""Consumes messages: posts their events in batches, and commits only what the service has accepted.

Kafka delivers a message at least once, and the service counts an `event_id` once: together each event counts once.
A message that the service will never take is *poison*: it is logged by its place, counted, copied to the dead-letter
topic where there is one, and passed over. Of a message with several events only those that were refused are copied,
with the ids and times that they were posted with: whoever consumes the copy counts no other event twice. While the
service is away, nothing is committed and nothing is skipped.
It knows no HTTP and no Kafka: both are passed in.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from service.consume.messages import KafkaMessage, PoisonError, events_of
from service.consume.posting import AwayError, BodyError

BATCH_EVENTS, BATCH_BYTES = 500, 1_000_000
COMMIT_EVENTS = 5000
"""After so many events what was posted is committed, though more messages were polled."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STAY_EVERY_S = 5.0
"""How often a consumer that posts or waits tells Kafka that it is still there."""
ERASED = "before_erasure"
"""The reason of an event that must be forgotten: it goes into no dead-letter topic."""

Event = Mapping[str, Any]
Post = Callable[[Sequence[Event]], Sequence[Mapping[str, str]]]
_log = structlog.get_logger("service")


class Broker(Protocol):
    """A member of a consumer group."""

    async def poll(self) -> list[KafkaMessage]:
        """Returns the next messages, those of a partition in their order; waits a moment for some."""

    async def stay(self) -> None:
        """Keeps the membership without taking messages."""

    async def bury(self, message: KafkaMessage, reason: str) -> None:
        """Copies a message to the dead-letter topic, if there is one; raises `ConfigError` where it takes none."""

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commits the next offset of each (topic, partition) that still is this member's."""


class ConsumerMetrics:
    """What the consumer counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "isrf_consumed_messages",
            "Messages from Kafka, by outcome: taken, empty, or the reason why they were passed over.",
            ("outcome",),
            registry=self.registry,
        )
        self.service_up = Gauge("isrf_consumer_service_up", "Whether the service takes events.", registry=self.registry)


class _Read(NamedTuple):
    """A message and what it holds."""

    message: KafkaMessage
    events: list[dict[str, Any]]
    poison: str = ""  # why it holds none


class _Outcome(NamedTuple):
    status: str
    reason: str = ""


class StoppedError(Exception):
    """The consumer was asked to end while the service was away."""


class Consumer:
    """Posts what one member of a group reads."""

    def __init__(self, broker: Broker, post: Post, metrics: ConsumerMetrics, stop: asyncio.Event) -> None:
        """post: blocks and raises as `service.consume.posting.Poster.post`. stop: ends `run` after its batch."""
        self._broker, self._post, self._metrics, self._stop = broker, post, metrics, stop
        self._seen_at = time.monotonic()  # by Kafka

    async def run(self) -> None:
        """Consumes until `stop` is set; raises `ConfigError` and what the broker raises, with nothing lost."""
        while not self._stop.is_set():
            messages = await self._broker.poll()
            self._seen_at = time.monotonic()
            try:
                await self._consume(messages)
            except StoppedError:
                return

    async def _consume(self, messages: Sequence[KafkaMessage]) -> None:
        """Posts and commits part by part; what is left when `stop` is set is read again by another member."""
        for part in _parts(messages):
            outcomes = iter(await self._settle([event for read in part for event in read.events]))
            for read in part:
                await self._note(read, [next(outcomes) for _ in read.events])
            await self._broker.commit(
                {(read.message.topic, read.message.partition): read.message.offset + 1 for read in part}
            )
            if self._stop.is_set():
                return

    async def _note(self, read: _Read, outcomes: Sequence[_Outcome]) -> None:
        """Counts a message, and passes over what is refused of it."""
        message = read.message
        refused = [
            (event, one.reason) for event, one in zip(read.events, outcomes, strict=True) if one.status == "refused"
        ]
        kept = [(event, reason) for event, reason in refused if reason != ERASED]
        if read.poison:
            await self._pass_over(message, read.poison)
        elif kept:
            events = [event for event, _ in kept]
            value = orjson.dumps(events[0] if len(read.events) == 1 else {"events": events})
            await self._pass_over(message._replace(value=value), kept[0][1])
        elif refused:
            await self._pass_over(message, ERASED)
        else:
            self._metrics.messages.labels("empty" if message.value is None else "taken").inc()

    async def _pass_over(self, message: KafkaMessage, reason: str) -> None:
        # The place alone: the message may hold anything, of anybody.
        _log.warning("message_passed_over", message=message.place, reason=reason)
        self._metrics.messages.labels(reason).inc()
        if reason != ERASED:
            await self._stay()
            await self._broker.bury(message, reason)

    async def _stay(self) -> None:
        """Tells Kafka now and then that this member is alive."""
        if time.monotonic() - self._seen_at >= STAY_EVERY_S:
            await self._broker.stay()
            self._seen_at = time.monotonic()

    async def _settle(self, events: Sequence[Event]) -> list[_Outcome]:
        """Posts events until each is taken or refused for good; raises `StoppedError`."""
        outcomes: list[_Outcome] = []
        for batch in _batches(events):
            outcomes += await self._settle_batch(batch)
        return outcomes

    async def _settle_batch(self, batch: Sequence[Event]) -> list[_Outcome]:
        try:
            return await self._posted(batch)
        except BodyError as error:
            if len(batch) == 1:
                return [_Outcome("refused", str(error))]
            # One event spoils the body of all.
            middle = len(batch) // 2
            return await self._settle_batch(batch[:middle]) + await self._settle_batch(batch[middle:])

    async def _posted(self, batch: Sequence[Event]) -> list[_Outcome]:
        """Posts a batch, and again what the service cannot take now."""
        outcomes: list[_Outcome | None] = [None] * len(batch)
        attempt = 0
        while True:
            waiting = [place for place, outcome in enumerate(outcomes) if outcome is None]
            if not waiting:
                return [outcome for outcome in outcomes if outcome is not None]
            await self._stay()
            try:
                results = await asyncio.to_thread(self._post, [batch[place] for place in waiting])
            except AwayError as error:
                await self._wait(attempt, str(error), error.retry_after_s)
                attempt += 1
                continue
            for place, result in zip(waiting, results, strict=True):
                if result.get("reason") != "store_unavailable":
                    outcomes[place] = _Outcome(result["status"], result.get("reason", ""))
            if None in outcomes:
                await self._wait(attempt, "store_unavailable", 0.0)
                attempt += 1
            elif attempt:
                _log.info("service_back", attempts=attempt)
            self._metrics.service_up.set(None not in outcomes)

    async def _wait(self, attempt: int, why: str, retry_after_s: float) -> None:
        """Waits before another attempt, longer each time; raises `StoppedError`."""
        self._metrics.service_up.set(0)
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
        wait_s = max(min(retry_after_s, LONGEST_WAIT_S), longest_s * random.uniform(0.5, 1.0))  # noqa: S311
        _log.warning("service_away", reason=why, attempt=attempt + 1, wait_s=round(wait_s, 1))
        while wait_s > 0 and not self._stop.is_set():
            await self._broker.stay()
            self._seen_at = time.monotonic()
            try:
                async with asyncio.timeout(min(wait_s, STAY_EVERY_S)):
                    await self._stop.wait()
            except TimeoutError:
                wait_s -= STAY_EVERY_S
        if self._stop.is_set():
            raise StoppedError


def _parts(messages: Iterable[KafkaMessage]) -> Iterator[list[_Read]]:
    """Yields messages together until they hold `COMMIT_EVENTS` events; reads no message before its part."""
    part: list[_Read] = []
    count = 0
    for message in messages:
        try:
            part.append(_Read(message, events_of(message)))
        except PoisonError as error:
            part.append(_Read(message, [], str(error)))
        count += len(part[-1].events)
        if count >= COMMIT_EVENTS:
            yield part
            part, count = [], 0
    if part:
        yield part


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yields events together, within the limits of one request."""
    batch: list[Event] = []
    size = 0
    for event in events:
        more = len(orjson.dumps(event))
        if batch and (len(batch) == BATCH_EVENTS or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += more
    if batch:
        yield batch
