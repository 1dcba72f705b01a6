"""The plots of the benchmarks are what their figures make, and the page names the same figures."""

from pathlib import Path

import pytest

from docs.generate.plots import DOCS, FIGURES, PLOTS, rows_of, svg

PAGE = (DOCS / "benchmarks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_is_drawn_from_its_figures(name: str) -> None:
    assert (PLOTS / f"{name}.svg").read_bytes() == svg(name)


@pytest.mark.parametrize("name", FIGURES)
def test_the_page_shows_the_plot(name: str) -> None:
    assert f"]({(PLOTS / name).relative_to(DOCS).as_posix()}.svg)" in PAGE


def test_the_page_names_every_quality_figure() -> None:
    figures = [f"{row['ndcg_at_10']:.4f} ({row['low']:.4f}–{row['high']:.4f})" for row in rows_of("quality")]
    assert [one for one in figures if one not in PAGE] == []


def test_every_figure_has_a_command_of_ours() -> None:
    scripts = {row["command"].split()[1] for name in FIGURES for row in rows_of(name)} - {"-m"}
    assert scripts
    assert [script for script in sorted(scripts) if not (Path(DOCS).parent / script).exists()] == []
