"""Makes the lists of all users: opens what an earlier run has left, asks the service, and writes the file."""

import asyncio
import hashlib
import json
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
from rich.progress import Progress

import isrf
from isrf.contract.errors import ConfigError, StageError
from isrf.runtime.bundle.manifests import find_release, read_manifest
from offline.commands.recommend import list_client
from offline.commands.recommend.calls import open_session, read_url
from offline.commands.recommend.list_client import ListClient, Pace, UserList
from offline.commands.recommend.output import check_out, write_failures, write_lists
from offline.commands.recommend.parts import (
    PART_USERS,
    ListParts,
    PartReport,
    check_settings,
    clear_parts,
    lock_parts,
    open_parts,
    remove_parts,
)
from offline.commands.recommend.private_service import answer_settings, private_service
from offline.commands.recommend.users import ALL, read_users, release_users

METADATA = "isrf"


class ListOptions(NamedTuple):
    """The options of a run.

    Attributes:
        users: `all`, or a file.
        column: the file's own name of the column `user_id`.
        releases: folder of releases, or one release.
        service: address of a running service; None starts one.
        api_key: for the running service.
        state_dir: embedded store whose state the started service copies.
        placements: TOML file for the started service.
        placement: whose lists are made; None for those of `GET /recommend/{user_id}`.
        n: items of a list; None for the placement's length, or 10.
    """

    users: str
    out: Path
    column: str | None = None
    releases: Path | None = None
    service: str | None = None
    api_key: str | None = None
    state_dir: Path | None = None
    placements: Path | None = None
    placement: str | None = None
    n: int | None = None
    overwrite: bool = False
    restart: bool = False


class Stopped(Exception):  # noqa: N818 - no error: somebody stopped the run
    """The run was stopped by a signal; says how many users are done, and their lists stay."""


def make_lists(options: ListOptions, progress: Progress) -> PartReport:
    """Writes the lists of all users to `options.out`, and returns what there is to say of them.

    Raises:
        ConfigError, DataError, StageError, StoreError: as the modules of this package.
        Stopped: by SIGINT or SIGTERM.
    """
    _check_combination(options)
    check_out(options.out, overwrite=options.overwrite)
    named = None if options.users == ALL else read_users(Path(options.users), options.column)
    with lock_parts(options.out) as folder:
        if options.restart:
            clear_parts(folder)
        if options.service is None and options.releases is not None:
            # Before the service is started; a running one says which release it has.
            release_id = read_manifest(find_release(options.releases)).release_id
            check_settings(folder, _settings(options, named, release_id))
        parts = asyncio.run(_make_parts(options, named, folder, progress))
        report = parts.report()
        write_lists(parts.files, options.out, {METADATA: json.dumps(_about(parts, report))})
        write_failures(report.failures, options.out)
        remove_parts(folder)
    return report


def _check_combination(options: ListOptions) -> None:
    problem = ""
    if options.service is None and options.releases is None:
        problem = "neither --releases nor --service says where the lists come from"
    elif options.service is not None and (options.state_dir or options.placements):
        problem = "a running service has its own state and placements, and --state-dir or --placements is given"
    elif options.service is not None and options.releases is None and options.users == ALL:
        problem = "--users all needs --releases, which holds the users of the service's release"
    elif options.service is None and options.placement is not None and not (options.placements or options.state_dir):
        problem = f"there is no placement {options.placement!r} in a service of its own without any"
    elif options.column is not None and options.users == ALL:
        problem = "--column names a column of the file of --users, and there is none"
    if problem:
        raise ConfigError(
            "config.recommend",
            f"the options do not fit together: {problem}.",
            fix="Give --releases DIR (with --state-dir and --placements, where the shop has them), or --service URL.",
        )


