"""The offline job on an object store: it works on a local disk, and only what is published goes to the store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isrf.contract.errors import BundleError, IsrfError
from isrf.runtime.release_store.current import read_current
from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore
from isrf.runtime.release_store.remote import local_release
from isrf.runtime.release_store.upload import publish_to_store
from offline.__main__ import app
from tests.object_store import StoreServer, environment
from tests.service.releases import id_of, named_copy
from tests.shops import TINY, write_shop

pytestmark = pytest.mark.trained
ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4}"} for row in range(12)]
EVENTS = [(f"u{user}", f"i{(user * 5 + step * 7) % 12}", 10 * step) for user in range(30) for step in range(6)]
SETTINGS = [part for setting in TINY for part in ("--set", setting)]
URL = StoreUrl("s3", "shops", "offline/releases")


def offline(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(scope="module", autouse=True)
def store(store_server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with environment(store_server.address), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISRF_RELEASE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield ObjectStore(URL)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, store: ObjectStore) -> Path:
    """A shop's folder, trained and published by the command itself."""
    folder = write_shop(tmp_path_factory.mktemp("published") / "shop", EVENTS, ITEMS)
    done = offline("run", "--data", folder, "--releases", URL, *SETTINGS)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{URL}/{read_current(store).release_id}"
    return folder


def test_the_stages_work_beside_the_data_and_only_releases_are_in_the_store(shop: Path, store: ObjectStore) -> None:
    assert {path.name for path in shop.parent.iterdir()} == {"shop", "shop-work"}
    assert {path.name for path in (shop.parent / "shop-work").iterdir()} == {".work"}
    assert store.folders() == [read_current(store).release_id]


def test_a_second_run_reuses_the_stages_and_uploads_nothing(shop: Path, store: ObjectStore) -> None:
    before = store.read("current", most=100)
    done = offline("run", "--data", shop, "--releases", URL, "--work", shop.parent / "shop-work", *SETTINGS)
    assert done.exit_code == 0, done.output
    assert "uploaded" not in done.output
    assert store.read("current", most=100) == before


def test_commands_take_a_releases_url(shop: Path, store: ObjectStore, tmp_path: Path) -> None:
    measured = offline("evaluate", "--release", URL, "--data", shop)
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout)["release_id"] == read_current(store).release_id
    shown = offline("reason", "show", "i3", "--release", f"{URL}/{read_current(store).release_id}")
    assert shown.exit_code == 0, shown.output


def test_a_store_that_is_gone_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    shop = write_shop(tmp_path / "shop", EVENTS, ITEMS)
    done = offline("run", "--data", shop, "--releases", URL, *SETTINGS)
    assert isinstance(done.exception, BundleError)
    assert done.exception.code == "bundle.store_unreachable"
    assert not (tmp_path / "shop-work").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "--data", ".", "--releases", "s3://key:word@shop/a"), "config.releases_url"),
        (("run", "--data", ".", "--releases", "{tmp}", "--work", "{tmp}/w"), "config.work"),
        (("replay", "--data", ".", "--releases", "s3://shop/a"), "config.needs_folder"),
        (("evaluate", "--data", ".", "--release", "s3://shops/nothing/here"), "bundle.no_release"),
    ],
)
def test_what_cannot_work_with_a_url_says_so(arguments: tuple[str, ...], code: str, tmp_path: Path) -> None:
    done = offline(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert isinstance(done.exception, IsrfError), done.output
    assert done.exception.code == code


def test_forget_deletes_a_users_releases_in_the_store_but_the_served_one(
    shop: Path, store: ObjectStore, tmp_path: Path
) -> None:
    old = read_current(store)
    assert old.release_id is not None
    newer = named_copy(local_release(str(URL)), tmp_path, "newer")
    publish_to_store(newer, store)
    store.put("of-another-program/table", b"")
    served = offline("forget", "u3", "--data", shop, "--releases", URL)
    assert served.exit_code == 1
    assert f"deleted releases: {old.release_id}" in served.output
    assert f"still served: {id_of(newer)}" in served.output
    assert store.folders() == ["of-another-program", id_of(newer)]
    assert store.read(f"{id_of(newer)}/manifest.json", most=1 << 24) is not None
