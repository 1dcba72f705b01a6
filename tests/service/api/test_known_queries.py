"""Query strings that were found good are known again; what is asked all the time stays known."""

import pytest

from service.api.validation.parameters import KNOWN_QUERIES, LONGEST_KNOWN, KnownQueries
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.query_models import ListQuery
from service.release.catalogue import Filter


def test_a_hot_query_survives_a_thousand_rare_ones() -> None:
    queries, hot = KnownQueries(), ListQuery(n=7)
    queries.learn(b"n=7", hot)
    for count in range(2 * KNOWN_QUERIES):
        queries.learn(f"n=5&min_price={count}".encode(), ListQuery(n=5))
        assert queries.get(b"n=7") is hot
    assert queries.get(b"n=5&min_price=0") is None, "rare ones are pushed out"


def test_what_the_catalogue_has_a_say_in_is_read_each_time() -> None:
    queries = KnownQueries()
    queries.learn(b"exclude=a,b", ListQuery(n=5, item_filter=Filter(exclude=("a,b",))))
    queries.learn(b"n=" + b"1" * LONGEST_KNOWN, ListQuery(n=5))
    assert queries.get(b"exclude=a,b") is None
    assert queries.get(b"n=" + b"1" * LONGEST_KNOWN) is None


@pytest.mark.parametrize(
    ("query_string", "user_id"),
    [
        (b"n=5&user_id=b", "b"),
        (b"user_id=a%20b%2Cc&n=5", "a b,c"),
        (b"n=5&user_id=a+b", "a b"),
        (b"n=5&user_id=%2B", "+"),
        (b"n=5&user_id=", ""),
        (b"n=5&user_id=a;b=c", "a;b=c"),
        (b"n=5&user_id=a%3Db%26user_id=c", "a=b&user_id=c"),
    ],
)
def test_the_query_of_a_placement_is_known_for_every_user(query_string: bytes, user_id: str) -> None:
    queries = KnownQueries()
    queries.learn_placed(b"user_id=a&n=5", PlacedQuery(n=5, user_id="a"))
    assert queries.get_placed(query_string) == PlacedQuery(n=5, user_id=user_id)


@pytest.mark.parametrize(
    "query_string",
    [b"n=5", b"n=6&user_id=b", b"n=5&user_id=b&user_id=c", b"n=5&user%5Fid=b", b"n=5&user_id=%FF", b"n=5&&user_id=b"],
)
def test_what_is_not_plain_is_left_to_the_framework(query_string: bytes) -> None:
    queries = KnownQueries()
    queries.learn_placed(b"n=5&user_id=a", PlacedQuery(n=5, user_id="a"))
    assert queries.get_placed(query_string) is None


def test_later_pages_of_a_placement_are_not_known() -> None:
    queries = KnownQueries()
    queries.learn_placed(b"user_id=a&recommendation_id=x", PlacedQuery(user_id="a", recommendation_id="x"))
    queries.learn_placed(b"n=5", PlacedQuery(n=5))
    assert queries.get_placed(b"user_id=b&recommendation_id=x") is None
    assert queries.get_placed(b"n=5") is None, "a call without a user"
