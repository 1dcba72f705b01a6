"""The offline job's command line: `python -m offline run --data DIR --releases DIR`.

Commands print tables and progress bars for people. An error ends a command with one line, its code, and status 2.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from isrf.contract.errors import ConfigError, IsrfError
from isrf.contract.shown import printable
from isrf.runtime.bundle.manifests import read_manifest
from offline.cli import (
    RELEASE,
    RELEASES,
    BackboneOption,
    BadRowsOption,
    BudgetOption,
    ConfigOption,
    DataOption,
    EncoderOption,
    EngineOption,
    FitOption,
    IngestSettings,
    PresetOption,
    RayAddressOption,
    ReasonerOption,
    ReleaseOption,
    Releases,
    ReleasesOption,
    SetOption,
    WorkOption,
    budget_flags,
    configured,
    console,
    progress_bars,
    reads_files,
    run_stages,
)
from offline.commands.import_files import import_files
from offline.commands.reason import app as reason_app
from offline.commands.recommend.command import recommend
from offline.commands.replay.command import replay
from offline.config import RunConfig
from offline.engine.choose import OpenedEngine, open_engine
from offline.pipeline import STAGES
from offline.runtime.secret_files import ERASURE_KEY, secret, store_url

app = typer.Typer(
    help="From a shop's files to a release bundle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(reason_app, name="reason")
app.command()(replay)
app.command("import")(import_files)
app.command()(recommend)


@app.command()
@reads_files
def run(
    *,
    data: DataOption,
    releases: ReleasesOption,
    work: WorkOption = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    reasoner: ReasonerOption = None,
    llm_budget: BudgetOption = None,
    encoder: EncoderOption = None,
    backbone: BackboneOption = None,
    fit: FitOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    ingest: IngestSettings,
) -> None:
    """Run all stages, resume where an earlier run stopped, publish the release and switch `current`."""
    flags = {
        "reason.reasoner": reasoner,
        "embed.encoder": encoder,
        "model.backbone": backbone,
        "fit": fit,
        **budget_flags(llm_budget),
    }
    settings = configured(preset, config, assignments, flags, ingest)
    _run(data, releases, work, settings, open_engine(engine, ray_address))


def _run(data: Path, releases: Releases, work: Path | None, settings: RunConfig, opened: OpenedEngine) -> None:
    from offline.commands.train import train

    store = releases.store
    with opened as engine:
        release = train(data, releases.work(work, data), settings, store=store, engine=engine)
    _show_evaluation(release)
    typer.echo(release if store is None else f"{store}/{read_manifest(release).release_id}")


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        *,
        data: DataOption,
        releases: ReleasesOption,
        work: WorkOption = None,
        preset: PresetOption = "demo",
        config: ConfigOption = None,
        assignments: SetOption = None,
        engine: EngineOption = "local",
        ray_address: RayAddressOption = None,
        ingest: IngestSettings,
    ) -> None:
        settings = configured(preset, config, assignments, {}, ingest)
        with open_engine(engine, ray_address) as opened:
            output = run_stages(name, data, releases.work(work, data), settings, opened)
        typer.echo(output)

    command.__doc__ = f"Run the stages up to {name} and print its output folder."
    return reads_files(command)


for _name in STAGES:
    if _name not in ("ingest", "evaluate", "export", "reason"):
        app.command(_name)(_stage_command(_name))


@app.command("ingest")
@reads_files
def ingest_command(
    *,
    data: DataOption,
    releases: Annotated[Releases | None, RELEASES] = None,
    work: WorkOption = None,
    from_redis: Annotated[
        str | None,
        typer.Option(
            "--from-redis",
            help="Redis URL, env (REDIS_URL, REDIS_URL_FILE) or state folder: merge its events and items first.",
        ),
    ] = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    ingest: IngestSettings,
) -> None:
    """Read the shop's files; with --from-redis first merge the service's new events and items, each exactly once."""
    settings = configured(preset, config, assignments, {}, ingest)
    if from_redis is not None:
        from offline.commands.loop_back.take_in import take_in

        if settings.ingest != settings.ingest.of_our_own_files():
            raise ConfigError(
                "config.from_redis",
                "--from-redis writes the service's events into files of our own form, and the options say that the "
                "files have another.",
                fix="Leave out --column, --time-format and the like, and give files of our own form.",
            )
        merged = take_in(store_url(from_redis), data, erasure_key=secret(ERASURE_KEY))
        console.print(
            f"merged {merged.events} events and {merged.items} items from the service, left out {merged.left_out} "
            "events of erased users"
            + (
                f", removed {merged.forgotten_rows} rows of erased users from the shop's file"
                * (merged.forgotten_rows > 0)
            )
        )
    if releases is not None:
        typer.echo(run_stages("ingest", data, releases.work(work, data), settings))
    elif from_redis is None:
        raise typer.BadParameter("give --releases to run the stage, --from-redis to merge events, or both")


def _show_evaluation(release: Path) -> None:
    evaluation = read_manifest(release).evaluation
    if "test" in evaluation:
        _print_evaluation({**evaluation["test"], "protocol": evaluation["protocol"]}, "test")


def _print_evaluation(result: dict[str, Any], split: str) -> None:
    from offline.stages.evaluate.tables import evaluation_tables

    for table in evaluation_tables(result, split=split):
        console.print(table)


@app.command()
def evaluate(
    release: ReleaseOption,
    data: DataOption,
    predictions: Annotated[Path | None, typer.Option(help="Write 20 items per user here (JSON lines).")] = None,
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Do not exclude seen items.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Run the other protocols on all users, not on a sample.")
    ] = False,
    max_bad_rows: BadRowsOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
) -> None:
    """Measure a published release on held-out interactions, with the graphs that the service runs."""
    from offline.commands.evaluate_release import evaluate_release

    with open_engine(engine, ray_address) as opened, progress_bars() as progress:
        result = evaluate_release(
            release,
            data,
            split=split,
            include_seen=include_seen,
            whole=whole,
            predictions=predictions,
            max_bad_rows=max_bad_rows,
            progress=progress,
            engine=opened,
        )
    _print_evaluation(result, split)
    typer.echo(json.dumps(result))


@app.command()
@reads_files
def audit(
    *,
    data: DataOption,
    release: Annotated[Path | None, RELEASE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON too.")] = False,
    ingest: IngestSettings,
) -> None:
    """Look for held-out interactions in places where they must not be; status 1 if there are any."""
    from offline.commands import audit as auditing

    with progress_bars() as progress:
        findings = auditing.audit(data, release, progress, ingest=ingest)
    console.print(auditing.as_table(findings))
    if as_json:
        typer.echo(json.dumps(auditing.as_json(findings), ensure_ascii=False))
    if auditing.has_leak(findings):
        raise typer.Exit(1)


@app.command("inspect")
@reads_files
def inspect_command(
    *,
    data: Annotated[Path, typer.Argument(help="Folder of the shop's files.")],
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    ingest: IngestSettings,
) -> None:
    """Show how a shop's files are read and whether a run would work, with questions; change nothing."""
    from offline.commands.inspect.show import inspect_data

    settings = configured(preset, config, assignments, {}, ingest)
    with progress_bars() as progress:
        inspect_data(data, settings, output=Console(), progress=progress)


