"""`python -m offline import SOURCE FILE… --out DIR`: files of a shop system as the folder of the data contract."""

from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.text import Text

from isrf.contract.errors import ConfigError
from offline.cli import BadRowsOption, console
from offline.importers.folder import Kind, write_folder
from offline.importers.report import ImportReport
from offline.importers.sources import OWN, find_importer
from offline.reading.settings import IngestConfig


def import_files(
    *,
    source: Annotated[str, typer.Argument(help=f"The shop system: {', '.join(OWN)}, or one that a package adds.")],
    files: Annotated[list[Path], typer.Argument(help="Its files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write interactions.csv and items.jsonl to.")],
    only: Annotated[str | None, typer.Option(help="Write only one kind: items or interactions.")] = None,
    max_bad_rows: BadRowsOption = None,
) -> None:
    """Write the folder that training reads from the files of a shop system; say what was left out."""
    kind: Kind | None = None
    if only is not None:
        known = {name: name for name in get_args(Kind)}
        if only not in known:
            raise ConfigError("import.only", f"--only {only!r} is neither.", fix=f"Use {' or '.join(known)}.")
        kind = known[only]
    importer = find_importer(source)
    report = ImportReport(files)
    share = IngestConfig().max_bad_rows if max_bad_rows is None else max_bad_rows
    written = write_folder(importer.read(files, report), out, report, only=kind, max_bad_rows=share)
    sentences = [f"{written.items} items, {written.interactions} interactions from {report.num_rows} rows"]
    for sentence in [*sentences, *report.describe()]:
        console.print(Text(f"import: {sentence}"), soft_wrap=True)
    typer.echo(out)
