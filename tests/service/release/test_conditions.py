"""A condition holds for exactly the items that SQL says, and a text that is none is refused with its place."""

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.errors import RequestError
from service.release.conditions import ConditionMasks, RequestValues, compile_condition
from service.release.conditions import masks as masks_module
from service.release.conditions.attributes import Attributes, AttributeTable
from tests.slowness import slowness


@dataclass(frozen=True)
class Item:
    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = field(default_factory=list)
    price: float | None = None
    available: bool = True
    own: Mapping[str, Any] = field(default_factory=dict)
    group_id: str | None = None

    def own_fields(self) -> dict[str, Any]:
        return dict(self.own)


ITEMS = [
    Item("a", "Red lamp", "Auralis", ["Home", "Lamps"], 80.0, True, {"stock": 3, "sale": True, "tags": ["new", "led"]}),
    Item("b", "Sofa", None, ["Home"], None, True, {"stock": 0, "sale": False, "released": "2026-01-05"}),
    Item("c", None, "Auralis", [], 20.0, False, {"stock": None, "tags": [], "released": "2026-03-01T12:00:00+02:00"}),
    Item("d", "Cup 100%", "Bodum", ["Kitchen", "Cups"], 0.0, True, {"sale": True, "*": 1, "^.*$": "odd"}),
    Item("e", "it's a cup", "bodum", ["Cups"], 9.5, True, {"stock": -2.5, "mixed": 1, "released": "2027-01-01"}),
    Item("f", "", "", ["Home"], 1e9, True, {"mixed": "one", "größe": 4}),
]
TABLE = AttributeTable.of(ITEMS)
NOW = datetime(2026, 4, 1, 10, 30, tzinfo=UTC).timestamp()
VALUES = RequestValues(
    now_s=NOW, bought=frozenset({1, 3}), disliked=frozenset({0}), context={"country": "DE", "max": "50"}
)


def holds(text: str) -> str:
    """The ids of the items for which a condition holds."""
    mask = compile_condition(text, TABLE.types).mask(TABLE, VALUES)
    assert mask.shape == (len(ITEMS),)
    assert mask.dtype == np.bool_
    return "".join(item.item_id for item, passes in zip(ITEMS, mask, strict=True) if passes)


