"""Checks right after `ingest`, before any LLM call and any training, that a release can be made of this shop.

It reads the report of `ingest` only; it knows nothing of what items and users are.
"""

from collections.abc import Container, Mapping
from typing import Any

from isrf.contract.errors import DataError
from isrf.method.order import MIN_EVENTS_TO_LEARN
from isrf.method.semantic_ids import check_capacity
from offline.config import RunConfig


def check_shop(report: Mapping[str, Any]) -> None:
    """Refuses a shop that is too small for any release.

    Args:
        report: the report of `ingest`.

    Raises:
        DataError: `data.too_few_users`.
    """
    num_users, longest = int(report["learning"]["users"]), int(report["learning"]["longest"])
    if num_users < (2 if longest >= MIN_EVENTS_TO_LEARN else 3):
        raise DataError(
            "data.too_few_users",
            f"{num_users} of {report['counts']['users']} users have training events; "
            "a release tells what one user may want from what others took.",
            fix="A release needs at least 3 users, or 2 if a user or a session has at least 4 events; a repeated row "
            "counts once, and a session without a user_id is no user.",
        )


def check_settings(config: RunConfig, num_items: int, stages: Container[str]) -> None:
    """Checks the settings of the coming stages against the size of the catalogue.

    Raises:
        ConfigError: `config.semantic_ids_capacity`.
    """
    if "semantic-ids" in stages:
        settings = config.semantic_ids
        check_capacity(num_items, levels=settings.levels, codebook_size=settings.codebook_size)
