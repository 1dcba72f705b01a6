"""What fills a list is found in order, however many blocks of the catalogue it takes."""

import numpy as np
import pytest

from isrf.method.recommend import popular_items
from isrf.method.recommend.popular_items import first_allowed


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 4, 50])
def test_the_first_allowed_rows_come_in_order(block: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popular_items, "POPULAR_BLOCK", block)
    rng = np.random.default_rng(0)
    order, allowed, taken = rng.permutation(20), rng.random(20) < 0.6, rng.permutation(20)[:5]
    wanted = [row for row in order.tolist() if allowed[row] and row not in taken.tolist()][:count]
    assert first_allowed(order, allowed, taken, count) == wanted
