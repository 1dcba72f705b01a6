"""Draws the plots of docs/benchmarks.md from the JSON lines of docs/data: `python -m docs.generate.plots`.

Equal figures give equal bytes. The background is transparent and the ink has a middle grey, so that a plot can be
read on a light and on a dark page. It measures nothing: each line names the command that measured it.
"""

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

DOCS = Path(__file__).parents[1]
PLOTS = DOCS / "assets" / "plots"

INK, FAINT = "#7d838c", "#7d838c40"
COLOURS = ("#4c7ef3", "#e0823d", "#2fa37c")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "isrf",
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
SHOWN = (
    "fused (learned ranker)",
    "dense path alone",
    "generative path alone",
    "SASRec (RecTools)",
    "last-item transition",
    "item-kNN",
    "popularity",
)
"""Lists of the quality plot, from top to bottom; the table beside it has all."""

LEAST_REQUESTS = 200
"""Fewest requests of a week that the replay's plot shows."""

Row = dict[str, Any]


def rows_of(name: str) -> list[Row]:
    """The figures of `docs/data/NAME.jsonl`."""
    return [json.loads(line) for line in (DOCS / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def quality(rows: Sequence[Row]) -> Figure:
    """NDCG@10 with 95% intervals of our lists beside others', a panel for each data set."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, data in zip(panels, ("Beauty", "Toys"), strict=True):
        for colour, shift, ties in zip(COLOURS, (-0.13, 0.13), ("file order", "ties shuffled"), strict=False):
            found = [row for row in rows if (row["data"], row["ties"]) == (data, ties) and row["list"] in SHOWN]
            means = [row["ndcg_at_10"] for row in found]
            below = [row["ndcg_at_10"] - row["low"] for row in found]
            above = [row["high"] - row["ndcg_at_10"] for row in found]
            places = [SHOWN.index(row["list"]) + shift for row in found]
            axes.errorbar(
                means, places, xerr=(below, above), fmt="o", markersize=4.5, capsize=2.5, color=colour, label=ties
            )
        axes.set_title(f"Amazon {data}", fontsize=10)
        axes.set_xlabel("NDCG@10, 95% interval")
    panels[0].set_xlim(left=0)  # of both, after the last point
    panels[0].set_yticks(range(len(SHOWN)), SHOWN)
    panels[0].invert_yaxis()
    panels[1].legend(loc="lower right")
    return figure


def latency(rows: Sequence[Row]) -> Figure:
    """Time of a request that needs the model against the size of the catalogue."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    items = [row["num_items"] for row in rows]
    for colour, name in zip(COLOURS, ("p50", "p95", "p99"), strict=True):
        axes.plot(items, [row[f"{name}_ms"] for row in rows], "o-", markersize=4.5, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(items, [f"{count:,}" for count in items])
    axes.set_yticks((10, 20, 50, 100, 200))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)
    axes.set_xlabel("items")
    axes.set_ylabel("one request over HTTP, ms")
    axes.legend(loc="upper left")
    return figure


def load(rows: Sequence[Row]) -> Figure:
    """How many answers a second one worker gives, and how long they take at 70% of that."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    rates, times = figure.subplots(1, 2, sharey=True)
    names = [row["release"] for row in rows]
    places = range(len(rows))
    rates.plot([row["most_per_s"] for row in rows], places, "o", markersize=5, color=COLOURS[0], label="at most")
    _joined(rates, [(row["within_100_ms_per_s"], row["most_per_s"]) for row in rows], COLOURS[1], "99% within 100 ms")
    rates.set_xlim(left=0)
    rates.set_xlabel("answered a second")
    times.plot(
        [row["p99_ms"] for row in rows if row["p99_ms"]],
        [place for place in places if rows[place]["p99_ms"]],
        "o",
        markersize=5,
        color=COLOURS[0],
        label="p99",
    )
    _joined(times, [(row["p50_ms"], row["p99_ms"]) for row in rows], COLOURS[2], "p50")
    times.set_xlim(left=0)
    times.set_xlabel("ms, at 70% of the most")
    rates.set_yticks(places, names)
    rates.set_ylim(len(rows) - 0.6, -0.4)
    for axes in (rates, times):
        axes.legend(loc="lower right")
    return figure


def replay(rows: Sequence[Row]) -> Figure:
    """NDCG@10 of a replayed period by week since the release, with a part that stands still."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for axes, data in zip(panels, ("Beauty", "Toys"), strict=True):
        for colour, name in zip(COLOURS, ("as served", "evidence frozen", "history frozen"), strict=True):
            weeks = [row for row in rows if (row["data"], row["variant"]) == (data, name) and _is_week(row)]
            places = [int(row["requests_kind"].split()[1]) for row in weeks]
            axes.plot(places, [row["ndcg_at_10"] for row in weeks], "o-", markersize=3.5, color=colour, label=name)
            low, high = ([row[end] for row in weeks] for end in ("low", "high"))
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(f"Amazon {data}", fontsize=10)
        axes.set_xlabel("week since the release")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("NDCG@10, 95% interval")
    panels[0].legend(loc="upper left")
    return figure


def _is_week(row: Row) -> bool:
    """Whether a row is about the requests of one week, and they are not few."""
    return str(row["requests_kind"]).startswith("week ") and row["requests"] >= LEAST_REQUESTS


def _joined(axes: Axes, ends: Sequence[tuple[float | None, float | None]], colour: str, label: str) -> None:
    """A point at the first of each pair and a line to the second; nothing where either was not measured."""
    there = [(place, first, second) for place, (first, second) in enumerate(ends) if first and second]
    axes.hlines(
        [place for place, _, _ in there],
        [first for _, first, _ in there],
        [second for _, _, second in there],
        color=FAINT,
        linewidth=2,
        zorder=1,
    )
    axes.plot(
        [first for _, first, _ in there], [place for place, _, _ in there], "o", markersize=5, color=colour, label=label
    )


FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "quality": quality,
    "replay": replay,
    "latency": latency,
    "load": load,
}
"""By the name of their JSON lines and of their picture."""


def svg(name: str) -> bytes:
    """The picture of `docs/data/NAME.jsonl`."""
    out = BytesIO()
    with mpl.rc_context(STYLE):
        FIGURES[name](rows_of(name)).savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def main() -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        (PLOTS / f"{name}.svg").write_bytes(svg(name))


if __name__ == "__main__":
    main()
