"""The parameters of a call for a placement's items."""

from dataclasses import dataclass

from service.recommend.placements.placement import Kind, Placement
from service.recommend.query_models import ListQuery, owner_of
from service.release.catalogue import EVERYTHING

OWN_ITEMS: frozenset[Kind] = frozenset({"buy-again", "recently-viewed"})
"""Kinds that list what the user has taken or seen already."""


@dataclass(frozen=True, kw_only=True)
class PlacedQuery:
    """The parameters of a call for a placement's items.

    Attributes:
        given: item_ids of the page's product and of the cart.
        session: item_ids, oldest first, where the user has no history.
    """

    n: int | None = None
    user_id: str | None = None
    given: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
    explain: bool = False
    offset: int = 0
    recommendation_id: str | None = None

    def owner(self, name: str) -> str:
        """Returns the owner of the list of a placement for this call's user and items."""
        return owner_of("placement", "\n".join((name, self.user_id or "", *sorted(set(self.given)))))

    def list_query(self, placement: Placement | None) -> ListQuery:
        """Returns the query of a list; without a placement that of a later page, whose list knows the rest."""
        return ListQuery(
            n=self.n or (placement.length if placement else 10),
            explain=self.explain,
            offset=self.offset,
            recommendation_id=self.recommendation_id,
            session=self.session,
            item_filter=placement.item_filter if placement else EVERYTHING,
            diversity=placement.diversity if placement else 0.0,
            include_seen=placement is not None and not OWN_ITEMS.isdisjoint(placement.kinds),
        )
