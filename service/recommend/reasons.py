"""Defines a reason for a recommended item, and writes its sentence from the reason's evidence alone.

    user → item of theirs → [similar users who took both →] recommended item

Similar users appear as counts, never as ids. `service.recommend.explain` finds the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from service.release.opening import Release

MAX_TITLE = 60
"""Characters of a title in a sentence."""

ReasonChannel = Literal["group", "transition", "cooccurrence", "content", "explicit", "dense", "generative", "popular"]

PopularWith = Literal["everybody", "newcomers"]


class Path(NamedTuple):
    """A path from one of the user's items to the recommended item.

    Attributes:
        item: row of the user's item.
        strength: weight of the edge between the two items; its meaning depends on the channel.
        similar_users: in the group channel, how many similar users took both items.
        live_users: how many other users are behind the edge since the release, where the release itself has no such
            edge.
    """

    item: int
    strength: float | None = None
    similar_users: int | None = None
    live_users: int | None = None


@dataclass(frozen=True, kw_only=True)
class ItemReason:
    """The evidence of one channel for an item.

    Attributes:
        paths: strongest first.
        words: the group's interest, or phrases that the item's semantic feature shares with those of the user's items.
        similar_users: how many similar users took the item.
        of_similar_users: how many similar users there are.
        weak: True where no user is really similar; then these are the nearest few.
        popularity_rank: 1 for the most popular item.
        popular_with: whose recent events give that rank; None: it is by how many users took the item.
    """

    channel: ReasonChannel
    paths: Sequence[Path] = ()
    words: Sequence[str] = ()
    similar_users: int | None = None
    of_similar_users: int | None = None
    weak: bool | None = None
    popularity_rank: int | None = None
    popular_with: PopularWith | None = None


_INTEREST: dict[ReasonChannel, str] = {"group": "group", "popular": "everybody"}


def reason_body(item: int, reason: ItemReason, release: Release) -> dict[str, Any]:
    """Returns a reason as a JSON object, with item ids in place of rows and without empty fields."""
    catalogue = release.catalogue
    optional_fields = {
        "similar_users": reason.similar_users,
        "of_similar_users": reason.of_similar_users,
        "weak": reason.weak,
        "popularity_rank": reason.popularity_rank,
    }
    paths = [
        {
            "item_id": catalogue.item_id(path.item),
            **{name: value for name, value in path._asdict().items() if name != "item" and value is not None},
        }
        for path in reason.paths
    ]
    return {
        "channel": reason.channel,
        "interest": _INTEREST.get(reason.channel, "individual"),
        "text": sentence(item, reason, release),
        "paths": paths,
        "words": list(reason.words),
        **{name: value for name, value in optional_fields.items() if value is not None},
    }


def sentence(item: int, reason: ItemReason, release: Release) -> str:
    """Returns a reason as one sentence.

    Args:
        item: row of the recommended item.
        reason: the evidence.
        release: the release that the rows belong to.
    """
    names = _names([path.item for path in reason.paths], release)
    alike = _alike(reason.words)
    if reason.channel == "group":
        return _group(reason, release)
    if reason.channel in ("transition", "cooccurrence"):
        return _by_takers(reason, release)
    if reason.channel == "content":
        return f"It is described much like {names}{alike}."
    if reason.channel == "popular":
        return _popular(item, reason, release)
    if reason.channel == "generative":
        return _generative(reason, release)
    path = reason.paths[0]
    if path.item == item:
        return "It is itself among your latest items."
    where = "in the graph of who took what" if reason.channel == "explicit" else "by what the model learned of them"
    return f"Of your items {names} is nearest to it {where} (cosine {path.strength:.2f}){alike}."


def _group(reason: ItemReason, release: Release) -> str:
    is_single = reason.of_similar_users == 1
    whom = "nearest to you, though not really like you," if reason.weak else "most like you"
    group = f"{reason.similar_users} of the {reason.of_similar_users} shoppers"
    text = f"{'The shopper' if is_single else group} {whom} took it"
    if reason.paths:
        path = reason.paths[0]
        also = ", and" if reason.similar_users == 1 else f"; {path.similar_users} of them took"
        text += f"{also} {_name(path.item, release)} as you did"
    return text + (f"; what they look for: {', '.join(reason.words)}." if reason.words else ".")


def _by_takers(reason: ItemReason, release: Release) -> str:
    """The sentence about items whose takers took the recommended item: before the release, and since."""
    before = [path.item for path in reason.paths if path.live_users is None]
    did = "went on to take this" if reason.channel == "transition" else "also took this"
    sentences = [f"Shoppers who took {_names(before, release)} {did}."] if before else []
    sentences += [
        f"{path.live_users} shoppers who took {_name(path.item, release)} took this too since the last release."
        for path in reason.paths
        if path.live_users is not None
    ]
    return " ".join(sentences)


def _generative(reason: ItemReason, release: Release) -> str:
    levels = release.semantic_ids.shape[1]
    text = "The model spelled it out from your latest items, code by code"
    if not reason.paths:
        return f"{text}; none of theirs begins alike."
    path = reason.paths[0]
    same = round((path.strength or 0) * levels)
    return f"{text}; the code of {_name(path.item, release)} begins alike ({same} of {levels}){_alike(reason.words)}."


def _popular(item: int, reason: ItemReason, release: Release) -> str:
    if release.catalogue.popularity[item] == 0 and reason.popular_with is None:
        return "Nobody has taken it yet: it is here because nothing that speaks for itself was left."
    if reason.popular_with is not None:
        whom = "new shoppers" if reason.popular_with == "newcomers" else "shoppers"
        return f"It is number {reason.popularity_rank} of {len(release.catalogue)} by what {whom} took lately."
    return f"It is number {reason.popularity_rank} of {len(release.catalogue)} by how many took it."


def _alike(words: Sequence[str]) -> str:
    return f"; in common: {', '.join(words)}" if words else ""


def _names(rows: Sequence[int], release: Release) -> str:
    names = [_name(row, release) for row in rows]
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _name(row: int, release: Release) -> str:
    item = release.catalogue.items[row]
    title = " ".join((item.title or item.item_id).split())
    return f"“{title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1].rstrip() + '…'}”"
