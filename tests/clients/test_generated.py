"""Clients that well-kept generators make of the OpenAPI document are whole, compile, and call a running service."""

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.releases import shopper_of
from tests.service.servers import PATIENCE_S, ServiceProcess

ROOT = Path(__file__).parents[2]
GENERATORS = ROOT / "var" / "generators"
SOURCE = Path(__file__).parent / "generators"
PACKAGE = "generated_shop_client"
NUM_MODULES = 100
"""Fewer than the modules of a whole Python client."""


def generator(path: str) -> Path:
    """A program of `make generators`."""
    found = GENERATORS / path
    if not found.exists():
        pytest.skip(f"var/generators/{path} is missing: make generators")
    return found


def ran(*command: Any, cwd: Path) -> str:
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tiny_release, tmp_path_factory.mktemp("generated")).start()
    yield process
    process.kill()


@pytest.fixture
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(create_app(Settings()).openapi()))
    return path


@pytest.fixture
def python_client(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    program = generator("bin/openapi-python-client")
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    options = ["--meta", "none", "--output-path", tmp_path / PACKAGE, "--config", tmp_path / "config.yaml"]
    said = ran(program, "generate", "--path", document, *options, cwd=tmp_path)
    # It knows no JSON Lines, no plain text and no picture: bodies have another type beside it, and answers are bytes.
    left_out = re.findall(r"WARNING parsing (\S+ \S+)", said)
    lines = [f"POST /import/{name}" for name in ("items", "events", "users")]
    lines += [f"GET /export/{name}" for name in ("items", "events", "users")]
    assert sorted(left_out) == sorted([*lines, "POST /beacon", "GET /pixel.gif"]), said
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_a_python_client_is_whole_and_calls(python_client: ModuleType, service: ServiceProcess, shopper: str) -> None:
    modules = [one.name for one in pkgutil.walk_packages(python_client.__path__, f"{PACKAGE}.")]
    assert len(modules) > NUM_MODULES
    for name in modules:
        importlib.import_module(name)

    def call(name: str, *given: Any, **named: Any) -> Any:
        module = sys.modules[f"{PACKAGE}.api.{name}"]
        return module.sync(*given, client=client, **named)

    models = sys.modules[f"{PACKAGE}.models"]
    with python_client.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        first = call("recommend.recommend_user", shopper, n=3, filter_="price > 0", explain=True)
        later = call(
            "recommend.recommend_user",
            shopper,
            n=3,
            filter_="price > 0",
            recommendation_id=first.meta.recommendation_id,
            offset=first.meta.next_offset,
        )
        items = [item.item_id for item in (*first.items, *later.items)]
        assert len(set(items)) == 6
        assert all(item.reasons for item in first.items)
        body = models.InteractionsRequest.from_dict({"events": [{"user_id": shopper, "item_id": items[0]}]})
        assert call("interactions.post_interactions", body=body).accepted == 1
        changed = call("items.put_item", items[0], body=models.ItemBody(price=1.5))
        assert changed.item.price == 1.5
        types = sys.modules[f"{PACKAGE}.types"]
        lines = types.File(payload=json.dumps({"item_id": items[1], "price": 2.5}).encode())
        assert call("bulk.import_items", body=lines).accepted == 1
        refused = call("recommend.popular", n=0)
        assert isinstance(refused, models.Problem)
        assert (refused.code, [fault.where for fault in refused.errors]) == ("request.invalid", ["query.n"])


def test_a_typescript_client_compiles_and_calls(
    document: Path, service: ServiceProcess, shopper: str, tmp_path: Path
) -> None:
    program, compiler = (generator(f"node_modules/.bin/{name}") for name in ("openapi-typescript", "tsc"))
    node = shutil.which("node")
    assert node is not None, "npm has installed the generators, and node is not there"
    for name in ("shop.ts", "package.json"):
        shutil.copy(SOURCE / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(GENERATORS / "node_modules")
    # A field of a body that has a default need not be sent.
    ran(program, document, "--output", "schema.ts", "--default-non-nullable", "false", cwd=tmp_path)
    options = ["--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"]
    ran(compiler, *options, "shop.ts", cwd=tmp_path)
    said = json.loads(ran(node, "shop.js", service.url, shopper, cwd=tmp_path))
    assert len(set(said.pop("items"))) == 6
    assert said == {"reasons": True, "accepted": 1, "version": 1, "code": "request.invalid", "fields": ["query.n"]}
