"""Measures conditions on items: building the columns, a condition's first and later masks, and a change of items.

    python benchmarks/conditions.py [--items 12000] [--items 1000000]

Random items have five attributes of five types. It measures, for each number of items
    build_s        seconds to build all columns at their first use
    read_us        µs an item to read a line of `items.jsonl`
    first_ms       ms to compile and evaluate each condition at its first use: the best of `TIMES` compilations
    cached_us      µs of the same condition afterwards
    change_ms      ms to follow a change of ten items' prices and stock, with the columns built
The machine's other work counts. Prints the machine and one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import orjson
from machine import machine

from service.release.catalogue import Catalogue, ItemLine, read_item
from service.release.conditions import ConditionMasks, RequestValues, compile_condition

TIMES = 9
CONDITIONS = {
    "price": "price < 80",
    "two": "brand = 'Brand 7' AND price < 80",
    "in": "colour IN ('red', 'blue') AND NOT sale",
    "list": "'Category 3' IN categories",
    "time": "released > now - INTERVAL '90 days'",
    "user": "NOT user.bought AND stock > 0",
    "like": "title ILIKE '%lamp%'",
    "regex": "title ~ 'lamp (4|5)'",
    "ten": "(price BETWEEN 10 AND 90 OR price IS NULL) AND stock > 3 AND colour <> 'red' AND NOT sale AND brand IN "
    "('Brand 1', 'Brand 2', 'Brand 3') AND stock * 2 < 50 AND released > '2026-01-01' AND available",
}
VALUES = RequestValues(now_s=1_780_000_000.0, bought=frozenset(range(0, 200, 2)))


def lines(num_items: int) -> list[bytes]:
    """Returns lines of `items.jsonl`."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, 1000, (num_items, 4)).tolist()
    colours = ("red", "blue", "green", "black")
    return [
        orjson.dumps(
            {
                "item_id": f"item-{row}",
                "title": f"A lamp {price} for the table {row}",
                "brand": f"Brand {brand % 50}",
                "categories": ["Home", f"Category {category % 30}"],
                "price": float(price) / 4,
                "metadata": {
                    "stock": stock % 40,
                    "colour": colours[brand % 4],
                    "sale": stock % 5 == 0,
                    "tags": ["new"] if price % 3 else [],
                    "released": f"202{price % 7}-0{brand % 9 + 1}-1{stock % 10}",
                },
            }
        )
        for row, (price, brand, category, stock) in enumerate(drawn)
    ]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(num_items: int) -> dict[str, object]:
    """Returns the figures for a catalogue of so many items."""
    items: list[ItemLine] = []
    source = lines(num_items)
    read_s = seconds(lambda: items.extend(map(read_item, source)))
    catalogue = Catalogue.of(items, np.zeros(num_items, dtype=np.float32))
    build_s = seconds(catalogue.attributes.table)
    table = catalogue.attributes.table()
    compile_condition("price < 1", table.types).mask(table, VALUES)
    first_ms, cached_us = {}, {}
    for name, text in CONDITIONS.items():
        times = []
        for _ in range(TIMES):
            masks = ConditionMasks(catalogue.attributes)
            times.append(seconds(lambda masks=masks, text=text: masks.mask(text, VALUES)))  # type: ignore[misc]
        first_ms[name] = round(min(times) * 1e3, 3)
        cached_us[name] = round(min(seconds(lambda: masks.find(text, VALUES)) for _ in range(TIMES)) * 1e6, 1)  # noqa: B023
    changed = {
        f"item-{row}": items[row].model_copy(update={"price": 1.0, "own_json": b'{"stock":1}'}) for row in range(10)
    }
    after = catalogue.with_items(changed, "1")
    return {
        "items": num_items,
        "read_us": round(read_s / num_items * 1e6, 2),
        "build_s": round(build_s, 3),
        "first_ms": first_ms,
        "cached_us": cached_us,
        "change_ms": round(seconds(after.attributes.table) * 1e3, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, action="append")
    chosen = parser.parse_args()
    found = [measured(num_items) for num_items in chosen.items or [12_000, 1_000_000]]
    print(json.dumps({"machine": machine(), "catalogues": found}))


if __name__ == "__main__":
    main()
