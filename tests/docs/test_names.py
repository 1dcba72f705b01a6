"""What the documents name is there: files, modules and their names, settings; and ARCHITECTURE.md stays one read."""

import re
from pathlib import Path

import pytest

from docs.generate.helm import chart_values
from offline.commands.recommend.command import API_KEY
from service.consume.command import VARIABLES as CONSUMER_VARIABLES
from service.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])
OURS = ("isrf", "offline", "service", "tests", "docs", "docker", "deploy", "benchmarks", "clients", "examples")
MOST_WORDS = 1500
CHART_VALUES = {".".join(value.path) for value in chart_values()}
"""Values of the Helm chart; some look like modules of the service."""

_QUOTED = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:{'|'.join(OURS)})(?:/[\w.-]+)+/?")
_NAME = re.compile(r"(?:isrf|offline|service)(?:\.\w+)+")


def quoted(page: Path) -> set[str]:
    """What stands in backticks."""
    return set(_QUOTED.findall(page.read_text(encoding="utf-8")))


def is_there(name: str) -> bool:
    """Whether `package.module.Class.method` leads to a module that has all that follows."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module.exists():
            text = module.read_text(encoding="utf-8")
            return all(re.search(rf"\b{part}\b", text) for part in parts[count:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_name_is_there(page: Path) -> None:
    words = quoted(page)
    paths = {word for word in words if _PATH.fullmatch(word) and not (ROOT / word).exists()}
    names = {word for word in words if _NAME.fullmatch(word) and not is_there(word)}
    assert paths | (names - CHART_VALUES) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_setting_exists(page: Path) -> None:
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
    known |= {"ISRF_TEST_KAFKA", API_KEY, f"{API_KEY}_FILE", *CONSUMER_VARIABLES}
    of_compose = set(re.findall(r"\$\{(ISRF_[A-Z_]+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    named = {name for word in quoted(page) for name in re.findall(r"\bISRF_[A-Z_]+\b", word)}
    assert named - known - of_compose == set()


def test_architecture_is_one_read() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split()) <= MOST_WORDS
