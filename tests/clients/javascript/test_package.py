"""The JavaScript client as a package: what npm packs, and the types, where npm and its packages are at hand."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.generate.openapi import document
from tests.clients.javascript.node import PACKAGE, node
from tests.service.servers import PATIENCE_S

OWN = PACKAGE / "node_modules"
MODULES = OWN if OWN.is_dir() else PACKAGE.parents[1] / "var" / "generators" / "node_modules"
"""npm's packages: of `make client-types`, or of the tests of generated clients."""
MANIFEST: dict[str, Any] = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
WITH_TSC = pytest.mark.skipif(
    not (MODULES / ".bin" / "tsc").exists(), reason="no tsc: npm or its registry was not there (make generators)"
)


def ran(*command: str, cwd: Path = PACKAGE) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name: str) -> str:
    return str(MODULES / ".bin" / name)


def named(exports: Any) -> Iterator[str]:
    """The files that a manifest's exports name."""
    if isinstance(exports, str):
        yield exports
    else:
        for inner in exports.values():
            yield from named(inner)


def test_what_the_manifest_names_is_there() -> None:
    for name in {*named(MANIFEST["exports"]), MANIFEST["types"]}:
        assert (PACKAGE / name).is_file(), name
        assert name == "./package.json" or name.split("/")[1] in MANIFEST["files"]
    assert (MANIFEST["type"], MANIFEST["license"]) == ("module", "Apache-2.0")
    assert "dependencies" not in MANIFEST
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"][""]
    assert {name: lock[name] for name in ("name", "version", "devDependencies")} == {
        name: MANIFEST[name] for name in ("name", "version", "devDependencies")
    }
    root = PACKAGE.parents[1]
    assert (PACKAGE / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_every_module_has_its_types() -> None:
    modules = {path.stem for path in (PACKAGE / "src").glob("*.js")}
    assert {path.name.removesuffix(".d.ts") for path in (PACKAGE / "types").iterdir()} == {*modules, "openapi"}


def test_it_is_imported_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "isrf-client").symlink_to(PACKAGE)
    (tmp_path / "shop.mjs").write_text('export * from "isrf-client"; import "isrf-client/types";')
    code = f"said = Object.keys(await import({json.dumps(str(tmp_path / 'shop.mjs'))}));"
    assert node(code) == ["IsrfClient", "IsrfError", "prepare"]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed here")
def test_npm_packs_the_sources_and_their_types_and_nothing_else(tmp_path: Path) -> None:
    # From a copy: npm looks for the folders above and for its own cache.
    copy = tmp_path / "package"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("node_modules"))
    said = json.loads(ran("npm", "pack", "--dry-run", "--json", "--offline", cwd=copy))
    (packed,) = said if isinstance(said, list) else said.values()
    folders = {f"{path.parent.name}/{path.name}" for name in ("src", "types") for path in (PACKAGE / name).iterdir()}
    assert {file["path"] for file in packed["files"]} == folders | {"package.json", "README.md", "LICENSE"}


@WITH_TSC
def test_the_types_are_those_of_the_client(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "src", tmp_path / "src")
    shutil.copy(PACKAGE / "tsconfig.json", tmp_path)
    (tmp_path / "types").mkdir()
    shutil.copy(PACKAGE / "types" / "openapi.d.ts", tmp_path / "types")
    ran(tool("tsc"), "--project", str(tmp_path))
    compare(tmp_path / "types")


@pytest.mark.skipif(not OWN.is_dir(), reason="`npm ci` has not been run in clients/javascript (make client-types)")
def test_the_types_are_those_of_the_api(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(document(), encoding="utf-8")
    (tmp_path / "types").mkdir()
    target = str(tmp_path / "types" / "openapi.d.ts")
    ran(tool("openapi-typescript"), str(tmp_path / "openapi.json"), "--output", target)
    compare(tmp_path / "types")


def compare(types: Path) -> None:
    for made in types.iterdir():
        stored = (PACKAGE / "types" / made.name).read_text(encoding="utf-8")
        assert stored == made.read_text(encoding="utf-8"), f"{made.name} is old: run `make client-types`"


@WITH_TSC
def test_a_shop_in_typescript_is_checked(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "isrf-client").symlink_to(PACKAGE)
    shutil.copy(Path(__file__).with_name("usage.ts"), tmp_path / "usage.mts")
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"]
    ran(tool("tsc"), *options, "--lib", "es2023,dom,dom.iterable,dom.asynciterable", "usage.mts", cwd=tmp_path)
