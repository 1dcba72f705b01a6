"""Decides which parts of a release a shop is too young for, from the report of `ingest`.

A part that is left out has no weight in the lists. The other channels make them: what was taken together, what is
alike, what is popular. It knows neither the events nor the parts themselves.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from isrf.contract.manifest import FusionWeights
from isrf.method.order import MIN_EVENTS_TO_LEARN
from isrf.method.ranking.fusion import DEFAULT_FUSION
from offline.config import RunConfig

Part = Literal["interaction-graph", "sequence-model", "fusion-weights", "ranker", "evaluation"]
MIN_TARGETS = 20
"""Fewest events with one of the same user or session before them from which an order is learned."""
MIN_HELD_OUT = 20
"""Fewest users and sessions with a held-out event on which weights are chosen; with fewer, the choice is noise."""
CHANNELS_OF: dict[Part, tuple[str, ...]] = {
    "interaction-graph": ("explicit", "group"),
    "sequence-model": ("generative", "dense"),
}
"""Channels that have no weight where a part is left out."""
_NOBODY = f"no user or session has {MIN_EVENTS_TO_LEARN} events"


def too_little_to_learn(report: Mapping[str, Any]) -> bool:
    """Whether there are too few events to learn an order from, or nobody has enough of them to judge it by."""
    learning = report["learning"]
    return int(learning["targets"]) < MIN_TARGETS or int(learning["longest"]) < MIN_EVENTS_TO_LEARN


def parts_left_out(report: Mapping[str, Any], config: RunConfig) -> dict[Part, str]:
    """The parts that a release of this shop does without, and why.

    Args:
        report: of `ingest`.
        config: with `fit=all`, weights and ranker come from the evaluated release.
    """
    parts: dict[Part, str] = {}
    targets, held_out = int(report["learning"]["targets"]), int(report["counts"]["valid"])
    if too_little_to_learn(report):
        few = f"training events that follow another of their user or session: {targets}, needed: {MIN_TARGETS}"
        learned = few if targets < MIN_TARGETS else _NOBODY
        parts |= {"interaction-graph": learned, "sequence-model": learned}
    if config.fit == "train" and not held_out:
        parts["evaluation"] = f"{_NOBODY}, and nothing is held out"
    if config.fusion is None and held_out < MIN_HELD_OUT:
        few = f"users and sessions with a held-out event: {held_out}, needed: {MIN_HELD_OUT}"
        reason = few if config.fit == "train" else "the evaluated release has none, or left out a channel"
        parts |= {"fusion-weights": reason, "ranker": reason}
    return parts


def channels_left_out(parts: Collection[str]) -> tuple[str, ...]:
    """The channels that have no weight."""
    return tuple(channel for part, channels in CHANNELS_OF.items() if part in parts for channel in channels)


def default_fusion(without: Collection[str]) -> FusionWeights:
    """The fusion where none is fitted; the channels `without` have no weight."""
    return DEFAULT_FUSION.model_copy(update={"weights": DEFAULT_FUSION.weights | dict.fromkeys(without, 0.0)})