def refusal(text: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        compile_condition(text, TABLE.types).mask(TABLE, VALUES)
    assert caught.value.code == "condition.invalid"
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price < 80", "cde"),
        ("price <= 80 and brand = 'Auralis'", "ac"),
        ("NOT brand = 'Auralis'", "def"),
        ("brand <> 'Auralis' OR price IS NULL", "bdef"),
        ("brand IN ('Auralis', 'Bodum')", "acd"),
        ("brand NOT IN ('Auralis')", "def"),
        ("price BETWEEN 9.5 AND 80", "ace"),
        ("price NOT BETWEEN 9.5 AND 80", "df"),
        ("title LIKE '%cup%'", "e"),
        ("title ILIKE '%cup%'", "de"),
        ("title NOT LIKE '%cup%'", "abdf"),
        ("title = 'it''s a cup'", "e"),
        ("title LIKE 'Cup 100%'", "d"),
        ("title ~ '^[A-R]'", "ad"),
        ("title !~* 'CUP'", "abf"),
        (r"title ~ '\{'", ""),
        (r"NOT title ~ '\\\{'", "abdef"),
        ("'Cups' IN categories", "de"),
        ("'Cups' NOT IN categories", "abcf"),
        ("array_contains(tags, 'led')", "a"),
        ("NOT array_contains(tags, 'led')", "c"),
        ("array_length(categories) = 2", "ad"),
        ("sale", "ad"),
        ("NOT sale", "b"),
        ("sale IS NOT TRUE", "bcef"),
        ("sale IS FALSE OR sale IS TRUE", "abd"),
        ("sale IS NOT FALSE", "acdef"),
        ("available = false", "c"),
        ("stock / stock > 0", "ae"),
        ("NOT stock / 0 > 1", ""),
        ("stock % 2 = 1", "a"),
        ("stock - -1 > -1", "ab"),
        ("-(stock + 1) * 2 < 0", "ab"),
        ("coalesce(stock, 1) = 1", "cdf"),
        ("released > '2026-02-01'", "ce"),
        ("released = TIMESTAMP '2026-03-01T10:00:00Z'", "c"),
        ("released BETWEEN '2026-01-01' AND now", "bc"),
        ("released > now - INTERVAL '60 days'", "ce"),
        ("now - released < INTERVAL '5 weeks'", "ce"),
        ("user.bought", "bd"),
        ("NOT user.bought AND NOT user.disliked", "cef"),
        ("context.country = 'DE' AND price < 10", "de"),
        ("context.country = 'FR'", ""),
        ("context.missing = 'x' OR sale", "ad"),
        ("price < number(context.max)", "cde"),
        ("mixed = '1'", "e"),
        ('"*" = 1', "d"),
        ("\"^.*$\" = 'odd'", "d"),
        ("größe >= 4", "f"),
        ("true", "abcdef"),
        ("1 = 2", ""),
        ("lower(brand) = 'bodum' AND length(title) > 8", "e"),
        ("NOT (price > 50 OR NOT available)", "de"),
    ],
)
def test_a_condition_means_what_sql_says(text: str, expected: str) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "message", "fix"),
    [
        ("prise < 80", 1, "no attribute prise", "Did you mean price?"),
        ("price < 80 AND Brand = 'x'", 16, "no attribute Brand", "Did you mean brand?"),
        ("price = '80'", 7, "does not compare a number with a text", "single quotes"),
        ("brand < price", 7, "does not compare a text with a number", ""),
        ("available = 'true'", 11, "true or false with a text", ""),
        ("categories = 'Cups'", 12, "a list of texts with a text", "Write 'Cups' IN categories."),
        ("'Tea''s' = categories", 10, "a list of texts with a text", "Write 'Tea''s' IN categories."),
        ("categories <> 'Cups'", 12, "list of texts", "Write NOT 'Cups' IN categories."),
        ("price < 3 AND brand = categories", 21, "list of texts", "Write brand IN categories."),
        ("categories = 'it is " + "x" * 90 + "'", 12, "list of texts", "Write 'Cups' IN categories."),
        ("categories IN ('Cups')", 1, "a list of texts", "Write 'Cups' IN categories."),
        ("categories IN ('Cups', 'Tea')", 1, "a list", "Write 'Cups' IN categories OR 'Tea' IN categories."),
        ("categories NOT IN ('a', 'b')", 1, "a list", "Write NOT 'a' IN categories AND NOT 'b' IN categories."),
        ("categories IN (1)", 16, "a list of texts with a number", ""),
        ("price", 1, "this is a number", "price < 80"),
        ("price = NULL", 9, "NULL", "IS NULL"),
        ("released > 'yesterday'", 12, "no time", "ISO 8601"),
        ('brand = "Auralis"', 9, "no attribute Auralis", "single quotes"),
        ("price > (SELECT 1)", 10, "no attribute SELECT", ""),
        ("price IN (SELECT price FROM self)", 11, "no value", ""),
        ("sum(price) > 1", 1, "no function sum", "Functions are"),
        ("row_number() OVER (ORDER BY price) = 1", 1, "no function row_number", ""),
        ("read_csv('/etc/passwd')", 1, "no function", ""),
        ("price > 1; DROP TABLE items", 10, "not understood", ""),
        ("price > 1 -- sale", 14, "where a number is needed", ""),
        ("price::text = '1'", 6, "not understood", ""),
        ("brand IN ()", 11, "not understood", ""),
        ("brand IN ('a', NULL)", 16, "NULL", ""),
        ("price < ", 9, "the end", ""),
        ("(price < 1", 11, "missing", ""),
        ("price < 1)", 10, "not understood", ""),
        ("brand = 'x", 9, "without its end", ""),
        ("price < 1e999", 9, "too large", ""),
        ("released > now - INTERVAL '1 century'", 27, "no interval", ""),
        ("price < 1 \x00", 11, "not understood", ""),
        ("title ~ brand", 9, "in single quotes", ""),
        ("", 1, "empty", ""),
        ("   ", 1, "empty", ""),
    ],
)
def test_a_refusal_shows_the_place_and_a_way_out(text: str, place: int, message: str, fix: str) -> None:
    error = refusal(text)
    assert f"at character {place}:" in error.message, error.message
    assert message in error.message
    assert fix in error.fix


