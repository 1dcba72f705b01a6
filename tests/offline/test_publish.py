"""Publishing puts a verified release in its place, also where a damaged one of the same id lies; nothing is switched
to what does not verify."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from isrf.bundle import HISTORIES_FILE, MANIFEST_FILE, USERS_FILE
from isrf.errors import BundleError
from offline.publish import CURRENT, publish
from offline.release import open_release, read_manifest
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
