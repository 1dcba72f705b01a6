"""The pages' colours, read from their style sheets: text can be read on what lies behind it, in light and in dark."""

import re
from pathlib import Path

import pytest

from service.api import pages

COLOUR = re.compile(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)")
TEXT_ON = {
    "demo": {
        "ink": ("page", "card", "soft", "group"),
        "quiet": ("page", "card", "soft", "group"),
        "accent": ("page", "card"),
        "on-accent": ("accent",),
    },
    "studio": {
        "ink": ("page", "card", "soft"),
        "quiet": ("page", "card"),
        "accent": ("page", "card"),
        "on-accent": ("accent",),
        "rule-ink": ("rule", "card"),
        "danger": ("alarm", "card"),
        "notice-ink": ("notice", "card"),
    },
}
PAIRS = [(page, text, one) for page, texts in TEXT_ON.items() for text, behind in texts.items() for one in behind]


def colours(page: str) -> dict[str, dict[str, str]]:
    css = (Path(pages.__file__).with_name(f"{page}_files") / f"{page}.css").read_text(encoding="utf-8")
    return {name: {"light": light, "dark": dark} for name, light, dark in COLOUR.findall(css)}


def luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("page", "text", "behind"), PAIRS)
def test_text_can_be_read(page: str, text: str, behind: str, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1."""
    found = colours(page)
    assert contrast(found[text][scheme], found[behind][scheme]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_field_has_an_edge_that_can_be_seen(scheme: str) -> None:
    """WCAG 2.2 AA: 3 to 1 for what shows where a control is."""
    found = colours("studio")
    assert contrast(found["edge"][scheme], found["card"][scheme]) >= 3


def test_black_on_white_is_21_to_1() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
