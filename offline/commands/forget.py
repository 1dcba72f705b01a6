"""Deletes one user from all data of the offline job: the shop's file, LLM answers, vectors, stage outputs, releases.

It keeps the release that is served now. Publish another release, then run it again; it can run at any time. To hide
the user at once, also under releases made from older data, erase the user in the service (or pass `store` here).
"""

import io
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from isrf.contract.errors import ConfigError, DataError, StageError
from isrf.contract.manifest import MANIFEST_FILE, USERS_FILE
from isrf.runtime.bundle.manifests import CURRENT
from isrf.runtime.release_store.current import read_current
from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore
from offline.commands.loop_back.commit import DataFolder
from offline.commands.loop_back.open_source import erase_from_store
from offline.commands.loop_back.rows import write_interactions
from offline.context import WORK_DIR
from offline.runtime.locks import lock_or_refuse
from offline.stages.embed.stage import STORE_FILE
from offline.stages.reason.llm.calls.ledger import forget_user_answers
from offline.stages.reason.stage import LEDGER_FILE

_MOST_USERS_BYTES = 16 << 30
DELETING_PREFIX = ".forgetting-"


class Forgotten(NamedTuple):
    """What one run deleted, and what it had to keep."""

    rows: int  # deleted from the interactions file
    answers: int  # deleted from the ledger: all users' until now, because an answer does not name its user
    outputs: int  # deleted output folders of stages
    releases: list[str]  # deleted
    republish: list[str]  # served and with the user: publish another release, then run this again


def forget(
    user_id: str,
    data: Path,
    releases: Path,
    *,
    published: StoreUrl | None = None,
    store: str | None = None,
    ledger: Path | None = None,
    erasure_key: str | None = None,
) -> Forgotten:
    """Deletes a user from the shop's file, the ledger, the stage outputs and the releases.

    Args:
        user_id: the shop's id.
        data: the shop's folder.
        releases: the folder of published releases; with `published` the one that the stages work in.
        published: where in an object store the releases are. Those that the store lists are looked at.
        store: URL of the Redis with the user state; None if the service has erased the user already.
        ledger: the ledger of LLM answers; None for the one in the releases folder.
        erasure_key: the service's `ISRF_ERASURE_KEY`.

    Raises:
        DataError: the shop's file cannot be read, or the id is empty (`data.bad_user_id`).
        StageError: another run is using the data or the releases.
        StoreError: as `offline.commands.loop_back.take_in.take_in`.
        ConfigError: as `take_in`; `config.embedded_store` if `store` is not a URL; `config.ledger` if the ledger does
            not exist.
    """
    if not user_id:
        raise DataError("data.bad_user_id", "the user_id is empty.", fix="Pass the id of the user to forget.")
    if ledger is not None and not ledger.is_file():
        raise ConfigError(
            "config.ledger",
            f"the ledger {ledger} does not exist, so its answers about the user would stay.",
            fix="Pass the file of the setting reason.ledger, or leave it out to use the ledger of the releases folder.",
        )
    if store is not None:
        erase_from_store(store, user_id, erasure_key=erasure_key)
    work = releases / WORK_DIR
    with ExitStack() as stack:
        if releases.is_dir():
            stack.enter_context(_lock_outputs(work))
        folder = stack.enter_context(DataFolder(data))
        outputs = _outputs(work)
        user_found = any(_holds_user(output, user_id) for output in outputs)
        rows = folder.rewrite(lambda old, part: write_interactions(old, part, [], forgets={user_id: math.inf}.get))
        # Answers cost money: delete them only if one can be about the user. Do this before deleting the outputs,
        # which show whether one can.
        answers = 0
        if rows or user_found:
            answers = forget_user_answers(ledger or work / "reason" / LEDGER_FILE, before=time.time())
            _forget_vectors(work / "embed")
        folder.replace()
        removed = _forget_outputs(outputs, user_found=user_found)
        deleted, served = _forget_releases(releases, user_id)
        if published is not None:
            more = _forget_published(ObjectStore(published), user_id)
            deleted, served = deleted + more[0], served + more[1]
        return Forgotten(rows, answers, removed, deleted, served)


