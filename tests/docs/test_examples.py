"""Every example in README.md and in the pages of docs/ works, page by page, in the order of the page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.developer import ROOT, Developer, examples, new_developer

WALKED = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "guides").glob("*.md"),
        *(ROOT / "docs" / "concepts").glob("*.md"),
    ]
)
TO_LOOK_UP = {"docs/benchmarks.md", "docs/lab-notebook.md"}
"""Pages whose commands measure for minutes or hours; what they name is held by tests/docs/test_names.py."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


PAGES = [
    page
    for page in WALKED
    if page.relative_to(ROOT).as_posix() not in TO_LOOK_UP and any(not one.not_run for one in examples(text_of(page)))
]


@pytest.fixture
def developer(demo_shop: Path, demo_release: Path, tmp_path: Path) -> Iterator[Developer]:
    one = new_developer(tmp_path, demo_shop, demo_release)
    yield one
    one.kill()


def form(answer: Any) -> Any:
    """The keys of an answer, of the objects in it, and of the first object of each list."""
    inner = {
        name: sorted(first)
        for name, value in answer.items()
        if isinstance(first := value[0] if isinstance(value, list) and value else value, dict)
    }
    return sorted(answer), inner


@pytest.mark.timeout(900)  # a whole shop is trained on some pages, small as it is
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_example_works(page: Path, developer: Developer) -> None:
    for example in examples(text_of(page)):
        said = ""
        for command in example.commands if not example.not_run else ():
            said = developer.do(command)
            if said.startswith("{"):
                answer = json.loads(said)
                assert answer.get("refused", 0) == 0, (command, answer)
                assert answer.get("warnings", []) == [], (command, answer)
        if example.answer is not None:
            assert form(json.loads(said)) == form(example.answer)
    developer.stop()


def test_every_page_with_examples_is_walked() -> None:
    reference = {page for page in (ROOT / "docs" / "reference").glob("*.md") if examples(text_of(page))}
    assert reference == set()
    walked = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "docs/guides/quickstart.md", "docs/guides/call.md", "docs/guides/train.md"} <= walked
    others = {page for page in (ROOT / "docs").rglob("*.md") if examples(text_of(page))} - set(WALKED)
    assert {page.parent.name for page in others} == {"cookbook"}, "tests/docs/test_cookbook.py follows these"


def test_a_block_that_is_not_run_says_why() -> None:
    left_out = [one for page in WALKED for one in examples(text_of(page)) if one.not_run]
    assert all(len(one.not_run) > 5 for one in left_out)
    for page in WALKED:
        assert page.read_text(encoding="utf-8").count("<!-- not run") == text_of(page).count("<!-- not run: "), page


def test_blocks_are_read_as_a_terminal_would() -> None:
    page = (
        "```sh\nls a    # a shop's file\n# a word\ncurl 'a' \\\n  --json '{\n# b'    # c\nls\n```\n\n"
        "<!-- not run: no GPU -->\n```sh\nls\n```\n"
    )
    first, second = examples(page)
    assert first.commands == ["ls a", "curl 'a' \\\n  --json '{\n# b'", "ls"]
    assert (first.not_run, second.not_run) == ("", "no GPU")
