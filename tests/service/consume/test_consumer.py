"""What is committed and what is passed over, whatever the service and the group do; both are functions here."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from isrf.contract.errors import ConfigError
from service.consume import consumer as consumer_module
from service.consume.consumer import BATCH_BYTES, BATCH_EVENTS, Consumer, ConsumerMetrics
from service.consume.messages import KafkaMessage
from service.consume.posting import AwayError, BodyError

ACCEPTED = {"status": "accepted"}


def refused(reason: str) -> dict[str, str]:
    return {"status": "refused", "reason": reason}


class Group:
    """One member's messages, polled once; notes what is committed and buried, and ends the consumer afterwards."""

    def __init__(self, *values: Any) -> None:
        self.messages = [
            KafkaMessage(
                "t", place % 2, place // 2, 0, None, value if isinstance(value, bytes) else orjson.dumps(value)
            )
            for place, value in enumerate(values)
        ]
        self.stop = asyncio.Event()
        self.committed: dict[tuple[str, int], int] = {}
        self.commits: list[dict[tuple[str, int], int]] = []
        self.buried: list[tuple[str, str]] = []
        self.graves: list[Any] = []  # the buried values
        self.stays = 0

    async def poll(self) -> list[KafkaMessage]:
        if not self.messages:
            self.stop.set()
        polled, self.messages = self.messages, []
        return polled

    async def stay(self) -> None:
        self.stays += 1

    async def bury(self, message: KafkaMessage, reason: str) -> None:
        self.buried.append((message.place, reason))
        self.graves.append(message.value)

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self.committed |= offsets
        self.commits.append(dict(offsets))


def event(item_id: str, **more: Any) -> dict[str, Any]:
    return {"user_id": "ann", "item_id": item_id, "event": "view", **more}


async def consume(group: Group, post: Callable[[Sequence[Mapping[str, Any]]], Any]) -> ConsumerMetrics:
    metrics = ConsumerMetrics()
    await Consumer(group, post, metrics, group.stop).run()
    return metrics


def counted(metrics: ConsumerMetrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("isrf_consumed_messages_total", {"outcome": outcome}) or 0.0


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(consumer_module, "LONGEST_WAIT_S", 0.01)


async def test_poison_is_passed_over_and_the_rest_is_committed() -> None:
    group = Group(event("a"), b"{", event("unknown"), event("b"), event("of-an-erased-user"))

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        reasons = {"unknown": "unknown_item", "of-an-erased-user": "before_erasure"}
        return [refused(reasons[one["item_id"]]) if one["item_id"] in reasons else ACCEPTED for one in events]

    metrics = await consume(group, post)
    assert group.committed == {("t", 0): 3, ("t", 1): 2}
    assert group.buried == [("t-1-0", "malformed_json"), ("t-0-1", "unknown_item")], "nothing of erased users"
    assert counted(metrics, "taken") == 2
    assert counted(metrics, "before_erasure") == 1


async def test_of_several_events_only_the_refused_are_buried_as_they_were_posted() -> None:
    several = [event("a"), event("unknown"), event("of-an-erased-user"), event("unknown", event_id="own")]
    group = Group({"events": several}, {"events": [event("of-an-erased-user"), event("a")]}, event("unknown"))
    posted: list[Mapping[str, Any]] = []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        posted.extend(events)
        reasons = {"unknown": "unknown_item", "of-an-erased-user": "before_erasure"}
        return [refused(reasons[one["item_id"]]) if one["item_id"] in reasons else ACCEPTED for one in events]

    metrics = await consume(group, post)
    assert group.buried == [("t-0-0", "unknown_item"), ("t-0-1", "unknown_item")]
    assert [orjson.loads(value) for value in group.graves] == [{"events": [posted[1], posted[3]]}, posted[6]]
    assert [posted[place]["event_id"] for place in (1, 3, 6)] == ["t-0-0-1", "own", "t-0-1"]
    assert counted(metrics, "before_erasure") == 1
    assert counted(metrics, "unknown_item") == 2


async def test_a_message_that_nests_too_deep_stops_nothing() -> None:
    group = Group(b'{"deep": ' + b"[" * 280 + b"]" * 280 + b"}", event("a"))
    await consume(group, lambda events: [ACCEPTED for _ in events])
    assert group.buried == [("t-0-0", "too_deep")]
    assert group.committed == {("t", 0): 1, ("t", 1): 1}


async def test_many_events_are_committed_part_by_part() -> None:
    many = {"events": [event("a")] * 900}
    group = Group(*[many] * 13)
    posted: list[Mapping[str, Any]] = []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        posted.extend(events)
        return [ACCEPTED for _ in events]

    await consume(group, post)
    assert group.commits == [{("t", 0): 3, ("t", 1): 3}, {("t", 0): 6, ("t", 1): 6}, {("t", 0): 7}]
    assert len({one["event_id"] for one in posted}) == 13 * 900


async def test_asked_to_end_it_ends_after_the_part_at_hand() -> None:
    group = Group(*[{"events": [event("a")] * 1000}] * 8)

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        group.stop.set()
        return [ACCEPTED for _ in events]

    await consume(group, post)
    assert group.commits == [{("t", 0): 3, ("t", 1): 2}], "of eight messages five, those of the first part"


async def test_a_consumer_that_posts_for_long_stays_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "STAY_EVERY_S", 0.0)
    group, stays = Group(*[{"events": [event("a")] * 1000}] * 2), []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        stays.append(group.stays)
        return [ACCEPTED for _ in events]

    await consume(group, post)
    assert stays == [1, 2, 3, 4], "a sign of life before each post"


