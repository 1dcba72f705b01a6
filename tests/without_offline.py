"""A pytest plugin (`-p tests.without_offline`): what only the offline job or a browser needs cannot be imported.

No test finds `redis-server` either.

`make quick` runs with it, so that it passes where none of that is installed.
"""

import os
import shutil
import sys
from pathlib import Path

ONLY_OFFLINE = (
    "torch", "transformers", "accelerate", "safetensors", "sklearn", "onnx", "typer", "rich", "openai", "aiohttp",
    "yarl",
)  # fmt: skip
BROWSERS = ("playwright",)

for _name in (*ONLY_OFFLINE, *BROWSERS):
    sys.modules[_name] = None  # type: ignore[assignment]  # this makes its import an ImportError

_which = shutil.which


def _which_but_redis(cmd: str, mode: int = os.F_OK | os.X_OK, path: str | None = None) -> str | None:
    return None if cmd == "redis-server" else _which(cmd, mode, path)


shutil.which = _which_but_redis  # type: ignore[assignment]  # one of its overloads

NEED_THEM = {
    "tests/service/api/test_demo_page.py",
    "tests/service/api/test_docs_page.py",
    "tests/service/api/test_event_names.py",
    "tests/service/release/test_ahead_of_clock.py",
    "tests/service/sync/test_forget.py",
    "tests/isrf/method/test_ranker.py",
    "tests/isrf/method/test_text.py",
}
"""Test modules that import some of it: no test of theirs can run without."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return collection_path.relative_to(Path(__file__).parents[1]).as_posix() in NEED_THEM or None
