"""`python -m docs.generate`: writes every generated page of docs/reference anew, and the Helm chart's schema."""

from collections.abc import Callable
from pathlib import Path

from docs.generate.cli import cli_page
from docs.generate.errors import errors_page
from docs.generate.helm import SCHEMA, helm_page, schema_text
from docs.generate.http_api import http_api_page
from docs.generate.metrics import metrics_page
from docs.generate.offline_config import offline_config_page
from docs.generate.settings import settings_page

REFERENCE = Path(__file__).parents[1] / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "helm-values.md": helm_page,
    "http-api.md": http_api_page,
    "metrics.md": metrics_page,
    "offline-config.md": offline_config_page,
    "settings.md": settings_page,
}


def main() -> None:
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
