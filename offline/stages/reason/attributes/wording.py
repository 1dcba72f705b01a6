"""Words and phrases: lists in English, names of categories, price tiers and round price limits (text in, text out)."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TIERS = ("budget", "mid-priced", "premium")
TIER_QUANTILES = (0.3, 0.75)
MIN_PRICED_SIBLINGS = 20
"""A category with fewer prices is tiered against its parent category instead."""

ROUND_PRICES = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
MOSTLY = 0.75


def join_words(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def sentence(text: str) -> str:
    """First letter upper-case, a full stop at the end."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def lower_words(text: str) -> str:
    """Lower-case but for words that are capitals throughout (`UV`, `LED`)."""
    words = (word if len(word) > 1 and word.isupper() else word.lower() for word in text.split())
    return " ".join(words).replace(" & ", " and ")


def singular(word: str) -> str:
    """An English plural's singular, near enough to stand before a noun."""
    if word.endswith(("shes", "ches", "xes", "sses")):
        return word.removesuffix("es")
    return word.removesuffix("s") if len(word) > 3 and not word.endswith(("ss", "us", "'s")) else word


def name_categories(paths: Sequence[tuple[str, ...]], *, fitted: Sequence[bool]) -> list[str]:
    """A readable name of every item's category; empty without one.

    The last name of the path, with its parent where the last name alone says too little: `women's fragrance`,
    `face cleansers` (they stand below Body too), `eye makeup` (so does Eyes, and it is itself divided).
    Whether it does is looked up in the fitted items' paths (N,) and the item's own.
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
    """(N,) int64 row of `TIERS` against the fitted items of the nearest ancestor category with enough prices.

    −1 without a price, or without any to compare it with.
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
    """`mostly under $10`, `mostly over $50`, or nothing where fewer than three prices or no round limit say it."""
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
    """The k words with the largest summed weight; equal weights in alphabetical order. Empty words do not count."""
    totals: Counter[str] = Counter()
    for word, weight in zip(words, weights, strict=True):
        if word:
            totals[word] += weight  # type: ignore[assignment]
    return [word for word, _ in sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:k]]
