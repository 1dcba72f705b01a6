"""Names of a shop's own that may mean a field of ours: what is asked about, and never guessed."""

import shlex
from collections.abc import Collection, Mapping
from difflib import SequenceMatcher

from isrf.contract.event_types import HISTORY, EventVocabulary
from isrf.contract.item_fields import folded
from isrf.contract.shown import shown

LIKE = 0.8
"""Likeness of two spellings from which on one may be the other's slip."""

INTERACTION_NAMES: Mapping[str, Collection[str]] = {
    "user_id": (
        "user", "customer", "customer_id", "uid", "visitor", "visitor_id", "visitorid", "account_id", "client_id",
        "member_id", "buyer_id", "reviewer_id", "session_id", "u",
    ),
    "item_id": ("item", "product", "product_id", "sku", "asin", "article_id", "parent_asin", "i", "content_id"),
    "timestamp": (
        "time", "ts", "date", "datetime", "created_at", "event_time", "unix_time", "unixtime", "order_date", "t",
    ),
    "position": ("pos", "order", "seq", "sequence", "index", "rank"),
    "event": ("event_type", "event_name", "action", "type", "behavior", "behaviour", "interaction", "kind"),
    "weight": ("rating", "quantity", "qty", "score", "value", "stars"),
}  # fmt: skip

EVENT_NAMES: Mapping[str, Collection[str]] = {
    "purchase": (
        "buy", "bought", "order", "ordered", "transaction", "sale", "sold", "checkout", "paid", "payment", "conversion",
        "order_completed", "kauf", "bestellung", "achat", "compra",
    ),
    "dislike": ("thumbs_down", "downvote", "not_interested", "unlike", "block"),
    "remove": ("refund", "refunded", "return", "returned", "cancel", "cancelled", "canceled", "order_cancelled"),
}  # fmt: skip
"""What others call the types that do more than be history."""


def near_miss(name: str, missing: Collection[str], names: Mapping[str, Collection[str]]) -> str | None:
    """The missing field of ours that a name may mean, None where it is like none of them.

    Args:
        name: of the shop's.
        missing: fields of ours that nothing was given for.
        names: by field, what others call it.
    """
    spelt = folded(name)
    for field in names:
        if field in missing and (spelt == folded(field) or spelt in map(folded, names[field])):
            return field
    likeness = {
        field: SequenceMatcher(None, spelt, folded(field)).ratio() for field in names if field in missing and spelt
    }
    best = max(likeness, key=lambda field: likeness[field], default=None)
    return best if best is not None and likeness[best] >= LIKE else None


def suggestions(given: Collection[str], missing: Collection[str], names: Mapping[str, Collection[str]]) -> str:
    """`"customer" may be meant as user_id.`; empty where nothing is like anything."""
    found = {name: field for name in sorted(given) if (field := near_miss(name, missing, names)) is not None}
    return " ".join(f"{shown(name)} may be meant as {field}." for name, field in found.items())


def event_questions(counts: Mapping[str, int], vocabulary: EventVocabulary) -> list[str]:
    """Sentences on event types that are history alone and may mean more; empty where each has its meaning.

    Args:
        counts: rows by type, as the vocabulary reads them.
        vocabulary: a type that it names is not asked about.
    """
    named = {*EVENT_NAMES, HISTORY, *vocabulary.excluding, *vocabulary.names.values()}
    asked = {kind: near_miss(kind, EVENT_NAMES.keys(), EVENT_NAMES) for kind in sorted(counts) if kind not in named}
    return [
        f"{counts[kind]} rows have the event type {shown(kind)}, which is history and nothing more. If it is meant as "
        f"{meant}: --set {shlex.quote(f'events.names.{kind}={meant}')} (=history if not)"
        for kind, meant in asked.items()
        if meant is not None
    ]
