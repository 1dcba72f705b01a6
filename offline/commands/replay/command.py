"""`python -m offline replay`: its options; what they mean is in the package's other modules."""

import json
from pathlib import Path
from typing import Annotated

import typer

from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.release_store.remote import local_release
from offline.cli import (
    ConfigOption,
    DataOption,
    EngineOption,
    IngestSettings,
    PresetOption,
    RayAddressOption,
    ReleasesOption,
    SetOption,
    configured,
    console,
    progress_bars,
    reads_files,
)
from offline.config import RunConfig
from offline.engine.choose import open_engine


@reads_files
def replay(
    *,
    data: DataOption,
    releases: ReleasesOption,
    since: Annotated[
        str | None, typer.Option(help="The moment: seconds since 1970, or an ISO date or time (UTC without a zone).")
    ] = None,
    share: Annotated[float | None, typer.Option(help="The share of all events that lies before the moment.")] = None,
    freeze: Annotated[
        str,
        typer.Option(
            help="Parts that stand still, one variant each: history,evidence,popularity,activity. Empty for none."
        ),
    ] = "history,evidence,popularity,activity",
    step: Annotated[str, typer.Option(help="How often evidence takes in events: event, hour, day, week.")] = "event",
    epoch_s: Annotated[
        float, typer.Option(help="How often active users are gathered, in seconds of the shop's time.", min=1.0)
    ] = 3600.0,
    release: Annotated[
        Path | None,
        typer.Option(
            "--release",
            parser=local_release,
            help="A release made before the moment, a folder or its URL: it is not trained again.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures here (JSON).")] = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    ingest: IngestSettings,
) -> None:
    """Train on what lies before a moment, then ask before each event that follows, through the code that serves."""
    from offline.commands.replay.cut import cut, read_moment
    from offline.commands.replay.figures import as_table
    from offline.commands.replay.run import frozen_parts, made_before, step_seconds
    from offline.commands.replay.run import replay as play
    from offline.commands.train import train

    settings = configured(preset, config, assignments, {"fit": "all"}, ingest)
    if release is not None:  # its event types decide what its histories and the stream mean
        events = RunConfig.model_validate(read_manifest(release).config).events
        settings = settings.model_copy(update={"events": events})
    frozen, step_s = frozen_parts(freeze), step_seconds(step)
    moment = None if since is None else read_moment(since)
    folder = releases.folder("the replay")
    before = folder / "replay-data"
    stream = cut(data, before, settings, since=moment, share=share)
    settings = settings.model_copy(update={"ingest": settings.ingest.of_our_own_files()})
    with open_engine(engine, ray_address) as opened:
        release = (
            train(before, folder, settings, engine=opened) if release is None else made_before(release, stream.since)
        )
        with progress_bars() as progress:
            result = play(
                release,
                stream,
                config=settings,
                frozen=frozen,
                epoch_s=epoch_s,
                step_s=step_s,
                progress=progress,
                engine=opened,
            )
    console.print(as_table(result["variants"]))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(result))
