"""The house stays one that a newcomer finds their way in: small folders, small modules, few libraries below."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("isrf", "offline", "service")
MOST_ENTRIES = 14
MOST_LINES = 350
LIBRARIES = {"isrf.contract": {"numpy", "pydantic", "pydantic_core"}, "isrf.method": {"numpy", "pydantic"}}
"""What the lowest layers may import beside the standard library and ours."""


NOT_READ = {"__pycache__", "py.typed"}
"""Entries that nobody reads."""


def folders() -> Iterator[Path]:
    for package in PACKAGES:
        for folder in (ROOT / package, *(ROOT / package).rglob("*")):
            if folder.is_dir() and folder.name != "__pycache__":
                yield folder


def modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from (ROOT / package).rglob("*.py")


def imported(module: Path) -> set[str]:
    """Top-level packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_no_folder_has_too_many_entries() -> None:
    sizes = {str(one): sum(entry.name not in NOT_READ for entry in one.iterdir()) for one in folders()}
    assert {name: size for name, size in sizes.items() if size > MOST_ENTRIES} == {}


def test_no_module_is_too_long() -> None:
    sizes = {str(one): len(one.read_text(encoding="utf-8").splitlines()) for one in modules(*PACKAGES)}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


@pytest.mark.parametrize("package", LIBRARIES)
def test_the_lowest_layers_import_few_libraries(package: str) -> None:
    allowed = {*sys.stdlib_module_names, *LIBRARIES[package], "isrf"}
    found = {str(one): imported(one) - allowed for one in modules(package.replace(".", "/"))}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_package_says_what_it_holds() -> None:
    silent = [
        str(init)
        for init in modules(*PACKAGES)
        if init.name == "__init__.py" and not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_two_public_types_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for module in modules(*PACKAGES):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(module))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
