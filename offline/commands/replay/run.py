"""Trains on what lies before a moment, and replays what follows: `python -m offline replay`."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from isrf.contract.errors import ConfigError, DataError
from isrf.contract.shown import shown
from isrf.runtime.bundle.manifests import read_manifest
from offline.commands.replay.cut import Cut, moment_text
from offline.commands.replay.figures import Measured, describe
from offline.commands.replay.player import FROZEN, Frozen, Player, Shop, ranks
from offline.commands.replay.shop import open_shop
from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

STEPS = {"event": 0.0, "hour": 3600.0, "day": 86_400.0, "week": 7 * 86_400.0}
PROTOCOL = (
    "time split: trained on the events before the moment alone; each event's user is asked for just before the event; "
    "items that the user bought are excluded; ties of time in the order of user and position; intervals over users"
)


def frozen_parts(text: str) -> tuple[Frozen, ...]:
    """`--freeze` as parts; `ConfigError` (`config.freeze`) on what is none."""
    names = [name for name in text.replace(" ", "").split(",") if name]
    unknown = [name for name in names if name not in FROZEN]
    if unknown:
        raise ConfigError(
            "config.freeze", f"--freeze names {shown(unknown[0])}.", fix=f"Take some of {', '.join(FROZEN)}."
        )
    return tuple(part for part in FROZEN if part in names)


def step_seconds(text: str) -> float:
    """`--step` in seconds, 0 for `event`; `ConfigError` (`config.step`) on anything else."""
    if text not in STEPS:
        raise ConfigError("config.step", f"--step is {shown(text)}.", fix=f"Take one of {', '.join(STEPS)}.")
    return STEPS[text]


def made_before(release: Path, since: float) -> Path:
    """The release, if it holds no event from `since` on.

    Raises:
        BundleError: it cannot be read.
        DataError: `replay.release_knows`, it holds later events, so a replay would measure what it has learned.
    """
    through = read_manifest(release).events_through
    if through is None or through >= since:
        raise DataError(
            "replay.release_knows",
            f"{release} holds events "
            + ("without timestamps." if through is None else f"through {moment_text(through)}.")
            + f" The replay begins at {moment_text(since)}.",
            fix="Name a later moment with --since, or leave --release out to train a release.",
        )
    return release


class _Played(NamedTuple):
    """What every variant plays."""

    shop: Shop
    stream: Cut
    epoch_s: float
    step_s: float


def _play(parts: frozenset[Frozen], played: _Played, progress: Progress | None = None) -> Measured:
    """Plays one variant; `parts` stand still."""
    shop, stream, epoch_s, step_s = played
    player = Player(shop, stream, frozen=parts, epoch_s=epoch_s, step_s=step_s)
    title = f"replay: {', '.join(sorted(parts))} frozen" if parts else "replay: as served"
    shown = Progress(disable=True) if progress is None else progress
    return Measured.of(ranks(player, progress=shown, title=title, total=len(stream.stream)))


def _played_elsewhere(
    variants: Sequence[frozenset[Frozen]], played: _Played, progress: Progress, engine: StageEngine
) -> Iterator[Measured]:
    task = progress.add_task("replay: variants", total=len(variants))
    for measured in engine.map(_play, (played,), variants):
        progress.advance(task)
        yield measured
    progress.remove_task(task)


def replay(
    release: Path,
    stream: Cut,
    *,
    config: RunConfig,
    frozen: Sequence[Frozen] = FROZEN,
    epoch_s: float,
    step_s: float = 0.0,
    progress: Progress,
    engine: StageEngine = LOCAL,
) -> dict[str, Any]:
    """Plays the stream through a release, with everything in motion and once with each part of `frozen` standing still.

    Args:
        release: made of what lies before the stream.
        stream: the events, and the items that come with them.
        config: of the release.
        frozen: parts that stand still, one variant each.
        epoch_s: how often the active users are gathered, in the stream's own time.
        step_s: how often evidence and popularity take in the events since; 0: with every event.
        progress: bars.
        engine: plays the variants, each in one piece, since an event counts before the next one is asked for.
    """
    shop = open_shop(release, config.events)
    began = time.monotonic()
    parts = [frozenset[Frozen](), *(frozenset({part}) for part in frozen)]
    played = _Played(shop, stream, epoch_s, step_s)
    names = ["as served", *(f"{part} frozen" for part in frozen)]
    if engine is LOCAL:  # with a bar for each variant
        measured: Iterator[Measured] = (_play(one, played, progress) for one in parts)
    else:
        measured = _played_elsewhere(parts, played, progress, engine)
    variants = {
        name: describe(one, since=stream.since, samples=config.evaluate.bootstrap_samples, seed=config.seed)
        for name, one in zip(names, measured, strict=True)
    }
    return {
        "protocol": PROTOCOL,
        "release_id": shop.release_id,
        "since": stream.since,
        "since_text": moment_text(stream.since),
        "events_before": stream.num_before,
        "events_replayed": len(stream.stream),
        "new_items": len(stream.new_items),
        "epoch_s": epoch_s,
        "step_s": step_s,
        "seconds": round(time.monotonic() - began, 1),
        "variants": variants,
    }
