"""docs/reference says what the code says now; nothing in it is left without a sentence."""

import pytest

from docs.generate import offline_config, settings
from docs.generate.__main__ import PAGES, REFERENCE


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_gives(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run `make docs` and commit docs/reference"


def test_every_setting_has_a_sentence() -> None:
    assert settings.silent() == []


def test_every_setting_of_the_offline_job_has_a_sentence() -> None:
    assert offline_config.silent() == []


def test_every_setting_stands_on_its_page() -> None:
    page = settings.settings_page()
    assert [name for name in settings.Settings.model_fields if f"`{settings.variable(name)}`" not in page] == []
