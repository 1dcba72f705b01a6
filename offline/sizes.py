"""What the size of a shop decides of the configuration: known as soon as `ingest` has counted, before anything is paid.

More beams than items would be padding in every answer, more neighbours than there are users too. Who has few items need
not know that: the program takes what there is, says so once, and saves what it used with the release.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from offline.config import RunConfig


class Fitted(NamedTuple):
    config: RunConfig
    changes: list[str]  # a sentence for each setting that was lowered


def fit_to_shop(config: RunConfig, counts: Mapping[str, int]) -> Fitted:
    """The configuration with no setting larger than the shop has use for.

    Args:
        config: as asked for.
        counts: of ingest's report; `items` and `users`.
    """
    items, users = counts["items"], counts["users"]
    others = max(users - 1, 1)
    most: dict[tuple[str, str], tuple[int, str]] = {
        ("graph", "max_neighbours"): (others, f"{users} users"),
        ("graph", "min_neighbours"): (min(others, config.graph.max_neighbours), f"{users} users"),
        ("semantic_ids", "codebook_size"): (max(items, 2), f"{items} items"),
        ("train", "num_direct_negatives"): (max(items - 1, 1), f"{items} items"),
        ("search", "num_beams"): (items, f"{items} items"),
        ("search", "num_dense"): (items, f"{items} items"),
    }
    sections: dict[str, dict[str, Any]] = {}
    changes: list[str] = []
    for (section, name), (limit, reason) in most.items():
        asked = getattr(getattr(config, section), name)
        if asked > limit:
            sections.setdefault(section, {})[name] = limit
            changes.append(f"{section}.{name}: {limit} in place of {asked}, for {reason}")
    update = {name: getattr(config, name).model_copy(update=changed) for name, changed in sections.items()}
    return Fitted(config.model_copy(update=update), changes)
