"""Formats an evaluation as tables for a terminal (a JSON-ready evaluation in, `rich` tables out)."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from offline.stages.evaluate.figures import CUTOFFS
from offline.stages.evaluate.lists import FUSED, LOG_LINEAR, WITHOUT_GENERATIVE


def evaluation_tables(result: dict[str, Any], *, split: str) -> Iterator[Table]:
    """Tables of all lists' metrics, of the fused list's gains, of the fused list by protocol and slice, and of what the
    generative path adds there.

    Args:
        result: one split's part of an evaluation, with the `protocol`.
        split: its name.
    """
    yield _metrics(result, f"{split} · {result['users']} users · {result['protocol']}")
    yield _differences(result)
    yield _parts(result)
    yield _generation(result)


def _lists(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {**{name: result[name] for name in (FUSED, LOG_LINEAR, WITHOUT_GENERATIVE)}, **result["channels"]}


def _metrics(result: dict[str, Any], title: str) -> Table:
    names = [f"{metric}@{k}" for metric in ("HR", "NDCG") for k in CUTOFFS]
    table = _table(title, *names, "shown")  # the share of the catalogue, in a column that leaves room for the names
    for name, figures in _lists(result).items():
        coverage = figures.get("coverage@10")
        table.add_row(
            _words(name),
            *(f"{figures[metric]:.4f}" for metric in names),
            "" if coverage is None else f"{coverage:.1%}",
            style="bold" if name == FUSED else "",
        )
    return table


def _differences(result: dict[str, Any]) -> Table:
    table = _table("", "NDCG@10", "95%", "fused gains", "95%")
    for name, figures in _lists(result).items():
        minus = result["fused_minus"].get(name)
        gain = ("", "") if minus is None else (f"{minus['NDCG@10']:+.4f}", _interval(minus, signed=True))
        table.add_row(_words(name), f"{figures['NDCG@10']:.4f}", _interval(figures), *gain)
    return table


def _parts(result: dict[str, Any]) -> Table:
    table = _table("", "users", "HR@10", "NDCG@10", "95%")
    others = {
        "seen items included": result["seen_included"] | result["seen_included"][FUSED],
        "direct recommendation": result["direct"] | result["direct"][FUSED],
    }
    for name, figures in {**others, **_slices(result)}.items():
        table.add_row(
            name, str(figures["users"]), f"{figures['HR@10']:.4f}", f"{figures['NDCG@10']:.4f}", _interval(figures)
        )
    return table


def _generation(result: dict[str, Any]) -> Table:
    table = _table("what the generative path adds", "users", "NDCG@10", "95%")
    for name, figures in _slices(result).items():
        minus = figures["minus_without_generative"]
        table.add_row(name, str(figures["users"]), f"{minus['NDCG@10']:+.4f}", _interval(minus, signed=True))
    return table


def _slices(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    slices = result["slices"]
    return {
        **{f"history of {name} items": figures for name, figures in slices["history_length"].items()},
        **{
            f"item taken by {name} users{' (cold)' if name == '0' else ''}": figures
            for name, figures in slices["target_popularity"].items()
        },
        **{f"last item → item {name}": figures for name, figures in slices["last_to_target"].items()},
    }


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _interval(figures: dict[str, Any], *, signed: bool = False) -> str:
    low, high = figures["NDCG@10_95"]
    return f"{low:+.4f} – {high:+.4f}" if signed else f"{low:.4f} – {high:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
