"""`python -m offline reason`: runs the stage, shows the steps of one item or user, estimates an LLM run's tokens."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from offline.cli import (
    RELEASES,
    BudgetOption,
    ConfigOption,
    DataOption,
    EngineOption,
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
    reads_files,
    run_stages,
)
from offline.engine.choose import open_engine

app = typer.Typer()
output = Console()


@app.callback(invoke_without_command=True)
@reads_files
def run_command(
    *,
    context: typer.Context,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the shop's files.")] = None,
    releases: Annotated[Releases | None, RELEASES] = None,
    work: WorkOption = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    reasoner: ReasonerOption = None,
    llm_budget: BudgetOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    ingest: IngestSettings,
) -> None:
    """Run the stages up to reason and print the output folder; `show` prints steps, `cost` estimates tokens."""
    if context.invoked_subcommand is not None:
        return
    if data is None or releases is None:
        raise typer.BadParameter("the options --data and --releases are required")
    flags = {"reason.reasoner": reasoner, **budget_flags(llm_budget)}
    settings = configured(preset, config, assignments, flags, ingest)
    with open_engine(engine, ray_address) as opened:
        folder = run_stages("reason", data, releases.work(work, data), settings, opened)
    typer.echo(folder)


@app.command("show")
def show_command(
    shop_id: Annotated[str, typer.Argument(help="An item_id or user_id.")],
    release: ReleaseOption,
) -> None:
    """Print the reasoning steps of one item or user of a release."""
    from offline.stages.reason.show import show

    output.print(show(release, shop_id))


@app.command("cost")
@reads_files
def cost_command(
    *,
    data: DataOption,
    releases: ReleasesOption,
    work: WorkOption = None,
    items: Annotated[int, typer.Option(help="Number of items to estimate for.")] = 10_000,
    users: Annotated[int, typer.Option(help="Number of users to estimate for.")] = 100_000,
    ingest: IngestSettings,
) -> None:
    """Estimate the tokens of a full LLM run from prompts with this shop's items and users; call no LLM."""
    from offline.stages.reason.corpus import read_corpus
    from offline.stages.reason.llm.cost import cost_table, estimate_steps

    settings = configured("demo", None, None, {}, ingest)
    corpus = read_corpus(
        run_stages("ingest", data, releases.work(work, data), settings), currency=settings.reason.currency
    )
    output.print(cost_table(estimate_steps(corpus), num_items=items, num_users=users))