@app.command("export")
@reads_files
def export_command(
    *,
    data: DataOption,
    releases: ReleasesOption,
    work: WorkOption = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    ingest: IngestSettings,
) -> None:
    """Run the stages up to export and publish the release; the same as `run`."""
    _run(data, releases, work, configured(preset, config, assignments, {}, ingest), open_engine(engine, ray_address))


@app.command("demo-shop")
def demo_shop(
    directory: Annotated[Path, typer.Argument(help="Folder to write interactions.csv and items.jsonl to.")],
    seed: Annotated[int, typer.Option(help="Seed of the generator; equal seeds make equal files.")] = 0,
) -> None:
    """Generate the demo shop."""
    from offline.commands.demo_shop.generate import generate

    generate(directory, seed=seed)
    typer.echo(directory)


@app.command()
def forget(
    user_id: Annotated[str, typer.Argument(help="The shop's id of the user.")],
    data: DataOption,
    releases: ReleasesOption,
    work: WorkOption = None,
    store: Annotated[
        str | None,
        typer.Option(help="Redis URL, or env (REDIS_URL, REDIS_URL_FILE): erase the user's state there too."),
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="The LLM's ledger, if reason.ledger names another file.")] = None,
) -> None:
    """Delete a user's data: rows, the LLM's answers, stage outputs, old releases. Safe to run again."""
    from offline.commands.forget import forget as forget_user

    url = None if store is None else store_url(store)
    deleted = forget_user(
        user_id,
        data,
        releases.work(work, data),
        published=releases.store,
        store=url,
        ledger=ledger,
        erasure_key=secret(ERASURE_KEY),
    )
    console.print(f"deleted: {deleted.rows} rows, {deleted.answers} answers, {deleted.outputs} stage outputs")
    console.print(f"deleted releases: {', '.join(deleted.releases) or 'none'}")
    if deleted.republish:
        console.print(
            f"[bold]still served:[/] {', '.join(deleted.republish)}. Publish a new release, then run this again."
        )
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line; an `IsrfError` ends it with one line and status 2."""
    try:
        app()
    except IsrfError as error:
        _end(error.code, str(error))
    except OSError as error:
        _end("io", f"{error.strerror}: {error.filename}. Check the path and run the same command again.")


def _end(code: str, message: str) -> None:
    """Prints the error and exits. A message may quote the shop's files, so unprintable characters are escaped."""
    message = "\n".join(printable(line, len(line)) for line in message.split("\n"))
    console.print(Text.assemble(("error", "bold red"), f" [{code}] {message}"), soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
