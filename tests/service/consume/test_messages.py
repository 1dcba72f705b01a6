"""What a message holds: events with an id that every reading of the message gives again, or a reason why none."""

import json
from typing import Any

import pytest

from service.consume.messages import MAX_DEPTH, MAX_EVENTS, MAX_MESSAGE_BYTES, KafkaMessage, PoisonError, events_of

SENT_MS = 1_700_000_000_500
VIEW = {"user_id": "ann", "item_id": "tea", "event": "view"}


def message(value: Any, timestamp_ms: int = SENT_MS, offset: int = 17) -> KafkaMessage:
    content = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return KafkaMessage("clicks", 3, offset, timestamp_ms, b"key", content)


def nested(levels: int) -> bytes:
    """An event of this many levels of lists and objects, itself one."""
    return b'{"item_id": "[", "deep": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_an_event_gets_the_messages_place_and_moment() -> None:
    assert events_of(message(VIEW)) == [
        {**VIEW, "event_id": f"clicks-3-17-{SENT_MS}", "timestamp": SENT_MS / 1000 + 17e-6}
    ]
    assert events_of(message(VIEW, -1)) == [{**VIEW, "event_id": "clicks-3-17"}]


def test_what_an_event_has_of_its_own_stays() -> None:
    own = {**VIEW, "event_id": "order-1", "timestamp": 5}
    assert events_of(message(own)) == [own]
    assert events_of(message({**VIEW, "event_id": None}))[0]["event_id"] == f"clicks-3-17-{SENT_MS}"


def test_a_message_may_hold_several() -> None:
    found = events_of(message({"events": [VIEW, VIEW]}))
    assert [one["event_id"] for one in found] == [
        f"clicks-3-17-{SENT_MS}-0",
        f"clicks-3-17-{SENT_MS}-1",
    ]
    assert found[0]["timestamp"] < found[1]["timestamp"] < (SENT_MS + 1) / 1000
    assert events_of(message({"events": []})) == []
    assert events_of(message(None)) == [], "a tombstone of a compacted topic"


def test_a_list_keeps_its_order_at_every_offset() -> None:
    for offset in (0, 17, 998, 999, 1000):
        found = events_of(message({"events": [VIEW] * MAX_EVENTS}, offset=offset))
        times = [one["timestamp"] for one in found]
        assert times == sorted(set(times))
        assert SENT_MS / 1000 <= times[0] < times[-1] < (SENT_MS + 1) / 1000


def test_what_the_service_reads_is_not_too_deep() -> None:
    assert events_of(message(nested(MAX_DEPTH)))
    brackets = {**VIEW, "title": "[{" * 40}
    assert events_of(message({"events": [brackets]}))[0]["title"] == "[{" * 40


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "malformed_json"), (b"\xff", "malformed_json"), (b"{", "malformed_json"), (b"NaN", "malformed_json"),
        ([], "not_an_object"), (7, "not_an_object"), ({"events": VIEW}, "not_events"), ({"events": [1]}, "not_events"),
        ({"events": [VIEW], "more": 1}, "not_events"), ({"events": [VIEW] * 1001}, "too_many_events"),
        (nested(MAX_DEPTH + 1), "too_deep"), (nested(300), "too_deep"),
        (b'{"item_id": "a", "item_id": "b"}', "duplicate_name"), (b" " * (MAX_MESSAGE_BYTES + 1), "too_large"),
    ],
)  # fmt: skip
def test_poison_has_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(PoisonError) as refused:
        events_of(message(value))
    assert str(refused.value) == reason
