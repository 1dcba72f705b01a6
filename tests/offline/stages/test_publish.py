"""Publishing puts a verified release in its place, also where a damaged one of the same id lies; nothing is switched
to what does not verify."""

import errno
import fcntl
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from isrf.contract.errors import BundleError, StageError
from isrf.contract.manifest import HISTORIES_FILE, MANIFEST_FILE, USERS_FILE
from isrf.runtime.bundle.manifests import CURRENT, read_manifest
from offline.commands.publish import publish
from offline.runtime.release import open_release
from tests.service.releases import change_manifest
from tests.shops import run_stages, write_shop

CRITIC = "critic"
"""A user who dislikes two items and did nothing else."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("publish")
    rng = random.Random(0)
    items = [f"i{row}" for row in range(12)]
    shop = write_shop(folder / "shop", [], [{"item_id": item, "title": f"Cup {item}"} for item in items])
    rows = [f"u{user},{item},{t},\n" for user in range(30) for t, item in enumerate(rng.sample(items, 5))]
    rows += [f"{CRITIC},{item},9,dislike\n" for item in ("i3", "i4")]
    (shop / "interactions.csv").write_text("user_id,item_id,timestamp,event\n" + "".join(rows))
    return run_stages("export", shop, folder / "work")["export"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def redate(folder: Path) -> None:
    """As an equal run at another time makes it."""
    change_manifest(folder, lambda manifest: manifest.update(created_at="2020-01-01T00:00:00+00:00"))


def test_publishing_again_leaves_a_sound_release_as_it_is(bundle: Path, tmp_path: Path) -> None:
    target = publish(bundle, tmp_path)
    redate(target)
    kept = target.stat().st_ino
    assert publish(bundle, tmp_path) == target
    assert target.stat().st_ino == kept
    assert (tmp_path / CURRENT).resolve() == target.resolve()


@pytest.mark.parametrize(
    "damage",
    [
        lambda target: truncate(target / USERS_FILE),
        lambda target: (target / USERS_FILE).unlink(),
        lambda target: truncate(target / MANIFEST_FILE),
        lambda target: (target / MANIFEST_FILE).unlink(),
        shutil.rmtree,
    ],
)
def test_a_damaged_release_is_replaced(bundle: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    target = publish(bundle, tmp_path)
    damage(target)
    assert publish(bundle, tmp_path) == target
    assert open_release(target).manifest == read_manifest(bundle)
    assert {path.name for path in tmp_path.iterdir()} == {target.name, CURRENT}


def test_a_kill_between_the_renames_is_made_good_by_publishing_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = publish(bundle, tmp_path)
    truncate(target / USERS_FILE)
    rename = Path.rename

    def killed(path: Path, to: Path) -> Path:
        if path.name.startswith(".publishing-"):
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(bundle, tmp_path)
    publish(bundle, tmp_path)
    assert open_release(tmp_path / CURRENT).manifest == read_manifest(bundle)
    assert {path.name for path in tmp_path.iterdir()} == {target.name, CURRENT}


def test_a_bundle_that_does_not_verify_takes_nobodys_place(bundle: Path, tmp_path: Path) -> None:
    target = publish(bundle, tmp_path / "releases")
    truncate(target / USERS_FILE)
    broken = shutil.copytree(bundle, tmp_path / "broken")
    truncate(broken / USERS_FILE)
    with pytest.raises(BundleError):
        publish(broken, tmp_path / "releases")
    assert (tmp_path / "releases" / CURRENT).resolve() == target.resolve()
    assert (target / MANIFEST_FILE).exists()


def test_who_only_dislikes_is_a_user_of_the_release(bundle: Path) -> None:
    users = pl.read_parquet(bundle / USERS_FILE)["user_id"].to_list()
    row = pl.read_parquet(bundle / HISTORIES_FILE).row(users.index(CRITIC), named=True)
    assert row["user_index"] == users.index(CRITIC)
    assert sorted(row["disliked_item_ids"]) == ["i3", "i4"]
    assert row["item_ids"] == row["timestamps"] == row["events"] == []


def test_one_publishes_at_a_time(bundle: Path, tmp_path: Path) -> None:
    """The second is told so; the copy that the first is making is left alone."""
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    beside = tmp_path / ".publishing-r-1"
    beside.mkdir()
    with pytest.raises(StageError) as refused:
        publish(bundle, tmp_path)
    os.close(handle)
    assert (refused.value.code, beside.exists()) == ("publish.locked", True)
    publish(bundle, tmp_path)
    assert not beside.exists(), "whoever began it is gone"


def test_a_full_disk_leaves_what_was_served_and_nothing_half_done(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = publish(bundle, tmp_path)
    truncate(target / USERS_FILE)

    def full(source: str, to: str, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), to)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", full)
        patched.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
        with pytest.raises(StageError) as refused:
            publish(bundle, tmp_path)
    assert refused.value.code == "publish.no_space"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, CURRENT}
    assert publish(bundle, tmp_path) == target


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_no_link_in_the_place_of_current_is_said_before_any_work(
    bundle: Path, tmp_path: Path, folder: bool
) -> None:
    (tmp_path / CURRENT).mkdir() if folder else (tmp_path / CURRENT).touch()
    with pytest.raises(StageError) as refused:
        publish(bundle, tmp_path)
    assert refused.value.code == "publish.current"
    assert {path.name for path in tmp_path.iterdir()} == {CURRENT}


def test_a_pipe_or_a_link_in_the_place_of_the_release_is_replaced(bundle: Path, tmp_path: Path) -> None:
    target = publish(bundle, tmp_path / "releases")
    for put in (os.mkfifo, lambda path: path.symlink_to(bundle), lambda path: path.symlink_to(path.name)):
        shutil.rmtree(target)
        put(target)
        assert publish(bundle, tmp_path / "releases") == target
        assert open_release(target).manifest == read_manifest(bundle)


def test_two_runs_at_other_times_have_one_id_and_seals_of_their_own(bundle: Path, tmp_path: Path) -> None:
    one = publish(bundle, tmp_path / "one")
    other = Path(shutil.copytree(one, tmp_path / "other"))
    redate(other)
    first, second = read_manifest(one), read_manifest(other)
    assert first.release_id == second.release_id == one.name
    assert first.sha256 != second.sha256
