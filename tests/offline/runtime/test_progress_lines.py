"""Long work that is not at a terminal says where it is; at a terminal there are bars and no lines."""

import io
import os
import pty
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from isrf.contract.errors import DataError
from offline import cli
from offline.config import build_config
from offline.pipeline import run_until
from offline.runtime.progress_lines import ProgressLines, line_of
from tests.shops import TINY, write_shop

ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4}"} for row in range(12)]
EVENTS = [(f"u{user}", f"i{(user * 5 + step * 7) % 12}", 10 * step) for user in range(60) for step in range(6)]


def test_a_run_without_a_terminal_prints_lines(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop", EVENTS, ITEMS)
    out = io.StringIO()
    config = build_config("demo", None, (*TINY, "graph.epochs=40"))
    with ProgressLines(Console(file=out), every_s=0.005) as progress:
        run_until("graph", data=tmp_path / "shop", releases=tmp_path / "releases", config=config, progress=progress)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    bar = r"  graph: LightGCN, loss \d+\.\d+: \d+ of 40, 0:\d\d passed, (\d+\.\d a second, )?0:\d\d left"
    assert any(re.fullmatch(bar, line) for line in lines), lines
    # A stage without a bar is not silent either.
    assert any(re.fullmatch(r"  ingest: 0:\d\d passed", line) for line in lines), lines
    printed = len(lines)
    progress.add_task("late", total=1)
    assert len(out.getvalue().splitlines()) == printed


def test_a_stage_that_failed_is_told_no_more(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    with ProgressLines(Console(file=io.StringIO())) as progress:
        with pytest.raises(DataError, match="items"):
            run_until(
                "ingest",
                data=tmp_path / "shop",
                releases=tmp_path / "releases",
                config=build_config("demo", None, TINY),
                progress=progress,
            )
        assert progress.tasks == []


def test_a_line_has_rate_and_time_left() -> None:
    now = 0.0
    progress = Progress(disable=True, get_time=lambda: now)
    resumed = progress.add_task("train: epoch 2", total=1000, completed=400, began_at=400)
    begun = progress.add_task("embed", total=50, began_at=0)
    stage = progress.add_task("compile", total=None, began_at=0)
    now = 60.0
    progress.advance(resumed, 120)
    assert line_of(progress.tasks[resumed]) == "train: epoch 2: 520 of 1000, 1:00 passed, 2.0 a second, 4:00 left"
    assert line_of(progress.tasks[begun]) == "embed: 0 of 50, 1:00 passed"
    now = 7260.0
    assert line_of(progress.tasks[stage]) == "compile: 2:01:00 passed"
    progress.advance(begun, 25)
    assert line_of(progress.tasks[begun]) == "embed: 25 of 50, 2:01:00 passed, 2:01:00 left"


def test_lines_take_the_place_of_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(cli, "console", Console(file=terminal))
        assert not isinstance(cli.progress_bars(), ProgressLines)
        monkeypatch.setattr(cli, "console", Console(file=io.StringIO(), force_terminal=True))
        assert isinstance(cli.progress_bars(), ProgressLines)
