"""What a group has in common is what several of its people have, however loud one of them is."""

from service.release.catalogue import LEAST_USERS, ItemLine
from service.release.wording import group_words, words


def item(item_id: str, *categories: str) -> ItemLine:
    return ItemLine(item_id=item_id, categories=list(categories))


CUP, POT, TENT = item("cup", "Kitchen"), item("pot", "Kitchen", "Steel"), item("tent", "Camping")


def test_words_that_several_people_share_are_told_those_of_most_first() -> None:
    people = [[CUP, POT], [POT], [CUP, TENT], [TENT], [TENT], [TENT]]
    assert group_words(people, limit=9) == [{"words": "Camping", "items": 4}, {"words": "Kitchen", "items": 4}]
    assert group_words(people, limit=1) == [{"words": "Camping", "items": 4}]


def test_what_fewer_than_three_people_have_is_told_of_nobody() -> None:
    loud = [item(f"sofa {k}", "Sofas") for k in range(500)]
    assert LEAST_USERS == 3
    assert group_words([loud, loud[:1], [CUP], [CUP], [CUP]], limit=9) == [{"words": "Kitchen", "items": 3}]
    assert group_words([loud], limit=9) == []


def test_words_of_one_history_count_its_items() -> None:
    assert words([CUP, POT, TENT], limit=2) == [{"words": "Kitchen", "items": 2}, {"words": "Camping", "items": 1}]
