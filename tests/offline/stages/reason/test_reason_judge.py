"""An answer that only repeats, or refuses, is no answer; one that reasons from the data is."""

from typing import Any

import pytest

from offline.stages.reason.llm.judge import complaint_about, sources_of
from offline.stages.reason.llm.prompting import load_prompt
from offline.stages.reason.schemas import ItemFeature, ItemNegative, ItemPositive, Step, UserCore, UserLikes

ITEM = {
    "title": "Moroccan Argan Oil Shampoo for Dry Hair, 500 ml",
    "brand": "Giovanni",
    "categories": "Beauty > Hair Care > Shampoos",
    "description": "Nourishes dry and damaged hair with organic argan oil, without sulfates.",
}
POSITIVE = "People with dry, damaged or coloured hair who want shine without sulfates, and who pay for organic oils."
TAKEN = [{"title": ITEM["title"], "interest": "Gentle repair of dry hair with plant oils"}]


def complaint(prompt: str, step: Step, **values: Any) -> str:
    return complaint_about(step, sources_of(load_prompt(prompt).instructions, values))


def positive(text: str) -> str:
    return complaint("item_positive", ItemPositive(positive=text), item=ITEM)


@pytest.mark.parametrize(
    "text",
    [
        "who would enjoy this product",
        "Who would enjoy this product, and why, in at most 200 words of plain English.",
        "Product: Who would enjoy this product? Name concrete kinds of shoppers.",
        "  WHO would ENJOY this product ?!  ",
        "You reason from a product's attributes to the people behind a purchase: their needs, tastes, habits.",
    ],
)
def test_an_echo_of_the_question_is_refused(text: str) -> None:
    assert "repeated the question or the data" in positive(text)


@pytest.mark.parametrize(
    "text",
    [ITEM["title"], f"{ITEM['title']} by Giovanni", ITEM["description"], "Beauty > Hair Care > Shampoos"],
)
def test_a_copy_of_the_data_is_refused(text: str) -> None:
    assert "repeated the question or the data" in positive(text)


@pytest.mark.parametrize("text", ["Shampoo", "N/A", "women women women women", "positive: positive", "…", "人人"])
def test_fewer_than_three_words_are_refused(text: str) -> None:
    assert "fewer than 3 different words" in positive(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I am unable to tell who would enjoy it from this little data.",
        "As an AI language model, I do not have personal preferences.",
        "Unfortunately, I cannot answer this question for you.",
        "No information is given about the shoppers of this product.",
        "“I don’t know who this is meant for, to be honest.”",
    ],
)
def test_a_refusal_in_prose_is_refused(text: str) -> None:
    assert "was a refusal" in positive(text)


@pytest.mark.parametrize(
    "text",
    [
        POSITIVE,
        "Dry hair owners, fans of argan oil",
        "Shoppers who would enjoy this product are those with dry hair who avoid sulfates.",
        "Those who cannot stand perfume and do not have an hour for their hair.",
        "Information seekers who read labels before they buy.",
        "髪が乾燥している人",
    ],
)
def test_an_answer_from_the_data_is_accepted(text: str) -> None:
    assert positive(text) == ""


def test_a_later_step_may_keep_a_phrase_of_an_earlier_one() -> None:
    step = ItemFeature(
        feature="shine without sulfates for damaged or coloured hair", justification="Its organic oil is meant for it."
    )
    assert complaint("item_feature", step, item=ITEM, positive=POSITIVE, negative="Those who want volume.") == ""


def test_an_earlier_answer_once_more_is_refused() -> None:
    step = ItemNegative(negative=POSITIVE)
    assert "earlier answer" in complaint("item_negative", step, item=ITEM, positive=POSITIVE)


def test_every_field_is_judged() -> None:
    step = ItemFeature(feature="shine for thirsty hair", justification=POSITIVE)
    assert '"justification"' in complaint("item_feature", step, item=ITEM, positive=POSITIVE, negative="Nobody else.")


def test_data_inside_lists_is_data() -> None:
    assert complaint("user_likes", UserLikes(likes=TAKEN[0]["interest"]), items=TAKEN) != ""
    assert complaint("user_likes", UserLikes(likes="Plant oils that repair hair gently"), items=TAKEN) == ""
    core = UserCore(core="Wants plants to do the work, at any price")
    assert complaint("user_core", core, likes="Plant oils that repair hair gently", dislikes="Strong perfumes") == ""