async def _make_parts(options: ListOptions, named: pl.Series | None, folder: Path, progress: Progress) -> ListParts:
    task = asyncio.current_task()
    assert task is not None
    parts: ListParts | None = None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with _client(options, folder) as client:
            release_id = await client.release_id()
            since_release: list[str] = []
            if named is None:
                since_release = await client.users_since_release()

            def find_users() -> pl.Series:
                if named is not None:
                    return named
                assert options.releases is not None
                known = release_users(options.releases, release_id)
                more = pl.Series("user_id", since_release, dtype=pl.String)
                return pl.concat([known, more.filter(~more.is_in(known.implode()))])

            parts = open_parts(folder, _settings(options, named, release_id), find_users)
            await _fill(parts, client, release_id, keep_unknown=named is not None, progress=progress)
            return parts
    except asyncio.CancelledError:
        done = 0 if parts is None else parts.num_users_done
        raise Stopped(
            f"{done} of {len(parts.users)} users are done" if parts and done else "no list is stored yet"
        ) from None


@asynccontextmanager
async def _client(options: ListOptions, folder: Path) -> AsyncIterator[ListClient]:
    """Asks the running service, or one that is started for it."""
    placed = options.placement is not None
    if options.service is not None:
        pace = list_client.RUNNING_PLACEMENT if placed else list_client.RUNNING
        async with open_session(options.api_key) as session:
            yield ListClient(session, read_url(options.service), placement=options.placement, n=options.n, pace=pace)
        return
    assert options.releases is not None
    release = find_release(options.releases)
    private: Pace = list_client.PRIVATE_PLACEMENT if placed else list_client.PRIVATE
    async with (
        private_service(
            release, folder / "service", state_dir=options.state_dir, placements=options.placements
        ) as service,
        open_session(service.api_key) as session,
    ):
        client = ListClient(
            session,
            read_url(service.url),
            placement=options.placement,
            n=options.n,
            pace=private,
            check=service.check,
        )
        await client.wait_until_ready()
        yield client


async def _fill(
    parts: ListParts, client: ListClient, release_id: str, *, keep_unknown: bool, progress: Progress
) -> None:
    """Asks for the lists of all users that are not done, a few batches at a time, and writes a part when it is full."""
    shown = progress.add_task("lists", total=len(parts.users), completed=parts.num_users_done)
    asked: deque[asyncio.Task[list[UserList]]] = deque()
    made: list[UserList] = []
    next_user = parts.num_users_done
    try:
        while asked or next_user < len(parts.users):
            while len(asked) < client.pace.requests_at_once and next_user < len(parts.users):
                # A batch ends where its part ends.
                most = min(client.pace.batch_users, PART_USERS - next_user % PART_USERS)
                batch = parts.users[next_user : next_user + most].to_list()
                next_user += len(batch)
                asked.append(asyncio.create_task(client.lists(batch)))
            made += await asked.popleft()
            progress.update(shown, completed=parts.num_users_done + len(made))
            if len(made) == PART_USERS or parts.num_users_done + len(made) == len(parts.users):
                await _check_release(client, release_id)
                parts.add(made, keep_unknown=keep_unknown)
                made = []
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _check_release(client: ListClient, release_id: str) -> None:
    now = await client.release_id()
    if now != release_id:
        raise StageError(
            "recommend.release_changed",
            f"the service has switched from the release {release_id} to {now} meanwhile, and a file holds the lists "
            "of one release.",
            fix="Run the command again with --restart, or make the lists of the old release with --releases.",
        )


def _settings(options: ListOptions, named: pl.Series | None, release_id: str) -> dict[str, str | int | None]:
    """What the lists depend on: a run goes on only where all of it is the same."""
    return {
        "release": release_id,
        "service": options.service,
        "state": _path(options.state_dir),
        "environment": answer_settings() if options.service is None else None,
        "placement": options.placement,
        "placements": None if options.placements is None else _digest([options.placements.read_bytes()]),
        "n": options.n,
        "users": ALL if named is None else f"{len(named)} of a file ({_digest([u.encode() for u in named])})",
    }


def _digest(contents: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content + b"\n")
    return digest.hexdigest()[:12]


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _about(parts: ListParts, report: PartReport) -> dict[str, object]:
    return {
        "release_id": parts.settings["release"],
        "placement": parts.settings["placement"],
        "placement_versions": list(report.placement_versions),
        "n": parts.settings["n"],
        "users": report.users,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": isrf.__version__,
    }
