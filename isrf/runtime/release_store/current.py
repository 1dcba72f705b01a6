"""The object `current` of a store: the id of the release to serve, and nothing else.

It is switched by a conditional write: of two jobs that publish at once, one switches it and the other learns so.
"""

import re
from typing import NamedTuple

from isrf.contract.errors import BundleError, StageError
from isrf.runtime.bundle.manifests import CURRENT
from isrf.runtime.release_store.objects import (
    NoConditionsError,
    ObjectStore,
    Version,
    WrittenMeanwhileError,
)

_MOST_BYTES = 1000
_RELEASE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")


class Current(NamedTuple):
    """What `current` names, None where it is not there yet; and its version."""

    release_id: str | None
    version: Version | None


def read_current(store: ObjectStore) -> Current:
    """Reads `current`; raises `BundleError` (`bundle.current`) where it names no release, or the store's error."""
    found = store.read(CURRENT, most=_MOST_BYTES)
    if found is None:
        return Current(None, None)
    name = found.content.decode("utf-8", "replace").strip()
    if not _RELEASE_ID.fullmatch(name):
        raise BundleError(
            "bundle.current",
            f"{CURRENT} in {store.url} holds {name[:80]!r}, which is no release's id.",
            fix=f"Write the id of a release there, as text, or publish again once {CURRENT} is deleted.",
        )
    return Current(name, found.version)


def switch_current(store: ObjectStore, release_id: str, seen: Current) -> bool:
    """Points `current` at a release, unless another job has pointed it elsewhere since `seen` was read.

    Returns:
        Whether the store checks the condition itself. Where it does not, `current` is read again right before it is
        written, and again afterwards: two jobs in the same moment can then both believe to have switched it, and the
        last one has.

    Raises:
        StageError: `publish.overtaken`, another job was faster; `current` names its release.
    """
    content = f"{release_id}\n".encode()
    try:
        store.put_if(CURRENT, content, seen.version)
    except WrittenMeanwhileError:
        # Also where the answer to our own write was lost, and the write was sent again.
        _refuse_other(store, release_id)
        return True
    except NoConditionsError:
        if read_current(store) != seen:
            _refuse_other(store, release_id)
        store.put(CURRENT, content)
        _refuse_other(store, release_id)
        return False
    return _checks_conditions(store, content)


def _refuse_other(store: ObjectStore, release_id: str) -> None:
    winner = read_current(store).release_id
    if winner != release_id:
        raise StageError(
            "publish.overtaken",
            f"another job published {winner} in {store.url} meanwhile, so {CURRENT} stays with it; the files of "
            f"{release_id} are there too.",
            fix="If yours is to be served, run the same command again: it reuses the stages and the uploaded files.",
        )


def _checks_conditions(store: ObjectStore, content: bytes) -> bool:
    """Whether the store refuses to create an object that exists; some accept the condition and ignore it."""
    try:
        store.put_if(CURRENT, content, None)
    except WrittenMeanwhileError:
        return True
    except NoConditionsError:
        return False
    return False