@contextmanager
def _lock_outputs(work: Path) -> Iterator[None]:
    """Locks the stage outputs: a stage that runs meanwhile would restore deleted data."""
    work.mkdir(exist_ok=True)
    refusal = StageError(
        "stage.locked", f"another run is using {work}.", fix="Wait until it ends, then forget the user again."
    )
    with lock_or_refuse(work / "lock", refusal):
        yield


def _outputs(work: Path) -> list[Path]:
    if not work.is_dir():
        return []
    folders = [folder for stage in work.iterdir() if stage.is_dir() for folder in stage.iterdir() if folder.is_dir()]
    return [folder for folder in folders if not folder.name.endswith(".runs")]


def _forget_outputs(outputs: Sequence[Path], *, user_found: bool) -> int:
    """Deletes all stage outputs if one holds the user; always deletes unfinished outputs, which cannot be checked."""
    to_delete = [
        folder
        for folder in outputs
        if user_found or folder.suffix in (".part", ".scratch") or folder.name.startswith(DELETING_PREFIX)
    ]
    # Outputs with a users file go last: if the process is killed, the next run still finds the user in them.
    for folder in sorted(to_delete, key=lambda folder: (folder / USERS_FILE).exists()):
        _delete(folder)
    return len(to_delete)


def _forget_vectors(folder: Path) -> None:
    """Deletes the text encoder's stored vectors of all users, because a vector does not name its user."""
    for suffix in ("-wal", "-shm", ""):  # the file itself last: nothing would find a log without it
        (folder / f"{STORE_FILE}{suffix}").unlink(missing_ok=True)


def _forget_releases(releases: Path, user_id: str) -> tuple[list[str], list[str]]:
    current = (releases / CURRENT).resolve()
    deleted: list[str] = []
    served: list[str] = []
    if not releases.is_dir():
        return deleted, served
    for folder in sorted(path for path in releases.iterdir() if path.is_dir() and not path.is_symlink()):
        if folder.name.startswith(DELETING_PREFIX):
            _delete(folder)
        elif folder.name == WORK_DIR or not _holds_user(folder, user_id):
            continue
        elif folder.resolve() == current:
            served.append(folder.name)
        else:
            _delete(folder)
            deleted.append(folder.name)
    return deleted, served


def _forget_published(store: ObjectStore, user_id: str) -> tuple[list[str], list[str]]:
    """As `_forget_releases`, in an object store: the manifest goes first, so that nobody opens half a release."""
    current = read_current(store).release_id
    deleted: list[str] = []
    served: list[str] = []
    for name in store.folders():
        users = store.read(f"{name}/{USERS_FILE}", most=_MOST_USERS_BYTES)
        if users is None or not _lists_user(io.BytesIO(users.content), user_id):
            continue
        if name == current:
            served.append(name)
        else:
            store.delete(f"{name}/{MANIFEST_FILE}")
            store.delete_folder(name, last=USERS_FILE)  # in which the run after a killed one finds the user
            deleted.append(name)
    return deleted, served


def _holds_user(folder: Path, user_id: str) -> bool:
    path = folder / USERS_FILE
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        return True  # a pipe or a folder in its place cannot be read either
    return _lists_user(path, user_id)


def _lists_user(users: Path | io.BytesIO, user_id: str) -> bool:
    try:
        return bool((pl.read_parquet(users, columns=["user_id"])["user_id"] == user_id).any())
    except (pl.exceptions.PolarsError, OSError):
        # an unreadable file may hold the user
        return True


def _delete(folder: Path) -> None:
    """Renames the folder, then deletes it, so that no process sees half of it; the next run ends a killed deletion."""
    renamed = (
        folder
        if folder.name.startswith(DELETING_PREFIX)
        else folder.rename(folder.with_name(DELETING_PREFIX + folder.name))
    )
    shutil.rmtree(renamed)
