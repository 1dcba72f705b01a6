"""Purchases and refunds of a source of events, which may name one order in any of its files, in any order of lines.

It keeps every purchase in memory until the end of the files.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from offline.importers.importer import ImportedEvent
from offline.importers.report import CAME_BACK, ImportReport

_NO_PIECES = 1e-9
Owner = tuple[str, str]
"""The ids of a user and of a session, "" where there are none."""


Found = Sequence[tuple[str, float]]
"""Items, and the pieces of each."""
_NOBODY = "are events without a user and without a session"


class Refund(NamedTuple):
    """What a refund says.

    Attributes:
        line: where it stands.
        order: the shop's number of the order; "" where it names none.
        timestamp: seconds since 1970.
        owner: who sent it; mostly, not always, who bought.
        pieces: items, and the pieces of each that came back; empty for the whole order.
    """

    line: int
    order: str
    timestamp: float
    owner: Owner
    pieces: Found = ()


class Sales:
    """Collects purchases and refunds, and says at the end what stayed sold."""

    def __init__(self) -> None:
        self._bought: dict[str, dict[str, list[ImportedEvent]]] = {}  # order → item_id → its purchases
        self._buyers: set[tuple[Owner, str]] = set()
        self._refunds: list[Refund] = []

    def take(
        self, line: int, order: str, moment: float, owner: Owner, kind: str, found: Found, report: ImportReport
    ) -> Iterator[ImportedEvent]:
        """Adds the purchases or the refund of a record, and yields its events of every other type.

        Args:
            kind: their type; `remove` for a refund.
            found: items and the pieces of each; empty for a refund of the whole order.
        """
        if kind == "remove":
            self.add_refund(Refund(line, order, moment, owner, found))
            return
        if owner == ("", ""):
            report.leave_out(_NOBODY, line)
            return
        for item_id, weight in found:
            event = ImportedEvent(line, item_id, moment, kind, *owner, weight=weight)
            if kind == "purchase":
                self.add(order, event)
            else:
                yield event

    def add(self, order: str, purchase: ImportedEvent) -> None:
        """Takes the purchase of an item; `order` is "" where the event names none."""
        self._bought.setdefault(order, {}).setdefault(purchase.item_id, []).append(purchase)
        self._buyers.add((_history(purchase.user_id, purchase.session_id), purchase.item_id))

    def add_refund(self, refund: Refund) -> None:
        self._refunds.append(refund)

    def settle(self, report: ImportReport) -> Iterator[ImportedEvent]:
        """Yields the purchases that stayed, less the pieces that came back, and `remove` of what was bought elsewhere.

        A purchase that came back as a whole yields nothing: a `remove` would take back earlier purchases too.
        """
        returned: dict[tuple[str, str], float] = {}  # order, item_id → pieces
        for refund in self._refunds:
            if refund.order and refund.order in self._bought:
                self._count(refund, returned, report)
            else:
                yield from self._removes(refund, report)
        for order, items in self._bought.items():
            for item_id, purchases in items.items():
                yield from _less(purchases, returned.get((order, item_id), 0.0), report)

    def _count(self, refund: Refund, returned: dict[tuple[str, str], float], report: ImportReport) -> None:
        """Adds the pieces of a refund whose order the files have; who sent it does not matter."""
        bought = self._bought[refund.order]
        for item_id, pieces in refund.pieces or [(item_id, math.inf) for item_id in bought]:
            if item_id not in bought:
                report.leave_out("are refunds of an item that their order does not have", refund.line)
            returned[refund.order, item_id] = returned.get((refund.order, item_id), 0.0) + pieces

    def _removes(self, refund: Refund, report: ImportReport) -> Iterator[ImportedEvent]:
        if not refund.pieces:
            report.leave_out("are refunds of an order that the files do not have", refund.line)
        elif refund.owner == ("", ""):
            report.leave_out(_NOBODY, refund.line)
        else:
            for item_id, _ in refund.pieces:
                if (_history(*refund.owner), item_id) in self._buyers:
                    report.leave_out("are refunds of an unknown order, of what its buyer also bought", refund.line)
                else:
                    yield ImportedEvent(refund.line, item_id, refund.timestamp, "remove", *refund.owner)


def _history(user_id: str, session_id: str) -> Owner:
    """Whose history an event belongs to: the user's, or the session's where there is no user."""
    return user_id, "" if user_id else session_id


def _less(purchases: list[ImportedEvent], returned: float, report: ImportReport) -> Iterator[ImportedEvent]:
    for purchase in purchases:
        back = min(returned, purchase.weight)
        returned -= back
        stayed = purchase.weight - back
        if stayed < _NO_PIECES:
            report.leave_out(CAME_BACK, purchase.line)
        else:
            yield purchase._replace(weight=stayed)
