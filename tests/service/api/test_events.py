"""Each posted event is judged in its own right: taken as it is meant, or refused with a reason."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.method.order import MAX_AHEAD_S
from service.state import payload
from service.state.events import Event, EventReader, EventRules, Refusal

NOW = 1_700_000_000.0
KNOWN = {"tea", "a/b #?%", "日本"}


def read(**posted: Any) -> Event | Refusal:
    reader = EventReader(EventRules({"cart"}), KNOWN.__contains__)
    return reader.read([{"user_id": "ann", "item_id": "tea", **posted}], NOW)[0]


def reason(**posted: Any) -> str | None:
    one = read(**posted)
    return one.reason if isinstance(one, Refusal) else None


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        ("purchase", "B"), (None, "B"), ("", "B"), ("  ", "B"), ("Purchase", "B"), ("cart", "B"), ("view", "H"),
        ("anything else", "H"), ("dislike", "D"), ("remove", "R"),
    ],
)  # fmt: skip
def test_what_an_event_type_does(kind: str | None, effect: str) -> None:
    one = read(event=kind)
    assert isinstance(one, Event)
    assert one.effect == effect


def test_an_event_of_a_session_has_an_owner_that_no_user_has() -> None:
    (one,) = EventReader(EventRules(()), KNOWN.__contains__).read([{"session_id": "ann", "item_id": "tea"}], NOW)
    assert isinstance(one, Event)
    assert one.user_id == "isrf-session:ann"
    assert reason(user_id="isrf-session:ann") == "invalid_user_id"
    assert reason(user_id=None, session_id="s" * 513) == "invalid_session_id"
    assert reason(user_id=None, session_id="") == "invalid_session_id"
    assert reason(user_id=None) == "invalid_event"
    both = read(session_id="s")
    assert isinstance(both, Event)
    assert both.user_id == "ann"


def test_dislike_and_remove_keep_their_meaning_whatever_excludes() -> None:
    reader = EventReader(EventRules({"remove", "dislike"}), KNOWN.__contains__)
    posted = [{"user_id": "ann", "item_id": "tea", "event": kind} for kind in ("dislike", "remove")]
    assert [one.effect for one in reader.read(posted, NOW) if isinstance(one, Event)] == ["D", "R"]


@pytest.mark.parametrize(
    ("timestamp", "wanted"),
    [
        (0, None), (NOW, None), (NOW + MAX_AHEAD_S - 1, None), (-0.0, None),
        (NOW + MAX_AHEAD_S + 1, "timestamp_in_future"), (NOW * 1000, "timestamp_in_future"),
        (-1, "invalid_timestamp"), (math.nan, "invalid_timestamp"), (math.inf, "invalid_timestamp"),
        (10**400, "invalid_timestamp"), ("1700000000", "invalid_event"), (True, "invalid_event"),
    ],
)  # fmt: skip
def test_which_timestamps_are_taken(timestamp: Any, wanted: str | None) -> None:
    assert reason(timestamp=timestamp) == wanted


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id"])
@pytest.mark.parametrize("bad", ["", "x" * 513, "é" * 257, "x" * 10_000, "a\nb", "a\x00", "\x7f", "\ud800"])
def test_an_id_that_cannot_be_kept_is_refused(field: str, bad: str) -> None:
    assert reason(**{field: bad}) == f"invalid_{field}"


@pytest.mark.parametrize("raw", [None, 7, "x", [], {}, {"user_id": "ann"}, {"user_id": 1.5, "item_id": "tea"}])
def test_what_is_no_event_is_refused(raw: Any) -> None:
    (one,) = EventReader(EventRules(()), KNOWN.__contains__).read([raw], NOW)
    assert isinstance(one, Refusal)
    assert one.reason == "invalid_event"


def test_a_field_that_nobody_knows_is_refused_and_not_repeated_at_length() -> None:
    one = read(**{"x" * 10_000: 1})
    assert isinstance(one, Refusal)
    assert len(one.detail) < 300


def test_an_unknown_item_is_refused_but_may_be_taken_back() -> None:
    assert reason(item_id="gone") == "unknown_item"
    assert reason(item_id="gone", event="remove") is None


@pytest.mark.parametrize("bad", ["x" * 65, "a\nb", "\ud800"])
def test_an_event_type_that_cannot_be_kept_is_refused(bad: str) -> None:
    assert reason(event=bad) == "invalid_event_type"


def test_one_bad_event_does_not_refuse_the_others() -> None:
    posted = [{"user_id": "a", "item_id": "tea"}, {"user_id": "", "item_id": "tea"}, {"user_id": "b", "item_id": "tea"}]
    found = EventReader(EventRules(()), KNOWN.__contains__).read(posted, NOW)
    assert [type(one) for one in found] == [Event, Refusal, Event]


def test_events_without_a_time_keep_the_order_of_their_batch() -> None:
    found = EventReader(EventRules(()), KNOWN.__contains__).read([{"user_id": "a", "item_id": "tea"}] * 50, NOW)
    moments = [one.timestamp for one in found if isinstance(one, Event)]
    assert moments == sorted(set(moments))
    assert all(one.assigned for one in found if isinstance(one, Event))


def test_equal_events_get_equal_ids_and_others_do_not() -> None:
    def id_of(**posted: Any) -> str:
        one = read(**posted)
        assert isinstance(one, Event)
        return one.event_id

    assert id_of(timestamp=5) == id_of(timestamp=5.0) == id_of(timestamp=5, event=None) == id_of(timestamp=5, event="")
    assert id_of(timestamp=0.0) == id_of(timestamp=-0.0)
    different = [
        id_of(timestamp=5), id_of(timestamp=6), id_of(timestamp=5, event="view"), id_of(timestamp=5, user_id="bob"),
        id_of(timestamp=5, item_id="日本"), id_of(), id_of(), id_of(event_id="mine"),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


@given(st.text(min_size=1, max_size=40), st.floats(0, NOW), st.none() | st.text(max_size=40))
def test_a_kept_event_is_read_back_as_it_was(user_id: str, timestamp: float, kind: str | None) -> None:
    reader = EventReader(EventRules(()), lambda _: True)
    (one,) = reader.read([{"user_id": user_id, "item_id": "x", "timestamp": timestamp, "event": kind}], NOW)
    if isinstance(one, Event):
        assert payload.decode(payload.encode(one)) == one._replace(named=True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_value_breaks_the_reader(raw: Any) -> None:
    (one,) = EventReader(EventRules(()), lambda _: True).read([json.loads(json.dumps(raw))], NOW)
    assert isinstance(one, Refusal)


def test_an_integer_id_is_its_decimal_text() -> None:
    one = read(user_id=7, event_id=2**63)
    assert isinstance(one, Event)
    assert (one.user_id, one.event_id) == ("7", str(2**63))
    assert read(item_id=-12) == Refusal("unknown_item", "the item_id is not in the catalogue")


@pytest.mark.parametrize("bad", [True, 7.0, 1e300, None, 2**64, -(2**63) - 1, [7], {"id": 7}])
@pytest.mark.parametrize("name", ["user_id", "item_id", "event_id"])
def test_nothing_else_becomes_an_id(name: str, bad: object) -> None:
    if name == "event_id" and bad is None:
        return
    refused = read(**{name: bad})
    assert isinstance(refused, Refusal)
    assert (refused.reason, name in refused.detail) == ("invalid_event", True)


def test_a_given_id_is_told_from_one_made_here() -> None:
    made, given_id = read(timestamp=1.0), read(timestamp=1.0, event_id="derived-1")
    assert isinstance(made, Event)
    assert isinstance(given_id, Event)
    assert (made.named, given_id.named) == (False, True)
    assert payload.decode(payload.encode(made)) == made._replace(named=True), "what is kept has the id alone"
