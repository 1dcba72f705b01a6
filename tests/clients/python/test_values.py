"""What cannot be sent is a `ClientError` before anything is sent; what is None is not sent."""

import asyncio
import copy
import math
import pickle
import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from isrf_client import (
    AsyncClient,
    Client,
    ClientError,
    InvalidCallError,
    NoAnswerError,
    Patience,
    ProblemError,
    prepare,
)
from isrf_client.values import json_fields, query

from tests.service.servers import free_port

KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])
HALF = "a\ud800b"
NOWHERE = f"http://127.0.0.1:{free_port()}"
CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE


async def asking(client: Any, method: str, *arguments: Any, **options: Any) -> Any:
    answer = getattr(client, method)(*arguments, **options)
    return await answer if isinstance(client, AsyncClient) else answer


def ask(kind: Any, method: str, *arguments: Any, url: str = NOWHERE, **options: Any) -> Any:
    async def run() -> Any:
        client = kind(url)
        try:
            return await asking(client, method, *arguments, **options)
        finally:
            await asking(client, "close")

    return asyncio.run(run())


NO_IDS = [None, math.nan, 7.0, True, b"ann", HALF, [], {}, object(), 10**5000, datetime.now(UTC), Decimal(7), ""]


@KINDS
@pytest.mark.parametrize("user_id", NO_IDS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("method", ["recommend", "similar", "user", "erase", "item", "put_item", "hide_item"])
def test_what_is_no_id_is_refused(kind: Any, method: str, user_id: Any) -> None:
    with pytest.raises(InvalidCallError) as caught:
        ask(kind, method, user_id)
    assert caught.value.code == "client.invalid_id"
    assert caught.value.fix
    assert "_id" in caught.value.message


@KINDS
@pytest.mark.parametrize("wrong", [*NO_IDS[:-1], None], ids=lambda value: type(value).__name__)
def test_what_is_no_id_is_refused_in_lists_and_events_too(kind: Any, wrong: Any) -> None:
    asked: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("recommend", ["ann"], {"exclude": ["a", wrong]}),
        ("recommend", ["ann"], {"session": ["a", wrong]}),
        ("recommend_session", [["a", wrong]], {}),
        ("recommend_many", [["a", wrong]], {}),
        ("rank", [["a", wrong]], {}),
        ("interactions", [[{"user_id": "ann", "item_id": "a"}, {"user_id": [], "item_id": wrong}]], {}),
    ]
    for method, arguments, options in asked:
        with pytest.raises(InvalidCallError) as caught:
            ask(kind, method, *arguments, **options)
        assert caught.value.code == "client.invalid_id"
        assert "[1]" in caught.value.message


NO_VALUES = [math.nan, math.inf, -math.inf, HALF, b"a", object(), datetime.now(UTC), {"a": math.nan}, {7: 1}, {HALF: 1}]
NO_VALUES += [[object()], 10**5000, 2**70, Decimal("1.5"), {"a", "b"}, CYCLE, 1 + 2j, np.float32("nan")]


@KINDS
@pytest.mark.parametrize("wrong", NO_VALUES, ids=lambda value: type(value).__name__)
def test_what_json_does_not_have_is_refused(kind: Any, wrong: Any) -> None:
    for method, arguments, options in (
        ("popular", [], {"min_price": wrong}),
        ("recommend_many", [["ann"]], {"category": wrong}),
        ("rank", [["a"]], {"diversity": wrong}),
        ("put_item", ["a"], {"metadata": {"deep": [wrong]}}),
        ("put_item", ["a"], {"price": wrong}),
        ("interactions", [[{"user_id": "ann", "item_id": "a", "event": wrong}]], {}),
    ):
        with pytest.raises(InvalidCallError) as caught:
            ask(kind, method, *arguments, **options)
        assert caught.value.code == "client.invalid_value"
        assert caught.value.fix


