"""Medians of runs in turn, and the ratio of two checkouts."""

from side_by_side import medians_of


def test_each_figure_is_the_median_of_its_runs() -> None:
    assert medians_of({"here": [{"p50": 3.0}, {"p50": 1.0}, {"p50": 2.0}]}) == {"here": {"p50": 2.0}}


def test_two_checkouts_have_a_ratio() -> None:
    found = medians_of({"here": [{"p50": 1.0}, {"p50": 3.0}], "against": [{"p50": 8.0}, {"p50": 8.0}]})
    assert found == {"here": {"p50": 2.0}, "against": {"p50": 8.0}, "ratio": {"p50": 0.25}}
