"""Lowers settings that are too large for a small shop, as soon as `ingest` has counted.

More beams than items, or more neighbours than users, would only be padding in every answer. The owner of a small shop
does not have to know that: the program lowers the setting, prints a line, and saves the used value with the release.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from offline.config import RunConfig


class Fitted(NamedTuple):
    config: RunConfig
    changes: list[str]  # a sentence for each setting that was lowered


def fit_to_shop(config: RunConfig, counts: Mapping[str, int]) -> Fitted:
    """The configuration with every setting lowered to what the shop can use.

    Args:
        config: the requested configuration.
        counts: `items` and `users` from the report of `ingest`.
    """
    items, users = counts["items"], counts["users"]
    others = max(users - 1, 1)
    limits: dict[tuple[str, str], tuple[int, str]] = {
        ("graph", "max_neighbours"): (others, f"{users} users"),
        ("graph", "min_neighbours"): (min(others, config.graph.max_neighbours), f"{users} users"),
        ("semantic_ids", "codebook_size"): (max(items, 2), f"{items} items"),
        ("train", "num_direct_negatives"): (max(items - 1, 1), f"{items} items"),
        ("search", "num_beams"): (items, f"{items} items"),
        ("search", "num_dense"): (items, f"{items} items"),
    }
    sections: dict[str, dict[str, Any]] = {}
    changes: list[str] = []
    for (section, name), (limit, reason) in limits.items():
        requested = getattr(getattr(config, section), name)
        if requested > limit:
            sections.setdefault(section, {})[name] = limit
            changes.append(f"{section}.{name}: {limit} instead of {requested}, for {reason}")
    update = {name: getattr(config, name).model_copy(update=changed) for name, changed in sections.items()}
    return Fitted(config.model_copy(update=update), changes)
