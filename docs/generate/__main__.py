"""`python -m docs.generate`: writes every generated page of docs/reference anew."""

from collections.abc import Callable
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"
PAGES: dict[str, Callable[[], str]] = {}


def main() -> None:
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
