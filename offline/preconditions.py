"""What cannot work with this shop, refused as soon as it is counted: before any call to an LLM and any training.

It knows ingest's report and nothing of what items and users are.
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
        report: ingest's.

    Raises:
        DataError: `data.too_few_users`, `data.no_order_to_learn`.
    """
    users, most = int(report["learning"]["users"]), int(report["learning"]["most_events"])
    if users < 2:
        raise DataError(
            "data.too_few_users",
            f"{users} of {report['counts']['users']} users have events to learn from beside what is held out; similar "
            "users take two.",
            fix=NEEDED,
        )
    if most < 2:
        raise DataError(
            "data.no_order_to_learn",
            "no user has two events to learn an order from beside those that are held out.",
            fix=NEEDED,
        )


def check_settings(config: RunConfig, num_items: int, stages: Container[str]) -> None:
    """Holds the settings of the stages to come against the size of the catalogue.

    Raises:
        ConfigError: `config.semantic_ids_capacity`.
    """
    if "semantic-ids" in stages:
        settings = config.semantic_ids
        check_capacity(num_items, levels=settings.levels, codebook_size=settings.codebook_size)
