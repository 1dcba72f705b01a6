"""Shared code of the commands: options, the configuration from them, progress bars, and running the stages."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isrf.contract.errors import ConfigError
from offline.config import PRESETS, PresetName, RunConfig, build_config
from offline.pipeline import run_until
from offline.runtime.progress_lines import ProgressLines

console = Console(stderr=True)

DataOption = Annotated[
    Path, typer.Option("--data", help="Folder with interactions.{csv,parquet}, items.{jsonl,parquet}.")
]
ReleasesOption = Annotated[Path, typer.Option("--releases", help="Folder that releases are published to.")]
PresetOption = Annotated[str, typer.Option("--preset", help=f"Size of the model: {', '.join(PRESETS)}.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings, section by section.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting: section.key=value. Repeatable.")]
TiesOption = Annotated[int | None, typer.Option("--shuffle-ties", help="Seed that orders equal timestamps.")]
ReasonerOption = Annotated[str | None, typer.Option("--reasoner", help="attribute (no LLM) or llm.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="tfidf-svd, hf:NAME_OR_DIR or openai.")]
BackboneOption = Annotated[str | None, typer.Option("--backbone", help="Pretrained T5: hub name or local folder.")]
BadRowsOption = Annotated[
    float | None, typer.Option("--max-bad-rows", help="Largest share of bad rows that is accepted.")
]
BudgetOption = Annotated[
    str | None, typer.Option("--llm-budget", help="Most LLM calls, such as 5000, or tokens, such as 2000000tokens.")
]
FitOption = Annotated[str | None, typer.Option("--fit", help="train (hold out the last two) or all (production).")]
ReleaseOption = Annotated[Path, typer.Option("--release", help="Folder of one release.")]


def configured(
    preset: str,
    file: Path | None,
    assignments: list[str] | None,
    flags: dict[str, Any],
) -> RunConfig:
    """Builds the configuration from options: preset, file, flags (None: not set), then assignments."""
    if preset not in PRESETS:
        raise ConfigError("config.preset", f"{preset!r} is not a preset.", fix=f"Use one of {', '.join(PRESETS)}.")
    name: PresetName = preset
    tables: dict[str, Any] = {}
    if file is not None:
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError("config.file", f"{file} cannot be read: {error}.", fix="Give a TOML file.") from None
    from_flags = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return build_config(name, tables, (*from_flags, *(assignments or ())))


def ingest_flags(shuffle_ties: int | None, max_bad_rows: float | None) -> dict[str, Any]:
    """The settings from the options of every command that reads the shop's files."""
    return {"ingest.shuffle_ties": shuffle_ties, "ingest.max_bad_rows": max_bad_rows}


def budget_flags(budget: str | None) -> dict[str, Any]:
    """The settings from `--llm-budget`: `5000` limits calls, `2000000tokens` limits tokens."""
    if budget is None:
        return {}
    number, unit = budget.removesuffix("tokens"), "tokens" if budget.endswith("tokens") else "calls"
    if not number.isdigit() or int(number) < 1:
        raise ConfigError(
            "config.llm_budget",
            f"{budget!r} is not a budget.",
            fix="Write --llm-budget 5000 or --llm-budget 2000000tokens.",
        )
    return {f"reason.budget_{unit}": number}


def progress_bars() -> Progress:
    """Progress on standard error: bars that vanish when done, or lines where it is not a terminal."""
    if not console.file.isatty() or console.is_dumb_terminal:
        return ProgressLines(console)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def run_stages(last: str, data: Path, releases: Path, config: RunConfig) -> Path:
    """Runs the stages up to `last`, prints a line for each, and returns the output folder of `last`."""
    with progress_bars() as progress:
        outputs = run_until(
            last,
            data=data,
            releases=releases,
            config=config,
            progress=progress,
            report=lambda line: console.print(f"  {line}", highlight=False),
        )
    return outputs[last]
