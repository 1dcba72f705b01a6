"""The demo page's colours, read from its style sheet: text can be read on what lies behind it, in light and in dark."""

import re
from pathlib import Path

import pytest

from service.api import pages

CSS = (Path(pages.__file__).with_name("demo_files") / "demo.css").read_text(encoding="utf-8")
COLOURS = {
    name: {"light": light, "dark": dark}
    for name, light, dark in re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", CSS)
}
TEXT_ON = {
    "ink": ("page", "card", "soft", "group"),
    "quiet": ("page", "card", "soft", "group"),
    "accent": ("page", "card"),
    "on-accent": ("accent",),
}


def luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "behind"), [(text, one) for text, behind in TEXT_ON.items() for one in behind])
def test_text_can_be_read(text: str, behind: str, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1."""
    assert contrast(COLOURS[text][scheme], COLOURS[behind][scheme]) >= 4.5


def test_black_on_white_is_21_to_1() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
