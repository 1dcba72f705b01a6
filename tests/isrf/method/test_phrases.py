"""Phrases of texts: where runs end, what a group shares, and that no word is invented."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isrf.method.text.phrases import PhraseTable, background, common_phrases, phrases, without_overlap

TEXTS = st.lists(st.text("ab ,.&'-\u00df1", max_size=40), max_size=8)


def test_phrases_end_at_punctuation_and_numbers_and_lean_on_no_stop_word() -> None:
    found = phrases("Nail polish, top and base coats under $30 from L'Oreal")
    assert {"nail", "polish", "nail polish", "top and base coats", "base coats", "l'oreal"} <= found
    assert not {"polish top", "top and", "and base", "from l'oreal", "30", "coats under"} & found


def test_a_phrase_has_four_words_at_most() -> None:
    assert max(len(phrase.split()) for phrase in phrases("one two three four five six seven")) == 4


def group(*texts: str, at_least: int = 2) -> PhraseTable:
    general = background([*texts, *["shoppers look for socks"] * 20, *["shoppers look for hats"] * 20])
    return PhraseTable([phrases(text) for text in texts], general, at_least=at_least)


def test_a_group_is_told_by_what_sets_it_apart() -> None:
    table = group("shoppers look for nail polish", "nail polish for shoppers", "shoppers look for tents")
    assert table.shared(limit=3) == ["nail polish"], "everybody is a shopper, and one alone looks for tents"
    members = np.array([True, False, True])
    assert table.shared(members, limit=3) == [], "these two share nothing"
    assert table.shared(np.array([True, False, False]), limit=3) == [], "one is no group"


def test_a_part_of_a_longer_phrase_is_not_told_for_itself() -> None:
    texts = ["nail art equipment"] * 3
    assert group(*texts).shared(limit=3) == ["nail art equipment"]


@given(TEXTS, st.integers(1, 3))
def test_no_word_is_invented(texts: list[str], at_least: int) -> None:
    told = group(*texts, at_least=at_least).shared(limit=4)
    assert len(told) <= 4
    for phrase in told:
        assert sum(phrase in phrases(text) for text in texts) >= at_least


@given(TEXTS)
def test_what_two_texts_share_stands_in_both(texts: list[str]) -> None:
    one, other = ([*texts, "", ""])[:2]
    for phrase in common_phrases(phrases(one), phrases(other), background(texts), limit=2):
        assert phrase in phrases(one)
        assert phrase in phrases(other)


def test_what_everything_says_is_not_common_to_two() -> None:
    texts = ["often bought tents: wool", "often bought hats: wool", *["often bought socks"] * 30]
    assert common_phrases(phrases(texts[0]), phrases(texts[1]), background(texts), limit=3) == ["wool"]


def test_phrases_that_share_a_word_are_one() -> None:
    assert without_overlap(["nail polish", "polish", "top coats", "coats and nails"], limit=3) == [
        "nail polish",
        "top coats",
    ]