@KINDS
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("recommend_session", "abc"),
        ("recommend_many", "abc"),
        ("rank", None),
        ("rank", {"a": 1}),
        ("interactions", None),
        ("interactions", {"user_id": "ann", "item_id": "a"}),
        ("interactions", ["ann"]),
        ("interactions", [None]),
        ("interactions", [{"user_id": "ann", "item_id": "a", "timestamp": math.nan}]),
        ("interactions", [{"user_id": "ann", "item_id": "a", "timestamp": datetime(2026, 1, 1)}]),
    ],
)
def test_what_is_no_list_of_ids_or_events_is_refused(kind: Any, method: str, arguments: Any) -> None:
    with pytest.raises(InvalidCallError) as caught:
        ask(kind, method, arguments)
    assert caught.value.code == "client.invalid_value"
    with pytest.raises(InvalidCallError, match="exclude"):
        ask(kind, "popular", exclude="abc")


@KINDS
def test_a_url_that_is_too_long_is_refused(kind: Any) -> None:
    for call in (("recommend", "x" * 70_000), ("item", "ü" * 20_000)):
        with pytest.raises(InvalidCallError) as caught:
            ask(kind, *call)
        assert caught.value.code == "client.url_too_long"
    with pytest.raises(InvalidCallError) as long:
        ask(kind, "popular", exclude=[f"item-{k}" for k in range(10_000)])
    assert (long.value.code, "recommend_session" in long.value.fix) == ("client.url_too_long", True)


@KINDS
def test_a_client_that_was_closed_says_so(kind: Any) -> None:
    async def run() -> None:
        client = kind(NOWHERE)
        await asking(client, "close")
        for method, arguments in (("popular", []), ("interactions", [[{"user_id": "ann", "item_id": "a"}]])):
            with pytest.raises(InvalidCallError) as caught:
                await asking(client, method, *arguments)
            assert caught.value.code == "client.closed"

    asyncio.run(run())


def test_another_event_loop_is_said_to_be_another() -> None:
    client = AsyncClient(NOWHERE)

    async def run() -> None:
        with pytest.raises(ClientError):
            await client.popular()

    asyncio.run(run())

    async def again() -> None:
        with pytest.raises(InvalidCallError) as caught:
            await client.popular()
        assert caught.value.code == "client.other_loop"

    asyncio.run(again())


@KINDS
@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop",
        "shop:8000",
        "",
        "http://",
        "http://shop?x=1",
        "http://shop#x",
        "http://shop/x?",
        "http://shop#",
        "http://shop:99999",
        "http://[::1",
        "http://a\nb",
        HALF,
        None,
        7,
        b"http://shop",
    ],
)
def test_a_bad_address_is_refused(kind: Any, url: Any) -> None:
    with pytest.raises(InvalidCallError) as caught:
        kind(url)
    assert caught.value.code == "client.invalid_url"
    assert "base_url" in caught.value.message


@KINDS
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "ftp://proxy"),
        ("ALL_PROXY", "socks5://proxy"),
        ("HTTP_PROXY", "http://proxy:port"),
        ("SSL_CERT_FILE", "/no"),
    ],
)
def test_an_environment_that_cannot_work_is_a_client_error(
    kind: Any, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidCallError) as caught:
        kind(NOWHERE)
    assert caught.value.code == "client.invalid_environment"


@KINDS
def test_a_host_that_is_no_name_is_a_client_error(kind: Any) -> None:
    for url in ("http://a..b", f"http://{'a' * 70}.example", "http://.", "http://user:secret@a..b"):
        with pytest.raises(ClientError) as caught:
            ask(kind, "popular", url=url)
        assert "secret" not in str(caught.value)


@KINDS
@pytest.mark.parametrize("key", ["", " ", "a\nb", "a\r\nX: y", "ü", "a\x00", HALF, 7, b"key", "a\x7f"])
def test_a_bad_key_is_refused_and_never_shown(kind: Any, key: Any) -> None:
    with pytest.raises(InvalidCallError) as caught:
        kind(NOWHERE, api_key=key)
    assert caught.value.code == "client.invalid_key"
    assert str(key).strip() in ("", "7", "ü") or str(key) not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": math.nan},
        {"deadline_s": math.inf},
        {"timeout_s": "1"},
        {"tries": 1.5},
        {"first_pause_s": math.nan},
        {"timeout_s": 1e18},
        {"first_pause_s": 1e18},
        {"timeout_s": 10**400},
    ],
)
def test_a_patience_of_no_numbers_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidCallError) as caught:
        Patience(**({"timeout_s": 1.0, "tries": 1, "deadline_s": 1.0} | wrong))
    assert caught.value.code == "client.invalid_patience"
    with pytest.raises(InvalidCallError):
        Client(NOWHERE, reads=2.0)  # type: ignore[arg-type]