HOSTILE: dict[str, str] = {
    "brackets": "(" * 900 + "sale" + ")" * 900,
    "brackets without an end": "(" * 2048,
    "negations": "NOT " * 500 + "sale",
    "minuses": "price > " + "- " * 1000 + "1",
    "a long sum": "price" + " + 1" * 500 + " > 1",
    "a long chain": " OR ".join(["sale"] * 290),
    "two kilobytes": "brand = '" + "x" * 2048 + "'",
    "a counted repetition": r"title ~ '\pL{100}x'",
    "a counted backslash": r"title ~ '\\{60000}'",
    "a counted backslash after a bracket": r"title ~ '\{\\\\{60000}'",
    "nested repetitions": "title ~ '(a{1000}){1000}'",
    "no regular expression": "title ~ '('",
    "a long expression": "title ~ '" + r"\pL" * 60 + "x'",
    "many expressions": " OR ".join([r"title ~ '\w*\w*x'"] * 20),
    "nested functions": "abs(" * 40 + "price" + ")" * 40 + " > 1",
    "half a character": "brand = '\ud800'",
    "backslashes": "brand = '\\' OR sale --'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_condition_is_refused_at_once(name: str) -> None:
    def seconds() -> float:
        began = time.thread_time()
        refusal(HOSTILE[name])
        return time.thread_time() - began

    assert min(seconds() for _ in range(3)) < 0.05 * slowness()


LARGEST = {
    "a list": "brand IN (" + ", ".join(f"'{number}'" for number in range(230)) + ")",
    "terms": " AND ".join(["(price > 1 OR sale)"] * 25),
    "mixed terms": " OR ".join(["price>1 AND sale AND stock<9"] * 16),
    "operators": "price" + " + 1" * 90 + " > 1",
    "brackets": "NOT (" * 4 + "sale" + ")" * 4,
    "expressions": " OR ".join([r"title ~ '(\w|\w\w)*(\pL|\pL\pL)*\d$'"] * 10),
    "wildcards": " OR ".join([f"title LIKE '{'%a' * 40}'"] * 10),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_conditions_take_no_time(name: str) -> None:
    items = [Item(str(row), "A lamp for the long evening " * 4, price=float(row)) for row in range(2000)]
    items[0] = Item("0", own={"stock": 1, "sale": True})
    table = AttributeTable.of(items)
    began = time.process_time()
    compile_condition(LARGEST[name], table.types).mask(table, VALUES)
    assert time.process_time() - began < 2 * slowness()


def test_masks_are_cached_by_what_they_read() -> None:
    masks = ConditionMasks(Attributes(ITEMS))
    assert masks.find("price < 80", VALUES) is None
    mask = masks.mask("price < 80", VALUES)
    assert masks.find("price < 80", RequestValues()) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True
    of_user = masks.mask("NOT user.bought", VALUES)
    assert masks.find("NOT user.bought", RequestValues(now_s=NOW + 1, bought=VALUES.bought)) is of_user
    assert masks.find("NOT user.bought", RequestValues()) is None
    recent = masks.mask("released < now", RequestValues(now_s=NOW))
    assert masks.find("released < now", RequestValues(now_s=NOW + 29)) is recent
    assert masks.find("released < now", RequestValues(now_s=NOW + 61)) is None


def test_a_cached_mask_counts_with_its_key() -> None:
    with patch.object(masks_module, "MAX_MASK_BYTES", 10 * masks_module.ENTRY_BYTES):
        masks = ConditionMasks(Attributes(ITEMS))
    texts = [f"price < {number}" for number in range(20)]
    for text in texts:
        masks.mask(text, VALUES)
    assert [masks.find(text, VALUES) is not None for text in texts] == [False] * 11 + [True] * 9
    of_many = RequestValues(bought=frozenset(range(1_000)))
    assert masks.mask("user.bought", of_many).all()
    assert masks.find("user.bought", of_many) is None, "the user's items do not fit"
    masks.mask("user.bought", VALUES)
    assert masks.find("user.bought", VALUES) is not None


def test_a_condition_may_be_denied_the_request() -> None:
    with pytest.raises(RequestError, match=r"user\.bought"):
        compile_condition("user.bought", TABLE.types, names=())
    compile_condition("context.a = 'x'", TABLE.types, names=("context.a",))
    with pytest.raises(RequestError, match=r"context\.b"):
        compile_condition("context.b = 'x'", TABLE.types, names=("context.a",))


def test_a_column_that_is_gone_is_refused() -> None:
    condition = compile_condition("stock > 1", TABLE.types)
    without = AttributeTable.of([Item("a")])
    with pytest.raises(RequestError, match="does not exist any more"):
        condition.mask(without, VALUES)
    as_text = AttributeTable.of([Item("a", own={"stock": "many"})])
    with pytest.raises(RequestError, match="is a text now"):
        condition.mask(as_text, VALUES)


# A small grammar, evaluated row by row: None is SQL's NULL.

Row = Callable[[Item], Any]
Term = tuple[str, Row]


def _own(name: str) -> Row:
    return lambda item: item.own.get(name)


NUMBERS: list[Term] = [("price", lambda item: item.price), ("stock", _own("stock"))]
TEXTS: list[Term] = [("title", lambda item: item.title), ("brand", lambda item: item.brand)]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b, "<>": lambda a, b: a != b, "<": lambda a, b: a < b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def _lifted(compare: Callable[..., Any], *terms: Row) -> Row:
    def row(item: Item) -> Any:
        values = [term(item) for term in terms]
        return None if None in values else compare(*values)

    return row


@st.composite
def numbers(draw: st.DrawFn) -> Term:
    text, row = draw(st.sampled_from(NUMBERS))
    if draw(st.booleans()):
        return text, row
    operator = draw(st.sampled_from("+-*/%"))
    value = draw(st.sampled_from([0, 1, 2.5, 7]))

    def arithmetic(number: float) -> float | None:
        if operator in "/%" and value == 0:
            return None
        return {
            "+": lambda: number + value, "-": lambda: number - value, "*": lambda: number * value,
            "/": lambda: number / value, "%": lambda: math.fmod(number, value),
        }[operator]()  # fmt: skip

    return f"({text} {operator} {value})", _lifted(arithmetic, row)


@st.composite
def comparisons(draw: st.DrawFn) -> Term:
    kind = draw(st.sampled_from(["number", "text", "in", "null", "flag", "like", "list", "between"]))
    sign = draw(st.sampled_from(sorted(COMPARE)))
    number, of_number = draw(numbers())
    text, of_text = draw(st.sampled_from(TEXTS))
    if kind == "number":
        value = draw(st.sampled_from([-2.5, 0, 3, 20, 80]))
        return f"{number} {sign} {value}", _lifted(lambda a: COMPARE[sign](a, value), of_number)
    if kind == "between":
        return f"{number} BETWEEN 0 AND 20", _lifted(lambda a: 0 <= a <= 20, of_number)
    if kind == "null":
        return f"{text} IS NULL", lambda item: of_text(item) is None
    if kind == "flag":
        return "sale", _own("sale")
    word = draw(st.sampled_from(["Auralis", "Bodum", "Sofa", "it's a cup", ""]))
    quoted = "'" + word.replace("'", "''") + "'"
    if kind == "text":
        return f"{text} {sign} {quoted}", _lifted(lambda a: COMPARE[sign](a, word), of_text)
    if kind == "in":
        return f"{text} IN ({quoted}, 'Red lamp')", _lifted(lambda a: a in (word, "Red lamp"), of_text)
    if kind == "like":
        return f"{text} LIKE '%u%s'", _lifted(lambda a: re.fullmatch("(?s).*u.*s", a) is not None, of_text)
    return "'Home' IN categories", lambda item: "Home" in item.categories


def _and(one: Any, other: Any) -> Any:
    if one is False or other is False:
        return False
    return None if None in (one, other) else True


def _or(one: Any, other: Any) -> Any:
    if one is True or other is True:
        return True
    return None if None in (one, other) else False


def _joined(children: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    def negated(term: Term) -> Term:
        return f"NOT ({term[0]})", _lifted(lambda a: not a, term[1])

    def joined(word: str, one: Term, other: Term) -> Term:
        join = _and if word == "AND" else _or
        return f"({one[0]} {word} {other[0]})", lambda item: join(one[1](item), other[1](item))

    return children.map(negated) | st.builds(joined, st.sampled_from(["AND", "OR"]), children, children)


@settings(max_examples=400, deadline=None)
@given(condition=st.recursive(comparisons(), _joined, max_leaves=6))
def test_a_mask_is_the_condition_row_by_row(condition: Term) -> None:
    text, row = condition
    expected = "".join(item.item_id for item in ITEMS if row(item) is True)
    try:
        assert holds(text) == expected, text
    except RequestError as error:
        assert "levels deep" in error.message  # noqa: PT017


WORDS = (
    *("price", "brand", "sale", "categories", "now", "stock", "'x'", "1", "-1", "(", ")", ",", "=", "<", "AND", "OR"),
    *("NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN", "+", "/", "lower(", "coalesce(", "DATE", "'2026-01-01'"),
    *("INTERVAL", "'1 day'", "user.bought", "context.a"),
)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=60)
    | st.lists(
        st.sampled_from(WORDS),
        max_size=14,
    ).map(" ".join)
)
def test_any_text_is_a_mask_or_a_refusal(text: str) -> None:
    try:
        assert set(holds(text)) <= {item.item_id for item in ITEMS}
    except RequestError as error:
        assert error.code == "condition.invalid"  # noqa: PT017
