"""The sizing page's estimates: exact where costs are sums of parts, bounded errors, the page's own measurements."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import sizing
from sizing import Fitted, Shop

PAGE = Path(sizing.__file__).parents[1] / "docs" / "guides" / "sizing.md"
LINES: list[dict[str, Any]] = [json.loads(line) for line in sizing.MEASUREMENTS.read_text().splitlines()]
SIZES = [(1_000, 2_000), (10_000, 100_000), (30_000, 20_000), (100_000, 20_000), (100_000, 400_000)]


def _shop(num_items: int, num_users: int, *, num_rows: int = 0, requests_per_s: float = 0.0) -> Shop:
    return Shop(num_items, num_users, 1_000.0, num_rows, requests_per_s, 6)


def test_a_sum_of_parts_is_found_exactly() -> None:
    shops = [_shop(*size) for size in SIZES]
    fit = Fitted.of(shops, [100 + 0.002 * items + 0.0005 * users for items, users in SIZES], sizing.by_size)
    assert fit.value(_shop(50_000, 300_000)) == pytest.approx(100 + 100 + 150)
    assert fit.worst < 1e-6


def test_no_part_shrinks_with_a_shop() -> None:
    fit = Fitted.of([_shop(*size) for size in SIZES], [9.0, 8.0, 7.0, 6.0, 5.0], sizing.by_size)
    assert fit.value(_shop(10**9, 10**9)) >= fit.value(_shop(1, 1)) >= 0
    assert fit.worst > 0.1


@pytest.mark.parametrize("line", [line for line in LINES if line["kind"] == "service"])
def test_a_measured_service_is_estimated_within_the_errors_it_states(line: dict[str, Any]) -> None:
    found = sizing.estimate(_shop(int(line["num_items"]), int(line["num_users"])), LINES)
    for name, error in found["service_errors"].items():
        assert abs(found[name] - line[name]) <= (error + 0.01) * line[name] + 0.1
    assert found["request_cpu_ms"] >= line["request_cpu_ms"] - 0.1
    assert not [what for what in found["outside"] if "service" in what]


def test_a_shop_beyond_the_measured_sizes_is_said_to_be() -> None:
    found = sizing.estimate(_shop(10**7, 10**7, num_rows=10**9), LINES)
    assert len(found["outside"]) == 4
    assert "items, service: 10,000,000" in sizing.table(_shop(10**7, 10**7), found)


def test_a_busier_shop_needs_more() -> None:
    small, large = (sizing.estimate(_shop(10_000, 100_000, requests_per_s=rate), LINES) for rate in (10.0, 100.0))
    assert large["service_cores"] == pytest.approx(10 * small["service_cores"], abs=1)
    assert large["redis_mb"] > small["redis_mb"]


def test_the_pages_example_prints_what_stands_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.read_text()
    command = re.search(r"benchmarks/sizing\.py (--items.*)", page)
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert command is not None
    assert shown is not None
    monkeypatch.setattr(sys, "argv", ["sizing.py", *command[1].split()])
    sizing.main()
    assert capsys.readouterr().out.startswith(shown[1])


def test_the_page_shows_the_measurements() -> None:
    rows = {tuple(re.findall(r"[\d,.]+", row)) for row in PAGE.read_text().splitlines() if row.startswith("| ")}
    for line in LINES:
        if line["kind"] != "redis":
            shown = _row(line)
            assert shown in rows, f"docs/guides/sizing.md lacks the row {shown}"


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    items, users = f"{line['num_items']:,}", f"{line['num_users']:,}"
    if line["kind"] == "service":
        values = [f"{line[name]:,}" for name in ("memory_mb", "own_memory_mb", "disk_mb")]
        return items, users, *values, str(line["start_cpu_s"]), str(line["request_cpu_ms"])
    stages = line["stages"]
    seconds = [f"{stages[name]['cpu_s']:,}" for name in ("graph", "train", "evaluate")]
    named = ("graph", "train", "evaluate")
    others = round(sum(one["cpu_s"] for name, one in stages.items() if name not in named), 1)
    return (
        items,
        f"{line['num_rows']:,}",
        *seconds,
        f"{others:,}",
        f"{max(one['peak_mb'] for one in stages.values()):,}",
    )
