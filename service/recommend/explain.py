"""Explains why an item is recommended: by the paths in the release's data from the user's items to it.

Every path that an explanation shows exists: its item is in the history, its edge is in the lists, vectors or semantic
IDs of the release or was made by at least `LEAST_USERS` users since, and its similar users are among this request's
neighbours. `service.recommend.reasons` defines a reason and writes its sentence.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from isrf.method.evidence import ITEM_CHANNELS, RECENT_ITEMS, ItemChannel
from isrf.method.interest import BoolArray, FloatArray, IntArray, Neighbours
from isrf.method.recommend.live.live_lists import LiveLists
from isrf.method.recommend.request import RankedItem
from isrf.method.text.phrases import PhraseTable, without_overlap
from service.recommend.reasons import ItemReason, Path, PopularWith, ReasonChannel
from service.release.catalogue import LEAST_USERS
from service.release.mapped_entries import user_hash_of
from service.release.opening import Release
from service.release.snapshot import Snapshot

MAX_PATHS = 3
"""Paths of a reason; the strongest are chosen."""
NEGLIGIBLE = 0.1
"""A path weaker than this share of the strongest path is left out."""
MAX_PHRASES = 3
"""Phrases that describe an interest."""
_TOO_FEW = -1


class Explainer:
    """Finds the reasons for the items of one answer."""

    def __init__(
        self,
        release: Release,
        snapshot: Snapshot,
        history: Sequence[int],
        neighbours: Neighbours | None,
        *,
        for_newcomer: bool = False,
        user_id: str | None = None,
    ) -> None:
        """
        Args:
            history: item rows, oldest first.
            neighbours: of this user (batch axis of 1), or None.
            for_newcomer: whether the list's popular items are those that others took as their first ones.
            user_id: who asks; a reason that counts people does not count them.
        """
        self._release, self._tables = release, snapshot.recommender.tables
        self._by_takers = snapshot.recommender.offered.by_popularity
        self._popular_with: PopularWith = "newcomers" if for_newcomer else "everybody"
        self._user_hash = None if user_id is None else user_hash_of(user_id)
        self._ranks: IntArray | None = None  # (N,) of popularity, from 1
        decoding = release.manifest.decoding
        self._recent = _latest(history, RECENT_ITEMS)
        self._encoder_items = _latest(history, decoding.history_length)
        self._interest_items = _latest(history, decoding.interest_length)
        self._group = None if neighbours is None else _Group(release, snapshot, self._interest_items, neighbours)

    def reasons(self, item: RankedItem) -> list[ItemReason]:
        """Returns at least one reason for an item, that of its main source first."""
        row, source = item.item_index, item.source
        found = [self._group.reason(row)] if self._group is not None else []
        found += [self._by_list(row, channel) for channel in ITEM_CHANNELS]
        if source == "generative":
            found.append(self._generative(row) or ItemReason(channel="generative"))
        if source == "explicit":
            found.append(self._nearest(row, "explicit", self._tables.item_embeddings, self._interest_items))
        if source == "dense" or not any(reason is not None and reason.paths for reason in found):
            # No graph leads to the item; the dense path scores every item.
            found.append(self._nearest(row, "dense", self._tables.item_vectors, self._encoder_items))
        reasons = [reason for reason in found if reason is not None]
        if source == "popular" or not reasons:
            reasons.append(self._popular(row))
        return sorted(reasons, key=lambda reason: reason.channel != source)

    def _by_list(self, row: int, channel: ItemChannel) -> ItemReason | None:
        lists = self._tables.item_lists[channel]
        leading = []
        for start in self._recent:
            entries = lists.entries(start)
            at = np.flatnonzero(entries.indices == row)
            if len(at) and (live_users := self._live_users(channel, start, row)) != _TOO_FEW:
                leading.append(Path(start, float(entries.weights[at[0]]), live_users=live_users))
        return self._reason(row, channel, leading)

    def _live_users(self, channel: ItemChannel, start: int, row: int) -> int | None:
        """How many other users are behind a path that only live events make; None where the release has the path too.

        `_TOO_FEW` where they are so few that a reason could tell of one of them.
        """
        lists = self._tables.item_lists[channel]
        if not isinstance(lists, LiveLists) or lists.is_of_release(start, row):
            return None
        people = lists.people(start, row, apart_from=self._user_hash)
        return people if people >= LEAST_USERS else _TOO_FEW

    def _popular(self, row: int) -> ItemReason:
        recent = self._tables.newcomers if self._popular_with == "newcomers" else self._tables.recent
        weight = 0.0 if recent is None else float(recent.weights(np.array([row]))[0])
        if recent is None or weight == 0:
            return ItemReason(channel="popular", popularity_rank=self._release.catalogue.popularity_rank(row))
        if self._ranks is None:  # once for all items of the answer
            order = self._by_takers
            lately = order[np.argsort(-recent.weights(order), kind="stable")]
            self._ranks = np.empty(len(order), dtype=np.int64)
            self._ranks[lately] = np.arange(1, len(order) + 1)
        return ItemReason(channel="popular", popularity_rank=int(self._ranks[row]), popular_with=self._popular_with)

    def _nearest(
        self, row: int, channel: ReasonChannel, vectors: FloatArray, starts: Sequence[int]
    ) -> ItemReason | None:
        """The path from the user's nearest item by cosine; None where the item's vector or all of theirs are zero."""
        starts = [start for start in starts if start != row] or list(starts)
        norms = np.linalg.norm(vectors[starts], axis=1) * np.linalg.norm(vectors[row])
        if not norms.any():
            return None
        cosines = np.where(norms > 0, vectors[starts] @ vectors[row] / np.where(norms > 0, norms, 1), -np.inf)
        best = int(cosines.argmax())
        return self._reason(row, channel, [Path(starts[best], float(cosines[best]))])

    def _generative(self, row: int) -> ItemReason | None:
        """The paths from the user's items whose semantic IDs share a prefix with the item's."""
        codes = self._release.semantic_ids
        leading = []
        for start in (start for start in self._encoder_items if start < len(codes)):
            depth = int(np.cumprod(codes[start] == codes[row]).sum())
            if depth and start != row:
                leading.append(Path(start, depth / codes.shape[1]))
        return self._reason(row, "generative", leading)

    def _reason(self, row: int, channel: ReasonChannel, leading: Sequence[Path]) -> ItemReason | None:
        """A reason with the strongest paths; None without any.

        Args:
            row: of the recommended item.
            leading: paths with a strength, from the latest item first.
        """
        if not leading:
            return None
        strongest = sorted(leading, key=lambda path: -_strength(path))[:MAX_PATHS]
        most = _strength(strongest[0])
        strongest = [path for path in strongest if _strength(path) >= min(NEGLIGIBLE * most, most)]
        wording = self._release.wording
        words = chain(*(wording.common(path.item, row, limit=MAX_PHRASES) for path in strongest))
        return ItemReason(
            channel=channel,
            paths=[path._replace(strength=round(_strength(path), 4)) for path in strongest],
            words=without_overlap(words, limit=MAX_PHRASES),
        )


class _Group:
    """The similar users of one answer, and the items they took."""

    def __init__(self, release: Release, snapshot: Snapshot, items: Sequence[int], neighbours: Neighbours) -> None:
        self._release, self._items = release, items
        self._users = [int(user) for user in neighbours.users[0] if user >= 0]
        self._weak = bool(neighbours.weak[0])
        lists = snapshot.recommender.tables.user_items
        self._places: dict[int, list[int]] = {}
        for place, user in enumerate(self._users):
            for item in set(lists.indices[lists.row(user)].tolist()):
                self._places.setdefault(item, []).append(place)
        self._phrases: PhraseTable | None = None

    def reason(self, row: int) -> ItemReason | None:
        takers = self._took(row)
        if not takers.any():
            return None
        both = [(start, int((takers & self._took(start)).sum())) for start in self._items if start != row]
        strongest = sorted((pair for pair in both if pair[1]), key=lambda pair: -pair[1])[:MAX_PATHS]
        return ItemReason(
            channel="group",
            paths=[Path(start, similar_users=count) for start, count in strongest],
            words=self._interest(takers),
            similar_users=int(takers.sum()),
            of_similar_users=len(self._users),
            weak=self._weak,
        )

    def _took(self, row: int) -> BoolArray:
        """(similar users,) bool."""
        took = np.zeros(len(self._users), dtype=np.bool_)
        took[self._places.get(row, [])] = True
        return took

    def _interest(self, takers: BoolArray) -> list[str]:
        """The phrases that the users who took the item share; where there are too few, those of all similar users."""
        if self._phrases is None:
            self._phrases = self._release.wording.group(self._users)
        return self._phrases.shared(takers, limit=MAX_PHRASES) or self._phrases.shared(limit=MAX_PHRASES)


def _strength(path: Path) -> float:
    return path.strength or 0.0


def _latest(history: Sequence[int], length: int) -> list[int]:
    """Returns the last `length` items without repetitions, latest first."""
    return list(dict.fromkeys(history[-length:][::-1]))
