"""Purchases and refunds of a source of events: what stayed sold, whoever sent the refund, in whatever line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from offline.importers.importer import ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.sales import Owner, Refund, Sales
from tests.offline.importers.import_command import Imported, import_files, json_lines, write_file

ANN: Owner = ("ann", "s1")
Sold = tuple[str, str, str, float]  # who, what, event, pieces


def settled(bought: Sequence[tuple[str, str, float]], *refunds: Refund) -> tuple[list[Sold], str]:
    """What Ann's purchases (order, item, pieces) and these refunds leave, and the report."""
    report, sales = ImportReport([Path("events.jsonl")]), Sales()
    for refund in refunds[:1]:  # the order of lines does not matter
        sales.add_refund(refund)
    for line, (order, item_id, pieces) in enumerate(bought, 1):
        sales.add(order, ImportedEvent(line, item_id, 5.0, "purchase", *ANN, weight=pieces))
    for refund in refunds[1:]:
        sales.add_refund(refund)
    events = [(event.user_id, event.item_id, event.event, event.weight) for event in sales.settle(report)]
    return events, "; ".join(report.describe())


def test_a_purchase_that_came_back_leaves_earlier_ones_alone() -> None:
    bought = [("O1", "coffee", 1.0), ("O2", "coffee", 1.0), ("O2", "tea", 1.0)]
    events, said = settled(bought, Refund(9, "O2", 9.0, ANN, [("coffee", 1.0)]))
    assert events == [("ann", "coffee", "purchase", 1.0), ("ann", "tea", "purchase", 1.0)]
    assert said == "left out: 1 rows are purchases that came back (first: line 2)"


def test_pieces_that_came_back_count_together() -> None:
    bought = [("O1", "mug", 2.0), ("O1", "mug", 1.0)]
    one = Refund(9, "O1", 9.0, ANN, [("mug", 1.0)])
    assert settled(bought, one)[0] == [("ann", "mug", "purchase", 1.0), ("ann", "mug", "purchase", 1.0)]
    assert settled(bought, one, one)[0] == [("ann", "mug", "purchase", 1.0)]
    assert settled(bought, one, one, one)[0] == []
    assert settled(bought, Refund(9, "O1", 9.0, ANN, [("mug", 1.0), ("mug", 2.0)]))[0] == []


@pytest.mark.parametrize("owner", [ANN, ("", "s2"), ("", "")])
def test_who_sends_the_refund_of_a_known_order_does_not_matter(owner: Owner) -> None:
    bought = [("O1", "mug", 2.0), ("O1", "tea", 1.0), ("O2", "tea", 1.0)]
    assert settled(bought, Refund(9, "O1", 9.0, owner))[0] == [("ann", "tea", "purchase", 1.0)]
    assert settled(bought[:2], Refund(9, "O1", 9.0, owner, [("mug", 2.0)]))[0] == [("ann", "tea", "purchase", 1.0)]


def test_a_refund_of_what_was_bought_elsewhere_is_a_remove() -> None:
    refunds = [Refund(9, order, 9.0, ANN, [("cup", 1.0), ("tea", 1.0)]) for order in ("O0", "")]
    for refund in refunds:
        events, said = settled([("O1", "tea", 1.0)], refund)
        assert events == [("ann", "cup", "remove", 1.0), ("ann", "tea", "purchase", 1.0)]
        assert said == "left out: 1 rows are refunds of an unknown order, of what its buyer also bought (first: line 9)"


@pytest.mark.parametrize(
    ("refund", "said"),
    [
        (Refund(9, "O0", 9.0, ANN), "are refunds of an order that the files do not have"),
        (Refund(9, "O0", 9.0, ("", ""), [("cup", 1.0)]), "are events without a user and without a session"),
        (Refund(9, "O1", 9.0, ANN, [("cup", 1.0)]), "are refunds of an item that their order does not have"),
    ],
)
def test_a_refund_of_nothing_that_is_known_is_counted(refund: Refund, said: str) -> None:
    events, report = settled([("O1", "tea", 1.0)], refund)
    assert events == [("ann", "tea", "purchase", 1.0)]
    assert report == f"left out: 1 rows {said} (first: line 9)"


def imported_of(source: str, folder: Path, *rows: dict[str, Any]) -> Imported:
    return import_files(source, [write_file(folder / "rows.jsonl", json_lines(*rows))], folder / source)


def test_a_guests_refund_in_another_session_finds_the_purchase(tmp_path: Path) -> None:
    def row(session: int, name: str, *, transaction: str = "T1") -> dict[str, Any]:
        parameters = [
            {"key": "ga_session_id", "value": {"int_value": f"{session}"}},
            {"key": "transaction_id", "value": {"string_value": transaction}},
        ]
        about = {"event_name": name, "event_timestamp": "1759823426000000", "user_pseudo_id": "1.1"}
        items = [{"item_id": "mug"}] if name != "refund" or transaction == "T1" else []
        return about | {"event_params": parameters, "items": items, "ecommerce": {"transaction_id": "(not set)"}}

    unknown = [row(number, name, transaction="(not set)") for number, name in ((5, "purchase"), (6, "refund"))]
    imported = imported_of("ga4", tmp_path, row(8, "refund"), row(7, "purchase"), *unknown)
    assert [(event[3], event[5]) for event in imported.events] == [("purchase", "1.1.5")]
    assert "1 rows are purchases that came back (first: line 2)" in imported.said
    assert "1 rows are refunds of an order that the files do not have (first: line 4)" in imported.said


def test_a_refund_before_its_order_finds_it(tmp_path: Path) -> None:
    def call(event: str, **properties: Any) -> dict[str, Any]:
        about = {"event": event, "timestamp": "2025-10-07T07:50:26.5Z", "anonymousId": event}
        return about | {"properties": {"order_id": "O1"} | properties}

    mug = {"product_id": "mug", "quantity": 3}
    bought = call("Order Completed", products=[mug, {"product_id": "tea"}])
    partly = [call("Order Refunded", products=[{"product_id": "mug"}, {"product_id": "tea"}]), bought]
    imported = imported_of("segment", tmp_path, *partly)
    assert [event[1:5] for event in imported.events] == [("mug", "1759823426.5", "purchase", "2")]
    nameless = call("Order Refunded", products=[{"name": "Mug"}])
    other = call("Product Viewed", product_id="cup")
    imported = imported_of("segment", tmp_path / "2", call("Order Cancelled"), bought, other)
    assert [event[1] for event in imported.events] == ["cup"]
    kept = imported_of("segment", tmp_path / "3", nameless, bought)
    assert [event[1] for event in kept.events] == ["mug", "tea"]
