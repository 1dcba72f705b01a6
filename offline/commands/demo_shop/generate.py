"""Generates an invented shop from a seed, for the demo and for tests that need the true interests.

`generate(directory, seed=0)` writes `interactions.csv` and `items.jsonl` in the format of the data contract (about 600
products, 2,000 shoppers, a year). It returns the planted interests. No file holds them unless a caller calls
`write_truth`, so the offline job cannot read them by accident.
"""

import csv
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

from isrf.contract.errors import DataError
from isrf.runtime.files import write_file
from offline.commands.demo_shop.catalogue import Product, make_products
from offline.commands.demo_shop.groups import GROUPS
from offline.commands.demo_shop.shoppers import DemoEvent, DemoShop, PlantedInterest

NUM_SHOPPERS = 2000
_INTERACTIONS, _ITEMS, _NOTE = "interactions.csv", "items.jsonl", "README.txt"


def generate(directory: Path, *, seed: int = 0, num_shoppers: int = NUM_SHOPPERS) -> tuple[PlantedInterest, ...]:
    """Writes the shop's two files and a note; equal seeds give equal bytes.

    Returns:
        The planted interest of every shopper, sorted by user_id.

    Raises:
        DataError: `data.not_the_demo_shop` if the folder holds other data.
    """
    rng = random.Random(seed)  # noqa: S311 - an invented shop, no secret
    products = make_products(rng)
    shop = DemoShop(products, rng)
    numbers = rng.sample(range(1, num_shoppers + 1), num_shoppers)  # so that a user_id does not reveal the group
    visits = [shop.visit(f"shopper-{number:04d}", GROUPS[index % len(GROUPS)]) for index, number in enumerate(numbers)]
    _refuse_foreign(directory)
    directory.mkdir(parents=True, exist_ok=True)
    note = f"Invented data, written by offline.commands.demo_shop.generate.generate(seed={seed}). Safe to delete.\n"
    write_file(directory / _NOTE, note.encode())
    write_file(directory / _ITEMS, _items_text(rng.sample(products, len(products))).encode())
    write_file(
        directory / _INTERACTIONS, _interactions_text([event for events, _ in visits for event in events]).encode()
    )
    return tuple(sorted(planted for _, planted in visits))


def write_truth(path: Path, planted: Sequence[PlantedInterest]) -> None:
    """Writes the planted interests as a JSON list, for tests and studies; use a path outside the shop's folder."""
    text = json.dumps([record._asdict() for record in planted], indent=1)
    write_file(path, f"{text}\n".encode())


def _refuse_foreign(directory: Path) -> None:
    if any((directory / name).exists() for name in (_INTERACTIONS, _ITEMS)) and not (directory / _NOTE).exists():
        raise DataError(
            "data.not_the_demo_shop",
            f"{directory} already holds {_INTERACTIONS} or {_ITEMS} that the demo shop did not write.",
            fix="Choose an empty folder for the demo shop.",
        )


def _items_text(products: Sequence[Product]) -> str:
    return "".join(
        json.dumps(
            {
                "item_id": product.item_id,
                "title": product.title,
                "brand": product.brand,
                "categories": list(product.categories),
                "description": product.description,
                "price": product.price,
            },
            ensure_ascii=False,
        )
        + "\n"
        for product in products
    )


def _interactions_text(events: Sequence[DemoEvent]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user_id", "item_id", "timestamp", "event"))
    writer.writerows((e.user_id, e.item_id, e.timestamp, e.event) for e in sorted(events))
    return text.getvalue()
