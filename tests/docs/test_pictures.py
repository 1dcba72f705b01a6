"""The documents' pictures: each is small, is shown somewhere with a text, and is one that the script takes."""

import re
import struct
from pathlib import Path

import pytest

from docs.generate.pictures import IMAGES, MAX_BYTES, NAMES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PICTURES = sorted(IMAGES.iterdir())


def shown() -> dict[Path, str]:
    """Each picture of a page, with the text for those who cannot see it."""
    return {
        (page.parent / target).resolve(): text
        for page in PAGES
        for text, target in re.findall(r"!\[([^\]]*)\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))
    }


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    assert {one for one in shown() if one.parent == IMAGES} == set(PICTURES)
    assert [str(one) for one in shown() if not one.is_file()] == []


def test_every_picture_has_a_text() -> None:
    assert [str(one) for one, text in shown().items() if len(text.split()) < 5] == []


def test_the_script_takes_every_picture() -> None:
    assert {one.stem for one in PICTURES} <= set(NAMES)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda one: one.name)
def test_a_picture_is_a_small_png_of_few_colours(picture: Path) -> None:
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert len(content) <= MAX_BYTES
    (colour_type,) = struct.unpack_from("B", content, 25)  # of the IHDR chunk
    assert colour_type == 3, "a palette"
