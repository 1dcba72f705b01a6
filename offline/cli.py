"""Shared code of the commands: options, the configuration from them, progress bars, and running the stages."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isrf.contract.errors import ConfigError
from isrf.runtime.release_store.locations import Location, StoreUrl, folder_of, location_of
from isrf.runtime.release_store.remote import local_release
from offline.config import PRESETS, PresetName, RunConfig, build_config
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.pipeline import run_until
from offline.runtime.progress_lines import ProgressLines

console = Console(stderr=True)

DataOption = Annotated[
    Path, typer.Option("--data", help="Folder with the files interactions.{csv,parquet,…} and items.{jsonl,csv,…}.")
]


@dataclass(frozen=True)
class Releases:
    """Where a command publishes to: a folder, or a place in an object store."""

    location: Location

    @property
    def store(self) -> StoreUrl | None:
        return self.location if isinstance(self.location, StoreUrl) else None

    def work(self, folder: Path | None, data: Path) -> Path:
        """The local folder that the stages work in: `--work`, else the releases folder, else one beside the data."""
        if isinstance(self.location, Path):
            if folder is not None:
                raise ConfigError(
                    "config.work",
                    f"--work is {folder}, and the folder {self.location} holds the stages' outputs.",
                    fix="Leave out --work, or give --releases a URL.",
                )
            return self.location
        if folder is not None:
            return folder
        return data.absolute().with_name(f"{data.absolute().name}-work")

    def folder(self, what: str) -> Path:
        """The folder; raises `ConfigError` where it is a URL, which `what` cannot work with."""
        return folder_of(self.location, what)


def _read_releases(text: str | Releases) -> Releases:
    return text if isinstance(text, Releases) else Releases(location_of(text))


RELEASES = typer.Option(
    "--releases", parser=_read_releases, help="Folder that releases are published to, or s3://BUCKET/PREFIX."
)
ReleasesOption = Annotated[Releases, RELEASES]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Local folder for the stages' outputs; else the releases folder, or DATA-work if --releases is a URL.",
    ),
]
PresetOption = Annotated[str, typer.Option("--preset", help=f"Size of the model: {', '.join(PRESETS)}.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings, section by section.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting: section.key=value. Repeatable.")]
ReasonerOption = Annotated[str | None, typer.Option("--reasoner", help="attribute (no LLM) or llm.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="tfidf-svd, hf:NAME_OR_DIR or openai.")]
BackboneOption = Annotated[str | None, typer.Option("--backbone", help="Pretrained T5: hub name or local folder.")]
BadRowsOption = Annotated[
    float | None, typer.Option("--max-bad-rows", help="Largest share of bad rows that is accepted.")
]
BudgetOption = Annotated[
    str | None, typer.Option("--llm-budget", help="Most LLM calls, such as 5000, or tokens, such as 2000000tokens.")
]
READING_OPTIONS: dict[str, Any] = {
    "column": Annotated[
        list[str] | None,
        typer.Option("--column", help="The shop's name of a column of ours: user_id=customer. Repeatable."),
    ],
    "time_format": Annotated[
        str | None,
        typer.Option("--time-format", help="How times are written, where it is not recognised: %d.%m.%Y %H:%M."),
    ],
    "category_separator": Annotated[
        str | None, typer.Option("--category-separator", help="What stands between categories in CSV, if not >.")
    ],
    "decimal_comma": Annotated[
        bool | None, typer.Option("--decimal-comma", help="Prices and weights are written as 19,99.")
    ],
    "unknown_items": Annotated[
        str | None,
        typer.Option("--unknown-items", help="Rows of items that the items file lacks: refuse, drop or create."),
    ],
    "shuffle_ties": Annotated[int | None, typer.Option("--shuffle-ties", help="Seed that orders equal timestamps.")],
    "max_bad_rows": BadRowsOption,
}
"""The options of every command that reads the shop's files; each but `column` is named as its setting."""
IngestSettings = dict[str, Any]
"""The settings of `[ingest]` that the options give."""

EngineOption = Annotated[str, typer.Option("--engine", help="Where the stages' pieces run: local or ray.")]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Ray cluster: host:6379 or auto from one of its machines, ray://host:10001 from any; else RAY_ADDRESS, "
        "else this machine's CPUs.",
    ),
]
FitOption = Annotated[str | None, typer.Option("--fit", help="train (hold out the last two) or all (production).")]
RELEASE = typer.Option("--release", parser=local_release, help="Folder of one release, or its URL: s3://BUCKET/PREFIX.")
ReleaseOption = Annotated[Path, RELEASE]


def configured(
    preset: str,
    file: Path | None,
    assignments: list[str] | None,
    flags: dict[str, Any],
    ingest: IngestSettings | None = None,
) -> RunConfig:
    """Builds the configuration from options: preset, file, `[ingest]`, flags (None: not set), then assignments."""
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
    return build_config(name, tables, (*from_flags, *(assignments or ())), ingest=ingest)


def reads_files(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `READING_OPTIONS`; it gets the settings that they give as its argument `ingest`."""

    @wraps(command)
    def with_options(**values: Any) -> None:
        options = {name: values.pop(name) for name in READING_OPTIONS}
        command(**values, ingest=_ingest_settings(options))

    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "ingest"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in READING_OPTIONS.items()]
    by_name = [parameter.replace(kind=keyword) for parameter in own]
    # docs/generate and typer read the options from these.
    with_options.__annotations__ = {**command.__annotations__, **READING_OPTIONS}
    del with_options.__annotations__["ingest"]
    with_options.__signature__ = signature.replace(parameters=[*by_name, *added])  # type: ignore[attr-defined]
    return with_options


def _ingest_settings(options: Mapping[str, Any]) -> IngestSettings:
    settings = {name: value for name, value in options.items() if name != "column" and value is not None}
    columns: dict[str, list[str]] = {}
    for text in options["column"] or ():
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs.strip():
            raise ConfigError("config.column", f"{text!r} is not ours=theirs.", fix="Write --column user_id=customer.")
        columns.setdefault(ours.strip(), []).append(theirs.strip())
    return settings | ({"columns": columns} if columns else {})


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


def run_stages(last: str, data: Path, releases: Path, config: RunConfig, engine: StageEngine = LOCAL) -> Path:
    """Runs the stages up to `last`, prints a line for each, and returns the output folder of `last`."""
    with progress_bars() as progress:
        outputs = run_until(
            last,
            data=data,
            releases=releases,
            config=config,
            progress=progress,
            engine=engine,
            report=lambda line: console.print(f"  {line}", highlight=False),
        )
    return outputs[last]
