"""Takes one user out of all the offline job keeps: the shop's file, reasoned answers, vectors, stage outputs, releases.

It can be run again at any time, and is: a release that is served now stays until another one is. Asking the service to
erase the user (or `store` here) is what hides them at once and keeps them hidden under releases made of older data.
"""

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
from isrf.contract.manifest import USERS_FILE
from isrf.runtime.bundle.manifests import CURRENT
from offline.commands.loop_back.commit import DataFolder
from offline.commands.loop_back.open_source import erase_from_store
from offline.commands.loop_back.rows import write_interactions
from offline.context import WORK_DIR
from offline.runtime.locks import lock_or_refuse
from offline.stages.embed.stage import STORE_FILE
from offline.stages.reason.llm.calls.ledger import forget_user_answers
from offline.stages.reason.stage import LEDGER_FILE

GONE = ".forgetting-"


class Forgotten(NamedTuple):
    """What one run took away, and what it could not."""

    rows: int  # of the interactions file
    answers: int  # of the ledger: everyone's of before, since an answer does not say whom it is about
    outputs: int  # folders of stages
    releases: list[str]  # that were deleted
    republish: list[str]  # that hold the user and are served: publish another, then run this again


def forget(
    user_id: str,
    data: Path,
    releases: Path,
    *,
    store: str | None = None,
    ledger: Path | None = None,
    erasure_key: str | None = None,
) -> Forgotten:
    """Forgets a user.

    Args:
        user_id: the shop's id.
        data: the shop's folder.
        releases: where releases are published.
        store: URL of the Redis that holds user state; None where the service has erased the user already.
        ledger: of reasoned answers, where it lies elsewhere than with the releases.
        erasure_key: what the service has as `ISRF_ERASURE_KEY`.

    Raises:
        DataError: the shop's file cannot be read, or the id is nobody's (`data.bad_user_id`). StageError: another run
        is at work on the data or the releases. StoreError, ConfigError: as
        `offline.commands.loop_back.take_in.take_in`; `config.embedded_store` where `store` is no URL;
            `config.ledger` where there is no such ledger.
    """
    if not user_id:
        raise DataError("data.bad_user_id", "the user_id is empty.", fix="Name the user who is to be forgotten.")
    if ledger is not None and not ledger.is_file():
        raise ConfigError(
            "config.ledger",
            f"there is no ledger {ledger}, so its answers about the user would stay unseen.",
            fix="Name the file that reason.ledger names; without one, the releases' own ledger is taken.",
        )
    if store is not None:
        erase_from_store(store, user_id, erasure_key=erasure_key)
    work = releases / WORK_DIR
    with ExitStack() as stack:
        if releases.is_dir():
            stack.enter_context(_alone(work))
        folder = stack.enter_context(DataFolder(data))
        outputs = _outputs(work)
        concerned = any(_holds(output, user_id) for output in outputs)
        rows = folder.rewrite(lambda old, part: write_interactions(old, part, [], forgets={user_id: math.inf}.get))
        # Only if some answer can be about them, and before the traces that say so are gone: answers are paid for.
        answers = 0
        if rows or concerned:
            answers = forget_user_answers(ledger or work / "reason" / LEDGER_FILE, before=time.time())
            _forget_vectors(work / "embed")
        folder.replace()
        return Forgotten(
            rows, answers, _forget_outputs(outputs, concerned=concerned), *_forget_releases(releases, user_id)
        )


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """No stage runs meanwhile: it would bring back what is being deleted."""
    work.mkdir(exist_ok=True)
    refusal = StageError("stage.locked", f"a run is at work in {work}.", fix="Wait for it to end, and forget again.")
    with lock_or_refuse(work / "lock", refusal):
        yield


def _outputs(work: Path) -> list[Path]:
    if not work.is_dir():
        return []
    folders = [folder for stage in work.iterdir() if stage.is_dir() for folder in stage.iterdir() if folder.is_dir()]
    return [folder for folder in folders if not folder.name.endswith(".runs")]


def _forget_outputs(outputs: Sequence[Path], *, concerned: bool) -> int:
    """Deletes all stages' outputs if any was made of the user's events; half-finished ones cannot be told, and go."""
    doomed = [
        folder
        for folder in outputs
        if concerned or folder.suffix in (".part", ".scratch") or folder.name.startswith(GONE)
    ]
    # Those by which it is seen that there is something to delete go last: a kill must leave them.
    for folder in sorted(doomed, key=lambda folder: (folder / USERS_FILE).exists()):
        _delete(folder)
    return len(doomed)


def _forget_vectors(folder: Path) -> None:
    """Deletes the text encoder's kept vectors, everyone's: a vector does not say whose text it is of."""
    for suffix in ("-wal", "-shm", ""):  # the file itself last: a log without it is found by nobody
        (folder / f"{STORE_FILE}{suffix}").unlink(missing_ok=True)


def _forget_releases(releases: Path, user_id: str) -> tuple[list[str], list[str]]:
    current = (releases / CURRENT).resolve()
    deleted: list[str] = []
    served: list[str] = []
    if not releases.is_dir():
        return deleted, served
    for folder in sorted(path for path in releases.iterdir() if path.is_dir() and not path.is_symlink()):
        if folder.name.startswith(GONE):
            _delete(folder)
        elif folder.name == WORK_DIR or not _holds(folder, user_id):
            continue
        elif folder.resolve() == current:
            served.append(folder.name)
        else:
            _delete(folder)
            deleted.append(folder.name)
    return deleted, served


def _holds(folder: Path, user_id: str) -> bool:
    path = folder / USERS_FILE
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        return True  # a pipe or a folder in its place: as below
    try:
        return bool((pl.read_parquet(path, columns=["user_id"])["user_id"] == user_id).any())
    except (pl.exceptions.PolarsError, OSError):
        # What cannot be read cannot be said to be free of them.
        return True


def _delete(folder: Path) -> None:
    """In two steps, so that nobody finds a folder half empty; what a kill leaves of the second the next run deletes."""
    gone = folder if folder.name.startswith(GONE) else folder.rename(folder.with_name(GONE + folder.name))
    shutil.rmtree(gone)
