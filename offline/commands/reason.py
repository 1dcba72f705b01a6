"""`python -m offline reason`: the stage itself, the chain over one item or user, and what a full LLM run would cost."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from offline.cli import (
    BadRowsOption,
    BudgetOption,
    ConfigOption,
    DataOption,
    PresetOption,
    ReasonerOption,
    ReleaseOption,
    ReleasesOption,
    SetOption,
    TiesOption,
    budget_flags,
    configured,
    ingest_flags,
    run_stages,
)

app = typer.Typer()
output = Console()


@app.callback(invoke_without_command=True)
def run_command(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the shop's files.")] = None,
    releases: Annotated[Path | None, typer.Option("--releases", help="Folder of releases.")] = None,
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    assignments: SetOption = None,
    reasoner: ReasonerOption = None,
    llm_budget: BudgetOption = None,
    shuffle_ties: TiesOption = None,
    max_bad_rows: BadRowsOption = None,
) -> None:
    """Reason over items and users: run the stages up to reason, print its output folder; or show, or cost."""
    if context.invoked_subcommand is not None:
        return
    if data is None or releases is None:
        raise typer.BadParameter("give --data and --releases")
    flags = {"reason.reasoner": reasoner, **ingest_flags(shuffle_ties, max_bad_rows), **budget_flags(llm_budget)}
    settings = configured(preset, config, assignments, flags)
    typer.echo(run_stages("reason", data, releases, settings))


@app.command("show")
def show_command(
    shop_id: Annotated[str, typer.Argument(help="An item_id or user_id.")],
    release: ReleaseOption,
) -> None:
    """Print the chain of steps over one item or user of a release."""
    from offline.stages.reason.show import show

    output.print(show(release, shop_id))


@app.command("cost")
def cost_command(
    data: DataOption,
    releases: ReleasesOption,
    items: Annotated[int, typer.Option(help="Items of the shop that is asked about.")] = 10_000,
    users: Annotated[int, typer.Option(help="Its users.")] = 100_000,
    shuffle_ties: TiesOption = None,
    max_bad_rows: BadRowsOption = None,
) -> None:
    """Tokens that a full LLM run would take, from prompts filled with this shop's items and users; asks nothing."""
    from offline.stages.reason.corpus import read_corpus
    from offline.stages.reason.llm.cost import cost_table, estimate_steps

    settings = configured("demo", None, None, ingest_flags(shuffle_ties, max_bad_rows))
    corpus = read_corpus(run_stages("ingest", data, releases, settings), currency=settings.reason.currency)
    output.print(cost_table(estimate_steps(corpus), num_items=items, num_users=users))