class Kind(StrEnum):
    VIEW = "view"


def test_what_is_none_is_not_sent() -> None:
    options = {"n": 5, "category": None, "exclude": None, "explain": True, "session": None}
    assert json_fields(options) == {"n": 5, "explain": True}
    assert query(options) == [("n", "5"), ("explain", "true")]
    nothing: Any = {"user_id": "ann", "item_id": "a", "event": None, "timestamp": None, "event_id": None}
    (event,) = prepare([nothing])
    assert set(event) == {"user_id", "item_id", "event_id"}


def test_numbers_are_sent_as_they_are_meant() -> None:
    assert query({"exclude": [7, -1, "x", np.int64(9), 2**70]}) == [
        ("exclude", one) for one in ("7", "-1", "x", "9", str(2**70))
    ]
    assert json_fields(
        {"n": np.int64(3), "min_price": np.float32(0.5), "diversity": Fraction(1, 4), "user_id": 12}
    ) == {
        "n": 3,
        "min_price": 0.5,
        "diversity": 0.25,
        "user_id": "12",
    }
    happened = datetime(2026, 1, 1, tzinfo=UTC)
    visit: Any = {"session_id": 7, "item_id": "a", "event_id": "b", "user_id": None}
    assert prepare([visit]) == [{"session_id": "7", "item_id": "a", "event_id": "b"}]
    event: Any = {"user_id": 7, "item_id": np.int32(8), "event_id": 9, "event": Kind.VIEW, "timestamp": happened}
    assert prepare([event]) == [
        {"user_id": "7", "item_id": "8", "event_id": "9", "event": "view", "timestamp": happened.timestamp()}
    ]


def test_events_that_were_prepared_stay_as_they_are() -> None:
    given_events: Any = [{"user_id": "ann", "item_id": "a"}] * 2
    first = prepare(given_events)
    assert prepare(first) == first
    assert len({event["event_id"] for event in first}) == 2
    assert given_events == [{"user_id": "ann", "item_id": "a"}] * 2, "the caller's own are left alone"


@pytest.mark.parametrize(
    "error",
    [
        ProblemError("a.b", "so", status=503, fix="do", request_id="r", retry_after_s=2.0),
        NoAnswerError("client.timeout", "late", fix="wait"),
        InvalidCallError("client.invalid_id", "none", fix="give one"),
    ],
)
def test_an_error_travels_between_processes(error: ClientError) -> None:
    error.events = [{"user_id": "ann", "item_id": "a", "event_id": "1"}]
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


def test_a_context_is_one_parameter_for_each_name() -> None:
    options = {"filter": "brand = context.theme", "context": {"theme": "Auralis"}, "category": ["a", "b"]}
    assert query(options) == [
        ("filter", "brand = context.theme"),
        ("category", "a"),
        ("category", "b"),
        ("context.theme", "Auralis"),
    ]
    assert json_fields(options)["context"] == {"theme": "Auralis"}
    for wrong in ("theme", ["theme"], 7):
        for read in (query, json_fields):
            with pytest.raises(InvalidCallError, match=re.escape(f"context is {wrong!r}")) as refused:
                read({"context": wrong})
            assert "a dict of texts" in refused.value.fix


def test_a_cart_is_a_list_of_ids() -> None:
    assert query({"cart": [7, "b"]}) == [("cart", "7"), ("cart", "b")]
    with pytest.raises(InvalidCallError, match="cart is"):
        query({"cart": "abc"})
    with pytest.raises(InvalidCallError, match=re.escape("cart[1] is")):
        query({"cart": ["a", 1.5]})
