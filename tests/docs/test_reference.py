"""docs/reference says what the code says now; nothing in it is left without a sentence."""

import re
from pathlib import Path

import pytest

from docs.generate import errors, http_api, offline_config, settings
from docs.generate.__main__ import PAGES, REFERENCE
from docs.generate.error_codes import PACKAGES
from docs.generate.helm import SCHEMA, schema_text
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[2]
NO_CODES = {"http.disconnect", "http.request", "http.route"}
"""Look like codes, and are names of ASGI's and of traces."""


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_gives(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run `make docs` and commit docs/reference"


def test_the_charts_schema_has_the_settings_of_today() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `make docs` and commit deploy/helm"


def test_every_setting_has_a_sentence() -> None:
    assert settings.silent() == []


def test_every_setting_of_the_offline_job_has_a_sentence() -> None:
    assert offline_config.silent() == []


def test_every_setting_stands_on_its_page() -> None:
    page = settings.settings_page()
    assert [name for name in Settings.model_fields if f"`{settings.variable(name)}`" not in page] == []


def test_every_error_code_has_a_group_and_a_sentence() -> None:
    assert errors.unknown() == []


def test_every_error_code_in_the_source_stands_on_its_page() -> None:
    page = errors.errors_page()
    code = re.compile(rf'"((?:{"|".join(errors.GROUPS)})\.(?!npy|json|parquet|safetensors)[a-z_0-9]+)"')
    settings_of_runs = {f"{section}.{name}" for section, cls in offline_config.sections() for name in cls.model_fields}
    for package in PACKAGES:
        for module in (ROOT / package).rglob("*.py"):
            named = set(code.findall(module.read_text(encoding="utf-8")))
            missing = [name for name in named - settings_of_runs - NO_CODES if f'id="{name}"' not in page]
            assert missing == [], module


def test_an_error_code_says_what_it_answers_and_what_to_do() -> None:
    (row,) = [line for line in errors.errors_page().splitlines() if 'id="config.embedded_workers"' in line]
    assert "ISRF_WORKERS is *workers*" in row
    assert "Set REDIS_URL, or use --workers 1." in row
    (row,) = [line for line in errors.errors_page().splitlines() if 'id="overload.expired"' in line]
    assert "| 503 |" in row


def test_every_route_stands_on_its_page() -> None:
    page = http_api.http_api_page()
    paths = create_app(Settings()).openapi()["paths"]
    assert [path for path, calls in paths.items() for one in calls if f"### `{one.upper()} {path}`" not in page] == []
    assert page.count("Role: `admin`.") == 11
    (topic,) = [line for line in page.splitlines() if line.startswith("| `x-shopify-topic`")]
    assert "Part of the path" not in topic