async def test_while_the_service_is_away_nothing_is_committed_or_skipped() -> None:
    group, answers = Group(event("a"), event("b")), []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        assert group.committed == {}
        answers.append([one["item_id"] for one in events])
        if len(answers) < 4:
            raise AwayError("ConnectionRefusedError", retry_after_s=0.005)
        return [ACCEPTED for _ in events]

    await consume(group, post)
    assert answers == [["a", "b"]] * 4
    assert group.stays >= 3, "the group must not take the member for dead"
    assert group.committed == {("t", 0): 1, ("t", 1): 1}


async def test_only_what_could_not_be_stored_is_sent_again() -> None:
    group, answers = Group(event("a"), event("b")), []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        answers.append([one["item_id"] for one in events])
        first = len(answers) == 1
        return [refused("store_unavailable") if first and one["item_id"] == "b" else ACCEPTED for one in events]

    await consume(group, post)
    assert answers == [["a", "b"], ["b"]]
    assert group.buried == []


async def test_one_event_that_spoils_a_body_is_found() -> None:
    values = [event(str(place)) for place in range(9)]
    group = Group(*values)

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        if any(one["item_id"] == "6" for one in events):
            raise BodyError("request.too_complex")
        return [ACCEPTED for _ in events]

    metrics = await consume(group, post)
    assert group.buried == [("t-0-3", "request.too_complex")]
    assert counted(metrics, "taken") == 8
    assert group.committed == {("t", 0): 5, ("t", 1): 4}


async def test_a_request_has_limits() -> None:
    large = "x" * 100_000
    group, sizes = (
        Group(*({"events": [event("a", event_id=large)]} for _ in range(20)), {"events": [event("b")] * 999}),
        [],
    )

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        sizes.append((len(events), len(orjson.dumps(events))))
        return [ACCEPTED for _ in events]

    await consume(group, post)
    assert all(number <= BATCH_EVENTS and size <= BATCH_BYTES + 10_000 for number, size in sizes)
    assert sum(number for number, _ in sizes) == 1019


async def test_asked_to_end_while_the_service_is_away_it_ends_uncommitted() -> None:
    group = Group(event("a"))

    def post(_: Sequence[Mapping[str, Any]]) -> Any:
        group.stop.set()
        raise AwayError("ConnectionRefusedError")

    await consume(group, post)
    assert group.committed == {}


async def test_a_wrong_key_ends_it_uncommitted() -> None:
    group = Group(event("a"))

    def post(_: Sequence[Mapping[str, Any]]) -> Any:
        raise ConfigError("config.consume_refused", "the service answers 401 key.unknown.")

    with pytest.raises(ConfigError):
        await consume(group, post)
    assert group.committed == {}


async def test_what_is_read_again_by_another_member_has_the_same_ids() -> None:
    """As after a rebalance in the middle: the first member's commit came too late."""
    read: list[list[str]] = []

    def post(events: Sequence[Mapping[str, Any]]) -> Any:
        read.append([one["event_id"] for one in events])
        return [ACCEPTED if len(read) == 1 else {"status": "duplicate"} for _ in events]

    for _ in range(2):
        group = Group(event("a"), event("b"), event("c"))
        metrics = await consume(group, post)
    assert read[0] == read[1]
    assert len(set(read[0])) == 3
    assert counted(metrics, "taken") == 3
    assert group.buried == []
