"""What a shop said and what a release says: which of the two stands, and when the former may be forgotten."""

import json
from typing import Any

import pytest

from isrf.contract.item_changes import FieldValue
from isrf.contract.item_fields import FieldError
from service.release.catalogue import ItemLine, read_item
from service.release.item_changes import changed_line, is_learned

UNTIL = 100.0


def line_of(**fields: Any) -> ItemLine:
    return read_item(json.dumps({"item_id": "cup", "title": "Cup", "categories": ["Kitchen"], **fields}).encode())


def entry_of(at: float, **fields: Any) -> dict[str, FieldValue]:
    return {name: FieldValue(value, at) for name, value in fields.items()}


def test_what_was_said_later_stands() -> None:
    line = changed_line("cup", entry_of(101.0, title="Mug", categories=None, price=3.0), line_of(), UNTIL)
    assert (line.title, line.categories, line.price, line.offered) == ("Mug", [], 3.0, True)


def test_what_was_said_before_stands_where_the_release_is_silent() -> None:
    line = changed_line("cup", entry_of(99.0, title="Mug", price=3.0, available=False), line_of(), UNTIL)
    assert (line.title, line.price, line.offered) == ("Cup", 3.0, False)
    spoken = line_of(metadata={"available": True, "colour": "red"})
    assert changed_line("cup", entry_of(99.0, available=False, hidden=True), spoken, UNTIL).available


def test_a_new_release_may_have_other_groups() -> None:
    moved, removed = (entry_of(99.0, group_id=group) for group in ("mug", None))
    for entry in (moved, removed):
        assert changed_line("cup", entry, line_of(group_id="cups"), UNTIL).group_id == "cups"
        assert is_learned(entry, line_of(group_id="cups"), UNTIL)
    assert changed_line("cup", moved, line_of(), UNTIL).group_id == "mug", "the release says nothing of it"
    later = entry_of(101.0, group_id=None)
    assert changed_line("cup", later, line_of(group_id="cups"), UNTIL).group_id is None
    assert not is_learned(later, line_of(group_id="cups"), UNTIL)
    assert is_learned(later, line_of(), UNTIL)


def test_a_release_can_say_itself_that_an_item_is_not_available() -> None:
    assert not line_of(metadata={"available": False}).offered
    assert not line_of(metadata={"hidden": True}).offered
    with pytest.raises(FieldError, match='"no idea" is not understood'):
        line_of(metadata={"available": "no idea"})
    with pytest.raises(FieldError, match="1 is not understood"):
        line_of(metadata={"hidden": 1})
    assert changed_line("cup", entry_of(101.0, available=True), line_of(metadata={"available": False}), UNTIL).offered


def test_an_item_that_no_release_has_is_what_was_said() -> None:
    line = changed_line("new", entry_of(1.0, title="New", hidden=False), None, UNTIL)
    assert (line.item_id, line.title, line.offered) == ("new", "New", True)


@pytest.mark.parametrize(
    ("entry", "line", "learned"),
    [
        (entry_of(101.0, title="Cup", categories=["Kitchen"], hidden=False, available=True), line_of(), True),
        (entry_of(101.0, title="Mug"), line_of(), False),
        (entry_of(99.0, title="Mug"), line_of(), True),
        (entry_of(101.0, description="So blue."), line_of(), False),
        (entry_of(99.0, description="So blue."), line_of(), True),
        (entry_of(99.0, hidden=True), line_of(), False),
        (entry_of(101.0, hidden=True), line_of(metadata={"hidden": True}), True),
        (entry_of(101.0, available=False), line_of(metadata={"available": False}), True),
        (entry_of(99.0, title="New"), None, False),
        (entry_of(99.0, title="New", hidden=True), None, True),
        (entry_of(101.0, hidden=True), None, False),
    ],
)
def test_learned_is_what_the_release_says_too(
    entry: dict[str, FieldValue], line: ItemLine | None, learned: bool
) -> None:
    assert is_learned(entry, line, UNTIL) is learned
    if learned and line is not None:
        assert changed_line("cup", entry, line, UNTIL) == line
