"""One reading of event types, whoever wrote them and however."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isrf.contract.event_types import STANDARD, EventVocabulary, plain, problem


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Purchase", "purchase"), (" PURCHASE\t", "purchase"), ("purchase\u00a0", "purchase"), ("view", "view"),
        (None, ""), ("", ""), ("  \u3000", ""), ("Add To Cart", "add to cart"),
        ("VİEW", "view"), ("vıew", "view"), ("DISLIKE", "dislike"), ("dıslıke", "dislike"), ("DİSLİKE", "dislike"),
        ("GRÖẞE", "grösse"), ("cafe\u0301", "café"), ("CAFÉ", "café"), ("ΟΔΟΣ", "οδοσ"), ("οδος", "οδοσ"),
        ("purchase\u200b", "purchase"), ("\ufeffPurchase", "purchase"), ("pur\u00adchase", "purchase"),
        ("ＰＵＲＣＨＡＳＥ", "purchase"), ("purchase \u200e", "purchase"), ("\u200b", ""), ("ﬁt", "fit"),
    ],
)  # fmt: skip
def test_a_type_has_one_spelling(written: str | None, expected: str) -> None:
    assert plain(written) == expected


@given(st.text(max_size=30))
def test_a_plain_type_is_its_own_spelling(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(unicodedata.normalize("NFD", text)) == plain(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("good", [None, "", " ", "view", "x" * 64, "ä" * 32, "nanny", "1"])
def test_types_that_are_taken(good: str | None) -> None:
    assert problem(good) is None


@pytest.mark.parametrize(
    "bad",
    [
        "x" * 65, "ä" * 33, "a\nb", "a\x7fb", "\ud800", "NaN", "nan ", "None", "NULL", "undefined", "\\N", "<NA>",
        "NA", "n/a", "#N/A", "nil", "(null)",
    ],
)  # fmt: skip
def test_types_that_are_refused(bad: str) -> None:
    assert problem(bad)


def vocabulary(**fields: Any) -> EventVocabulary:
    return EventVocabulary.model_validate(fields)


def test_a_shop_says_once_what_its_names_mean() -> None:
    ours = vocabulary(
        names={"Kauf": "purchase", "Ansicht": "view", "Daumen runter": "downvote", "weg": "remove"},
        exclude=["Subscribe"],
        dislike=["downvote"],
        remove=["refund"],
    )
    read = {name: ours.read(name) for name in ("KAUF", "ansicht", "daumen RUNTER", "Downvote", "weg", "Refund", "cart")}
    assert read == {
        "KAUF": "purchase", "ansicht": "view", "daumen RUNTER": "dislike", "Downvote": "dislike", "weg": "remove",
        "Refund": "remove", "cart": "cart",
    }  # fmt: skip
    assert all(ours.read(kind) == kind for kind in read.values()), "as an export is read again"
    assert ours.excluding == {"", "purchase", "subscribe"}
    assert STANDARD.read("Kauf") == "kauf"


def test_it_survives_its_own_json() -> None:
    ours = vocabulary(names={"Kauf": "purchase"}, exclude="b, A,b", dislike=["x"])
    assert EventVocabulary.model_validate_json(ours.model_dump_json()) == ours
    assert ours.exclude == ("a", "b")


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": {"purchase": "view"}},
        {"names": {"Kauf": "purchase", "kauf": "view"}},
        {"names": {"kauf": ""}},
        {"names": {"x" * 65: "view"}},
        {"names": {"a": "b", "b": "c"}},
        {"exclude": ["remove"]},
        {"exclude": ["history"]},
        {"exclude": ["cart"], "dislike": ["Cart"]},
        {"dislike": [7]},
        {"negative": ["x"]},
    ],
)
def test_what_has_two_meanings_or_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EventVocabulary.model_validate(wrong)


def test_an_event_weighs_what_its_type_weighs() -> None:
    ours = vocabulary(names={"Kauf": "purchase", "Blick": "view"}, weights={"BLICK": "0.1", "cart": 0.4, "purchase": 3})
    read = {name: ours.weight(ours.read(name)) for name in ("Blick", "View", "cart", "Kauf", "purchase", "", "wish")}
    assert read == {"Blick": 0.1, "View": 0.1, "cart": 0.4, "Kauf": 3, "purchase": 3, "": 3, "wish": 1}
    assert EventVocabulary.model_validate_json(ours.model_dump_json()) == ours
    assert ours.beside(frozenset({"cart"})).weight("cart") == 0.4
    assert vocabulary(weights={"view": 0}).weight("view") == 0
    assert STANDARD.weight("view") == STANDARD.weight("") == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"weights": {"view": -0.1}}, "0, or a number from 0.001 to 1000"),
        ({"weights": {"view": 1001}}, "0, or a number from 0.001 to 1000"),
        ({"weights": {"view": 0.0009}}, "0, or a number from 0.001 to 1000"),
        ({"weights": {"view": "nan"}}, "0, or a number from 0.001 to 1000"),
        ({"weights": {"view": float("inf")}}, "0, or a number from 0.001 to 1000"),
        ({"weights": {"view": True}}, "a weight is a number"),
        ({"weights": {"view": "much"}}, "valid number"),
        ({"weights": {"view": None}}, "valid number"),
        ({"weights": {"view": 0.1, "View": 0.1}}, "appears twice"),
        ({"weights": {"Kauf": 2, "purchase": 2}, "names": {"kauf": "purchase"}}, "'kauf' and 'purchase' both mean"),
        ({"weights": {"dislike": 0.5}}, "counts for nobody"),
        ({"weights": {"refund": 0.5}, "remove": ["refund"]}, "'refund' means remove"),
        ({"weights": {"": 0.5}}, "is empty"),
        ({"weights": {"null": 0.5}}, "missing value"),
        ({"weights": 0.5}, "dictionary"),
    ],
)
def test_a_weight_that_means_nothing_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EventVocabulary.model_validate(wrong)


def test_more_exclusions_stand_beside() -> None:
    ours = vocabulary(names={"Warenkorb": "cart"}, exclude=["wish"]).beside(frozenset({"warenkorb", "remove", "wish"}))
    assert ours.excluding == {"", "purchase", "cart", "wish"}
    assert STANDARD.excluding == {"", "purchase"}
    assert STANDARD.beside(frozenset({"cart"})).excluding == {"", "purchase", "cart"}
    assert ours.read("Warenkorb") == "cart"
