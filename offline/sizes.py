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


STEPS_AN_EPOCH = 4
SMALLEST_BATCH = 16


def fit_to_shop(config: RunConfig, counts: Mapping[str, int], *, num_targets: int | None = None) -> Fitted:
    """The configuration with every setting lowered to what the shop can use.

    Args:
        config: the requested configuration.
        counts: `items` and `users` from the report of `ingest`.
        num_targets: events that the model can learn to predict, from the same report; None: as many as are needed.
    """
    items, users = counts["items"], counts["users"]
    others = max(users - 1, 1)
    limits: dict[tuple[str, str], tuple[int, str]] = {
        ("graph", "max_neighbours"): (others, f"{users} users"),
        ("graph", "min_neighbours"): (min(others, config.graph.max_neighbours), f"{users} users"),
        ("semantic_ids", "codebook_size"): (max(items, 2), f"{items} items"),
        # One more level than it takes to halve the items down to one would tell nothing apart.
        ("semantic_ids", "levels"): (max((items - 1).bit_length(), 1), f"{items} items"),
        ("train", "num_direct_negatives"): (max(items - 1, 1), f"{items} items"),
        ("search", "num_beams"): (items, f"{items} items"),
        ("search", "num_dense"): (items, f"{items} items"),
    }
    if num_targets is not None:
        batch = max(num_targets // STEPS_AN_EPOCH, SMALLEST_BATCH)
        limits["train", "batch_size"] = (batch, f"{num_targets} events to learn from")
    sections: dict[str, dict[str, Any]] = {}
    changes: list[str] = []
    for (section, name), (limit, reason) in limits.items():
        requested = getattr(getattr(config, section), name)
        if requested > limit:
            sections.setdefault(section, {})[name] = limit
            changes.append(f"{section}.{name}: {limit} instead of {requested}, for {reason}")
    update = {name: getattr(config, name).model_copy(update=changed) for name, changed in sections.items()}
    return Fitted(config.model_copy(update=update), changes)
