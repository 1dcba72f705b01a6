"""Finds a shop's own names that may mean one of our fields. The program only asks about them, it never guesses."""

import shlex
from collections.abc import Collection, Mapping
from difflib import SequenceMatcher

from isrf.contract.event_types import HISTORY, EventVocabulary
from isrf.contract.item_fields import folded
from isrf.contract.shown import shown

MIN_SIMILARITY = 0.8
"""Two spellings with at least this similarity may be the same name with a typing error."""

INTERACTION_NAMES: Mapping[str, Collection[str]] = {
    "user_id": (
        "user", "customer", "customer_id", "uid", "visitor", "visitor_id", "visitorid", "account_id", "client_id",
        "member_id", "buyer_id", "reviewer_id", "session_id", "u", "user_pseudo_id", "email", "customer_email",
        "id_customer", "customer_number", "contact_email", "order_customer_email", "buyer", "buyer_user_id",
        "kunde", "kundennummer", "kunden_nr", "client", "id_client", "cliente", "id_cliente",
    ),
    "item_id": (
        "item", "product", "product_id", "sku", "asin", "article_id", "parent_asin", "i", "content_id", "stock_code",
        "lineitem_sku", "variant_id", "movie_id", "id_product", "product_number", "product_reference", "product_code",
        "listing_id", "item_sku", "product_sku", "artikelnummer", "artikel_nr", "artikel", "produktnummer",
        "id_produit", "id_producto",
    ),
    "timestamp": (
        "time", "ts", "date", "datetime", "created_at", "event_time", "unix_time", "unixtime", "order_date", "t",
        "invoice_date", "event_timestamp", "date_add", "date_created", "order_date_time", "order_time",
        "order_created_at", "purchase_date", "sale_date", "date_paid", "paid_at", "bestelldatum", "datum",
        "date_commande", "fecha",
    ),
    "position": ("pos", "order", "seq", "sequence", "index", "rank"),
    "event": ("event_type", "event_name", "action", "type", "behavior", "behaviour", "interaction", "kind"),
    "weight": (
        "rating", "quantity", "qty", "score", "value", "stars", "lineitem_quantity", "product_quantity",
        "item_quantity", "qty_ordered", "menge", "anzahl", "quantite", "cantidad",
    ),
    "session_id": ("session", "sid", "user_session", "ga_session_id", "visit_id"),
}  # fmt: skip

EVENT_NAMES: Mapping[str, Collection[str]] = {
    "purchase": (
        "buy", "bought", "order", "ordered", "transaction", "sale", "sold", "checkout", "paid", "payment", "conversion",
        "order_completed", "kauf", "bestellung", "achat", "compra",
    ),
    "dislike": ("thumbs_down", "downvote", "not_interested", "unlike", "block"),
    "remove": ("refund", "refunded", "return", "returned", "cancel", "cancelled", "canceled", "order_cancelled"),
}  # fmt: skip
"""Other names for the event types that have an effect beyond history."""


def near_miss(name: str, missing: Collection[str], names: Mapping[str, Collection[str]]) -> str | None:
    """The missing field that a shop's name may mean; None where it resembles none.

    Args:
        name: the shop's name.
        missing: our fields that the shop's data lacks.
        names: other names for each of our fields.
    """
    plain = folded(name)
    for field in names:
        if field in missing and (plain == folded(field) or plain in map(folded, names[field])):
            return field
    similarity = {
        field: SequenceMatcher(None, plain, folded(field)).ratio() for field in names if field in missing and plain
    }
    best = max(similarity, key=lambda field: similarity[field], default=None)
    return best if best is not None and similarity[best] >= MIN_SIMILARITY else None


def option(ours: str, theirs: str) -> str:
    """The option that names a column, as a shell takes it: `--column user_id=customer`."""
    return f"--column {shlex.quote(f'{ours}={theirs}')}"


def suggestions(present: Collection[str], missing: Collection[str], names: Mapping[str, Collection[str]]) -> str:
    """Sentences such as `"customer" may be meant as user_id: --column user_id=customer.`; empty without a near miss."""
    matches = {name: field for name in sorted(present) if (field := near_miss(name, missing, names)) is not None}
    return " ".join(f"{shown(name)} may be meant as {field}: {option(field, name)}." for name, field in matches.items())


def event_questions(counts: Mapping[str, int], vocabulary: EventVocabulary) -> list[str]:
    """Sentences on event types that count as history only but may mean more; empty where there are none.

    Args:
        counts: rows by type, as the vocabulary reads them.
        vocabulary: types that it names need no question.
    """
    known = {*EVENT_NAMES, HISTORY, *vocabulary.excluding, *vocabulary.names.values()}
    meanings = {kind: near_miss(kind, EVENT_NAMES.keys(), EVENT_NAMES) for kind in sorted(counts) if kind not in known}
    return [
        f"{counts[kind]} rows have the event type {shown(kind)}, which counts as history only. If it means "
        f"{meaning}: --set {shlex.quote(f'events.names.{kind}={meaning}')} (=history if not)"
        for kind, meaning in meanings.items()
        if meaning is not None
    ]
