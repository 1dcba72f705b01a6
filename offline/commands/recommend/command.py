"""`python -m offline recommend`: its options, and what it says at the end."""

from pathlib import Path
from typing import Annotated

import typer

from isrf.contract.errors import ConfigError
from isrf.contract.shown import printable
from isrf.runtime.release_store.remote import local_release
from offline.cli import console, progress_bars
from offline.commands.recommend.parts import PartReport
from offline.runtime.secret_files import secret

API_KEY = "ISRF_API_KEY"
INTERRUPTED = 130
_NAMED = 3


def recommend(
    *,
    users: Annotated[
        str, typer.Option(help="all, or a file of user ids: one a line, or CSV or Parquet with a column user_id.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz.")],
    releases: Annotated[
        Path | None,
        typer.Option(parser=local_release, help="Folder of releases, or one release; or the URL of either."),
    ] = None,
    placement: Annotated[str | None, typer.Option(help="Make the lists of this placement.")] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, max=200, help="Items of a list; else the placement's length, or 10.")
    ] = None,
    placements: Annotated[
        Path | None,
        typer.Option(help="TOML file with the shop's placements, for a service that is started."),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="The service's embedded store: its state is copied, and stays as it is.")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="Ask the service at this address; without it one is started on the release.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help=f"File with the API key for --service; else {API_KEY} or {API_KEY}_FILE.")
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The file's own name of user_id: user_id=customer.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file where it exists.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an unfinished run has left, and begin anew.")
    ] = False,
) -> None:
    """Write the list of every user to one file; go on where an earlier run stopped. Status 1 if users got none."""
    from offline.commands.recommend.output import failures_file
    from offline.commands.recommend.run import ListOptions, Stopped, make_lists

    options = ListOptions(
        users=users,
        out=out,
        column=None if column is None else column.removeprefix("user_id="),
        releases=releases,
        service=service,
        api_key=_api_key(key_file) if service is not None else None,
        state_dir=state_dir,
        placements=placements,
        placement=placement,
        n=n,
        overwrite=overwrite,
        restart=restart,
    )
    try:
        with progress_bars() as progress:
            report = make_lists(options, progress)
    except (Stopped, KeyboardInterrupt) as stop:
        console.print(f"stopped: {stop or 'all users are done'}. The same command goes on from there.", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    for line in report_lines(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    typer.echo(out)
    if report.failures:
        console.print(f"users without a list: {failures_file(out)}, a file for --users", highlight=False, markup=False)
        raise typer.Exit(1)


def report_lines(report: PartReport) -> list[str]:
    """What a run says beside its file."""
    lines = [f"{report.users} users have a list"]
    if report.left_out:
        lines.append(f"{report.left_out} users of the release are unknown to the service (erased) and left out")
    if report.empty:
        lines.append(f"{report.empty} users have an empty list, and no row")
    for code, found in sorted(report.warnings.items()):
        lines.append(f"{found.users} users: {code}: {printable(found.message, 200)}")
    if len(report.placement_versions) > 1:
        versions = ", ".join(map(str, report.placement_versions))
        lines.append(f"the placement was changed meanwhile: the lists are of its versions {versions}")
    if report.failures:
        reasons = "; ".join(list(dict.fromkeys(reason for _, reason in report.failures))[:_NAMED])
        lines.append(f"{len(report.failures)} users have none, because the service failed on them: {reasons}")
    return lines


def _api_key(key_file: Path | None) -> str | None:
    """The key for the running service."""
    if key_file is None:
        return secret(API_KEY)
    try:
        return key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.secret_file",
            f"the key's file {key_file} cannot be read ({type(error).__name__}).",
            fix="Let it name a text file that holds only the key and that this process can read.",
        ) from None
