"""README.md is one screen, and no document names a call that is not there or a line that nobody can read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MOST_WORDS = 700
WIDEST = 100


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_readme_is_one_screen() -> None:
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", DOCUMENTS, ids=names)
def test_every_call_that_is_named_exists(page: Path) -> None:
    paths = create_app(Settings()).openapi()["paths"]
    for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[\w/{}.]*)", page.read_text(encoding="utf-8")):
        assert any(matches(path, known) and method.lower() in calls for known, calls in paths.items()), (method, path)


def matches(path: str, known: str) -> bool:
    """Whether a path is a route's, with an id or with its name in braces."""
    return path == known or re.fullmatch(re.sub(r"\{\w+\}", r"[^{}]+", known), path) is not None


def test_calls_are_named() -> None:
    assert (
        sum(len(re.findall(r"`(?:GET|POST|PUT|DELETE) /", page.read_text(encoding="utf-8"))) for page in DOCUMENTS) > 20
    )


def test_every_setting_that_readme_names_exists() -> None:
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
    of_compose = set(re.findall(r"\$\{(ISRF_[A-Z_]+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert set(re.findall(r"\bISRF_[A-Z_]+\b", README)) <= known | of_compose


def wide_lines(page: Path) -> Iterator[str]:
    """Lines of prose that are too long; tables, code and lines with a link may be longer."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        line = re.sub(r"`[^`]+`", "", line)
        if len(line) > WIDEST and not fenced and not line.startswith("|") and "](" not in line and "://" not in line:
            yield f"{number}: {line}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=names)
def test_no_line_is_too_wide(page: Path) -> None:
    assert list(wide_lines(page)) == []
