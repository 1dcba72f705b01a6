"""What shops call the fields of an item, where they do not call them as we do: asked about, and never guessed. Pure."""

import re
from collections.abc import Collection, Mapping

ITEM_NAMES: Mapping[str, Collection[str]] = {
    "item_id": ("id", "sku", "product_id", "article_id", "product", "item", "asin", "parent_asin", "handle", "code"),
    "title": ("name", "product_name", "item_name", "product_title", "item_title", "label", "headline"),
    "brand": ("manufacturer", "vendor", "maker", "brand_name", "producer", "label_name"),
    "categories": (
        "category", "product_type", "product_category", "category_path", "category_name", "item_type", "type", "tags",
        "breadcrumb", "breadcrumbs", "google_product_category", "main_category", "department", "genres",
    ),
    "description": ("desc", "body", "body_html", "summary", "long_description", "short_description", "text", "details"),
    "price": ("cost", "amount", "unit_price", "sale_price", "regular_price", "list_price", "price_usd", "price_eur"),
    "available": ("in_stock", "availability", "stock", "is_available", "active", "enabled", "status", "published"),
}  # fmt: skip


def folded(name: str) -> str:
    """A name as it is compared: small letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


_FIELDS = {folded(name): field for field, names in ITEM_NAMES.items() for name in (field, *names)}
_LONGEST = max(map(len, (name for names in ITEM_NAMES.values() for name in names))) + 8
"""Characters of a name that is worth looking at."""


def meant_field(name: str) -> str | None:
    """The field of ours that a shop's name for it is known to mean, None for a name of its own."""
    return _FIELDS.get(folded(name)) if len(name) <= _LONGEST else None
