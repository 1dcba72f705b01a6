"""Builds English phrases: lists, category names, price tiers and round price limits (text in, text out)."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TIERS = ("budget", "mid-priced", "premium")
TIER_QUANTILES = (0.3, 0.75)
MIN_PRICED_SIBLINGS = 20
"""A category with fewer prices is compared with its parent category's prices instead."""

ROUND_PRICES = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
MOSTLY = 0.75


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Joins words into a list such as `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def sentence(text: str) -> str:
    """Returns the text with an upper-case first letter and a full stop at the end."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def lower_words(text: str) -> str:
    """Returns the text in lower case, except words that are all capitals (`UV`, `LED`)."""
    words = (word if len(word) > 1 and word.isupper() else word.lower() for word in text.split())
    return " ".join(words).replace(" & ", " and ")


def singular(word: str) -> str:
    """Returns the singular of an English plural; a few rules, good enough for a word before a noun."""
    if word.endswith(("shes", "ches", "xes", "sses")):
        return word.removesuffix("es")
    return word.removesuffix("s") if len(word) > 3 and not word.endswith(("ss", "us", "'s")) else word


def name_categories(paths: Sequence[tuple[str, ...]], *, fitted: Sequence[bool]) -> list[str]:
    """Returns a readable name of every item's category; empty without a category.

    The name is the last part of the path. The parent is added where the last part alone says too little:
    `women's fragrance`, `face cleansers` (Body has cleansers too), `eye makeup` (Eyes has several parents and is
    itself divided). The paths of the fitted items and the item's own path (both of `paths`, (N,)) decide this.
    """
    parents: defaultdict[str, set[str]] = defaultdict(set)
    divided: set[tuple[str, ...]] = set()
    for path in {path for path, known in zip(paths, fitted, strict=True) if known}:
        for depth in range(1, len(path)):
            parents[path[depth]].add(path[depth - 1])
            divided.add(path[:depth])
    names = {
        path: _name_category(path, ambiguous=bool(parents[path[-1]] - {*path[-2:-1]}), divided=path in divided)
        if path
        else ""
        for path in set(paths)
    }
    return [names[path] for path in paths]


def _name_category(path: tuple[str, ...], *, ambiguous: bool, divided: bool) -> str:
    leaf = lower_words(path[-1])
    if len(path) < 3:
        return leaf
    parent = lower_words(path[-2])
    if leaf.endswith(("'s", "s'")):
        return f"{leaf} {parent}"
    if not ambiguous:
        return leaf
    if {singular(word) for word in leaf.split()} & {singular(word) for word in parent.split()}:
        return leaf if " " in leaf or leaf.endswith("s") else parent
    if divided and len(path) == 3:  # an area of a department rather than a kind of product
        return f"{singular(leaf)} {parent}"
    return leaf if " and " in parent else f"{singular(parent)} {leaf}"


def price_tiers(
    prices: Sequence[float | None], paths: Sequence[tuple[str, ...]], *, fitted: Sequence[bool]
) -> NDArray[np.int64]:
    """Returns each item's price tier, (N,) int64: a row of `TIERS`, −1 without a price or any price to compare.

    A price is compared with the fitted items of the nearest category on its path that has enough prices.
    """
    by_node: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for price, path, known in zip(prices, paths, fitted, strict=True):
        if price is not None and known:
            for depth in range(len(path) + 1):
                by_node[path[:depth]].append(price)
    limits = {node: np.quantile(found, TIER_QUANTILES) for node, found in by_node.items()}
    tiers = np.full(len(prices), -1, dtype=np.int64)
    for row, (price, path) in enumerate(zip(prices, paths, strict=True)):
        if price is None or not limits:
            continue
        depth = len(path)
        while depth and len(by_node[path[:depth]]) < MIN_PRICED_SIBLINGS:
            depth -= 1
        tiers[row] = int(np.searchsorted(limits[path[:depth]], price, side="left"))
    return tiers


def price_range(prices: Sequence[float], currency: str) -> str:
    """Returns `mostly under $10`, `mostly over $50`, or nothing with fewer than three prices or no round limit."""
    if len(prices) < 3:
        return ""
    ordered = sorted(prices)
    high = ordered[int(np.ceil(MOSTLY * len(ordered))) - 1]
    low = ordered[len(ordered) - int(np.ceil(MOSTLY * len(ordered)))]
    under = next((limit for limit in ROUND_PRICES if high < limit), None)
    over = next((limit for limit in reversed(ROUND_PRICES) if limit < low), None)
    if under is not None and (over is None or under <= 2.5 * over or under <= 25):
        return f"mostly under {currency}{under:g}"
    return f"mostly over {currency}{over:g}" if over is not None else ""


def most_common(words: Sequence[str], weights: Sequence[float], k: int) -> list[str]:
    """Returns the k words with the largest summed weight, equal weights in alphabetical order; skips empty words."""
    totals: Counter[str] = Counter()
    for word, weight in zip(words, weights, strict=True):
        if word:
            totals[word] += weight  # type: ignore[assignment]
    return [word for word, _ in sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:k]]
