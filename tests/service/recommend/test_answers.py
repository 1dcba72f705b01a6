"""Answers given before: true to their key, bounded, made once however many ask."""

import asyncio

import pytest

from isrf.contract.errors import OverloadError
from service.recommend.response_cache import AnswerKey, CachedResponse, ResponseCache, decode, encode

KEY = AnswerKey("ann", "v1", "release", "crowd", "catalogue", "n=10")
SERVED = CachedResponse("sequence", b'[{"item_id":"x\\ny"}]', b"[]")


def test_an_entry_of_the_store_comes_back_under_its_key_alone() -> None:
    payload = encode(KEY, SERVED)
    assert decode(KEY, payload) == SERVED
    assert decode(KEY, None) is None
    for field in AnswerKey._fields:
        assert decode(KEY._replace(**{field: "other"}), payload) is None, field


def test_no_part_of_a_key_runs_into_the_next() -> None:
    for between in ("\n", "', '", ""):
        one = KEY._replace(version=f"v{between}w", release_id="r")
        assert decode(KEY._replace(version="v", release_id=f"w{between}r"), encode(one, SERVED)) is None


def test_what_is_damaged_is_no_entry() -> None:
    payload = encode(KEY, SERVED)
    for at in range(len(payload)):
        assert decode(KEY, payload[:at]) is None
        assert decode(KEY, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]) is None


def test_what_was_asked_for_last_stays_and_all_of_it_is_bounded() -> None:
    answers = ResponseCache(max_bytes=10_000, ttl_s=60)
    keys = [KEY._replace(user_id=f"user-{k}") for k in range(1000)]
    for key in keys:
        answers.keep(key, SERVED)
        assert answers.get(keys[0]) == SERVED, "asked for all the time"
    assert answers.get(keys[1]) is None
    assert 5 < len(answers) < 30
    assert answers.get(keys[-1]) == SERVED


def test_an_answer_has_its_time() -> None:
    now = [0.0]
    answers = ResponseCache(max_bytes=10_000, ttl_s=60, clock=lambda: now[0])
    answers.keep(KEY, SERVED)
    now[0] = 59.9
    assert answers.get(KEY) == SERVED
    now[0] = 60.0
    assert answers.get(KEY) is None
    assert len(answers) == 0


def test_nothing_of_an_erased_user_stays() -> None:
    answers = ResponseCache(max_bytes=10_000, ttl_s=60)
    for key in (KEY, KEY._replace(parameters="n=5"), KEY._replace(user_id="bob")):
        answers.keep(key, SERVED)
    answers.forget("ann")
    assert [answers.get(KEY), answers.get(KEY._replace(parameters="n=5"))] == [None, None]
    assert len(answers) == 1


async def test_many_who_ask_at_once_cost_one_answer() -> None:
    answers = ResponseCache(max_bytes=10_000, ttl_s=60)
    go_on, made = asyncio.Event(), 0

    async def make() -> CachedResponse:
        nonlocal made
        made += 1
        await go_on.wait()
        return SERVED

    asking = [asyncio.create_task(answers.get_or_make(KEY, make)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    go_on.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [SERVED] * 19
    assert made == 1


@pytest.mark.parametrize(("code", "makers"), [("overload.expired", 2), ("overload.refused", 1)])
async def test_the_first_ones_end_is_not_the_others(code: str, makers: int) -> None:
    """Whose turn is over may be followed by one whose turn is not; who is refused is refused with the others."""
    answers = ResponseCache(max_bytes=10_000, ttl_s=60)
    go_on, made = asyncio.Event(), 0

    async def make() -> CachedResponse:
        nonlocal made
        made += 1
        await go_on.wait()
        if made == 1:
            raise OverloadError(code, "no")
        return SERVED

    asking = [asyncio.create_task(answers.get_or_make(KEY, make)) for _ in range(5)]
    await asyncio.sleep(0)
    go_on.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], OverloadError)
    assert made == makers
    assert found[1:] == [SERVED] * 4 if makers == 2 else all(isinstance(one, OverloadError) for one in found)
