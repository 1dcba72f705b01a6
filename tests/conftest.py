"""Releases that are really trained, once a session and shared by all test processes.

`ISRF_TEST_CACHE=DIR` keeps them between sessions, for quick runs of single tests: empty the folder after a change of
the offline job or of the bundle.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from offline.commands.demo_shop.generate import generate
from offline.commands.publish import publish
from offline.config import build_config
from tests.shops import run_stages


def _shared(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first test process to come fills and the others wait for."""
    base = tmp_path_factory.getbasetemp()
    cache = os.environ.get("ISRF_TEST_CACHE")
    root = Path(cache) if cache else base.parent if base.name.startswith("popen-") else base
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "finished").exists():
            make(folder)
            (folder / "finished").touch()
    return folder


@pytest.fixture(scope="session")
def demo_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo shop's two files, with fewer shoppers."""

    def make(folder: Path) -> None:
        generate(folder / "data", seed=0, num_shoppers=600)

    return _shared(tmp_path_factory, "demo-shop", make) / "data"


@pytest.fixture(scope="session")
def demo_release(tmp_path_factory: pytest.TempPathFactory, demo_shop: Path) -> Path:
    """A releases folder with one release of the demo shop and `current` pointing to it; shared: do not change it."""

    def make(folder: Path) -> None:
        config = build_config(
            "demo",
            None,
            (
                "train.epochs=2",
                "graph.epochs=4",
                "evaluate.bootstrap_samples=50",
                "search.int8=true",
                "search.fp16=true",
            ),
        )
        publish(run_stages("export", demo_shop, folder, config)["export"], folder)

    return _shared(tmp_path_factory, "demo-release", make)
