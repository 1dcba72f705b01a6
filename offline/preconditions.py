"""Checks right after `ingest`, before any LLM call and any training, that a release can be made of this shop.

It reads the report of `ingest` only; it knows nothing of what items and users are.
"""

from collections.abc import Container, Mapping
from typing import Any

from isrf.contract.errors import DataError
from isrf.method.semantic_ids import check_capacity
from offline.config import RunConfig
from offline.stages.ingest.stage import NEEDED


def check_shop(report: Mapping[str, Any]) -> None:
    """Refuses a shop that is too small for any release.

    Args:
        report: the report of `ingest`.

    Raises:
        DataError: `data.too_few_users`, `data.no_order_to_learn`.
    """
    num_users, most_events = int(report["learning"]["users"]), int(report["learning"]["most_events"])
    if num_users < 2:
        raise DataError(
            "data.too_few_users",
            f"{num_users} of {report['counts']['users']} users have training events, not counting held-out events; "
            "similar users need at least two.",
            fix=NEEDED,
        )
    if most_events < 2:
        raise DataError(
            "data.no_order_to_learn",
            "no user has two training events, not counting held-out events, so there is no order to learn.",
            fix=NEEDED,
        )


def check_settings(config: RunConfig, num_items: int, stages: Container[str]) -> None:
    """Checks the settings of the coming stages against the size of the catalogue.

    Raises:
        ConfigError: `config.semantic_ids_capacity`.
    """
    if "semantic-ids" in stages:
        settings = config.semantic_ids
        check_capacity(num_items, levels=settings.levels, codebook_size=settings.codebook_size)
