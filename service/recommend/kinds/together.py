"""Complements of a product or of a whole cart."""

from collections.abc import Sequence

import numpy as np

from isrf.method.evidence import ItemLists
from isrf.method.interest import BoolArray
from isrf.method.kinds.together import complements
from isrf.method.recommend.product_groups import ProductLists
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem
from service.release.snapshot import Snapshot


def together_items(snapshot: Snapshot, given: Sequence[int], allowed: BoolArray, *, count: int) -> list[RankedItem]:
    """Returns the allowed items that go best with the given ones; none where nobody took any together with them.

    Args:
        given: item rows of the snapshot; neither they nor their variants are listed.
        allowed: (N,).
    """
    if not given:
        return []
    tables, distinct = snapshot.recommender.tables, list(dict.fromkeys(given))
    facts = snapshot.release.users.facts
    baskets: ItemLists = facts.baskets.with_rows(len(tables.item_vectors) + 1 - len(facts.baskets.indptr))
    if tables.products is not None:
        baskets = ProductLists(baskets, tables.products)
    found = complements(
        distinct,
        tables.item_lists,
        baskets=baskets,
        vectors=tables.item_vectors,
        popularity=tables.recent_shares(),
    )
    listed = allowed & found.found
    listed[snapshot.release.catalogue.groups.with_variants(distinct)] = False
    rows = np.flatnonzero(listed)
    order = rows[np.lexsort((rows, -found.scores[rows]))][:count]
    return [RankedItem(int(row), round(float(found.scores[row]), SCORE_DIGITS), "together") for row in order]
