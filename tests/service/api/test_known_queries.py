"""Query strings that were found good are known again; what is asked all the time stays known."""

from service.api.validation.parameters import KNOWN_QUERIES, LONGEST_KNOWN, KnownQueries
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
