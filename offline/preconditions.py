"""Settings that cannot work with this shop, refused as soon as the catalogue is counted: before any call to an LLM and
any training. It knows how many items there are and nothing of what they are.
"""

import json
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from isrf.errors import ConfigError
from isrf.semantic_ids import check_capacity
from offline.config import RunConfig


def check_settings(config: RunConfig, ingest: Path, stages: Container[str]) -> None:
    """Holds the settings of the stages to come against ingest's output.

    Raises:
        ConfigError: `config.semantic_ids_capacity`, `config.num_beams`.
    """
    report: dict[str, Any] = json.loads((ingest / "report.json").read_text())
    for stage, check in _CHECKS.items():
        if stage in stages:
            check(config, int(report["counts"]["items"]))


def _check_semantic_ids(config: RunConfig, num_items: int) -> None:
    settings = config.semantic_ids
    check_capacity(num_items, levels=settings.levels, codebook_size=settings.codebook_size)


def _check_beams(config: RunConfig, num_items: int) -> None:
    """More beams than items would be padding in every answer, paid for in every request."""
    if config.search.num_beams > num_items:
        raise ConfigError(
            "config.num_beams",
            f"{config.search.num_beams} beams are more than the {num_items} items of the catalogue.",
            fix=f"Give --set search.num_beams={num_items}.",
        )


_CHECKS: dict[str, Callable[[RunConfig, int], None]] = {"semantic-ids": _check_semantic_ids, "compile": _check_beams}
