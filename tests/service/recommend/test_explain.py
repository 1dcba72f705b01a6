"""Every reason's evidence stands in the release's own files: nothing here asks the code that told it."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isrf.method.evidence import RECENT_ITEMS
from isrf.method.interest import Neighbours
from isrf.method.recommend.request import RankedItem, RankingRequest
from isrf.method.text.phrases import phrases
from service.api.schemas.answers import Reason
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.recommend.explain import MAX_PATHS, Explainer
from service.recommend.reasons import reason_body
from service.release.opening import Release, open_release
from service.telemetry.metrics import Metrics

EVIDENCE = {"group", "transition", "cooccurrence", "content"}
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Files:
    """What the release's files say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = (folder / "items.jsonl").read_text().splitlines()
        self.items = [json.loads(line) for line in lines]
        self.row = {item["item_id"]: row for row, item in enumerate(self.items)}
        self.cores = pl.read_parquet(folder / "reasoning" / "user_features.parquet")["core"].to_list()

    @cached_property
    def by_popularity(self) -> list[int]:
        recent, popularity = self.array("evidence/recent"), self.array("popularity")
        return sorted(range(len(recent)), key=lambda row: (-recent[row], -popularity[row], row))

    def array(self, name: str) -> np.ndarray[Any, Any]:
        return loaded(self.folder / f"{name}.npy")

    def listed(self, channel: str, row: int) -> dict[int, float]:
        start, stop = self.array(f"evidence/{channel}_indptr")[row : row + 2]
        indices = self.array(f"evidence/{channel}_indices")[start:stop].tolist()
        weights = self.array(f"evidence/{channel}_weights")[start:stop].tolist()
        assert len(indices) == len(weights)
        return dict(zip(indices, weights, strict=True))


@cache
def loaded(path: Path) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(path)
    return array


@pytest.fixture(scope="module")
def files(tiny_release: Path) -> Files:
    return Files(tiny_release / "current")


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


@pytest.fixture(scope="module")
def engine(release: Release) -> Iterator[Engine]:
    opened = Engine(release, limit=QueueLimit(LoadLimits(1), Metrics()), metrics=Metrics())
    yield opened
    opened.close()


class Told:
    """An explained list, and what it rests on."""

    def __init__(self, engine: Engine, history: Sequence[int], own: int, n: int) -> None:
        async def answer() -> tuple[Neighbours, list[RankedItem]]:
            interests = await engine.read(history, own, engine.snapshot)
            allowed = engine.release.catalogue.allowed()
            allowed[list(history[::2])] = False  # the others were only looked at
            request = RankingRequest(history=history, n=n, allowed=allowed)
            return interests.neighbours, (await engine.rank(request, interests, engine.snapshot)).items

        self.history = list(history)
        self.neighbours, self.items = asyncio.run(answer())
        release = engine.release
        explainer = Explainer(release, engine.snapshot, history, self.neighbours)
        self.reasons = [
            [reason_body(item.item_index, reason, release) for reason in explainer.reasons(item)] for item in self.items
        ]

    @property
    def similar_users(self) -> list[int]:
        return [int(user) for user in self.neighbours.users[0] if user >= 0]


def base_history(release: Release, user: int) -> list[int]:
    lists = release.recommender.tables.user_items
    rows: list[int] = lists.indices[lists.row(user)].tolist()
    return rows


@FEW
@given(place=st.integers(0, 119), session=st.lists(st.integers(0, 119), max_size=30), n=st.sampled_from([1, 10, 200]))
def test_every_item_is_explained_and_every_path_exists(
    place: int, session: list[int], n: int, engine: Engine, files: Files
) -> None:
    release = engine.release
    own = -1 if session else place % len(release.users)
    history = [row % len(files.items) for row in session] or base_history(release, own) or [0]
    told = Told(engine, history, own, n)
    assert told.items
    for item, reasons in zip(told.items, told.reasons, strict=True):
        assert reasons, "every item has an answer to why"
        channels = [reason["channel"] for reason in reasons]
        assert len(channels) == len(set(channels))
        if item.source in EVIDENCE | {"dense", "popular", "generative"}:
            assert channels[0] == item.source
        for reason in reasons:
            Reason.model_validate(reason)
            check(item.item_index, reason, told, files)


def check(item: int, reason: dict[str, Any], told: Told, files: Files) -> None:
    channel, paths = reason["channel"], reason["paths"]
    starts = [files.row[path["item_id"]] for path in paths]
    assert len(starts) == len(set(starts)) <= MAX_PATHS
    assert set(starts) <= set(told.history)
    strengths = [path.get("strength", path.get("similar_users")) for path in paths]
    assert strengths == sorted(strengths, reverse=True)
    if channel in {"transition", "cooccurrence", "content"}:
        assert paths
        assert set(starts) <= set(told.history[-RECENT_ITEMS:])
        for start, strength in zip(starts, strengths, strict=True):
            assert files.listed(channel, start)[item] == pytest.approx(strength, abs=1e-4)
    elif channel == "group":
        check_group(item, reason, starts, told, files)
    elif channel in {"dense", "explicit"}:
        vectors = files.array("item_vectors" if channel == "dense" else "item_embeddings")
        one, other = vectors[starts[0]], vectors[item]
        assert strengths == [pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-3)]
    elif channel == "generative":
        codes = files.array("semantic_ids")
        for start, strength in zip(starts, strengths, strict=True):
            depth = round(strength * codes.shape[1])
            assert (codes[start][:depth] == codes[item][:depth]).all()
    else:
        assert reason["popularity_rank"] == files.by_popularity.index(item) + 1
    if channel != "group":
        features = [phrases(files.items[start]["feature"]) for start in starts]
        own = phrases(files.items[item]["feature"] or "")
        for phrase in reason["words"]:
            assert phrase in own
            assert any(phrase in feature for feature in features)
    titles = [files.items[start].get("title") or files.items[start]["item_id"] for start in starts]
    assert not starts or titles[0][:50] in reason["text"] or starts[0] == item
    assert reason["interest"] == {"group": "group", "popular": "everybody"}.get(channel, "individual")


def check_group(item: int, reason: dict[str, Any], starts: list[int], told: Told, files: Files) -> None:
    users = told.similar_users
    took = {user: files.listed("user_items", user).keys() for user in users}
    takers = [user for user in users if item in took[user]]
    assert (reason["similar_users"], reason["of_similar_users"]) == (len(takers), len(users))
    assert takers
    assert reason["weak"] == bool(told.neighbours.weak[0])
    for start, path in zip(starts, reason["paths"], strict=True):
        assert path["similar_users"] == sum(start in took[user] for user in takers) > 0
    for phrase in reason["words"]:
        assert sum(phrase in phrases(files.cores[user] or "") for user in users) >= 3, "no single user's words"


def test_no_user_is_named(release: Release, engine: Engine) -> None:
    for user in range(0, len(release.users), 19):
        told = Told(engine, base_history(release, user) or [0], user, n=50)
        text = json.dumps(told.reasons)
        assert not any(f'"{user_id}"' in text for user_id in release.users.ids)


def test_a_group_speaks_in_its_own_words(release: Release, engine: Engine) -> None:
    words = []
    for user in range(0, len(release.users), 6):
        told = Told(engine, base_history(release, user) or [0], user, n=10)
        words += [
            r["words"] for item in told.reasons for r in item if r["channel"] == "group" and r["similar_users"] > 4
        ]
    assert len(words) > 5
    assert sum(bool(one) for one in words) > 0.8 * len(words)


def test_what_nobody_took_and_nothing_lists_is_explained(release: Release, engine: Engine) -> None:
    """A cold item: no vector in the graph, in no list; and one without any history to start from."""
    tables = release.recommender.tables
    cold = np.flatnonzero(np.all(tables.item_embeddings == 0, axis=1))
    row = int(cold[0]) if len(cold) else len(release.catalogue) - 1
    for source in ("dense", "explicit", "generative", "popular"):
        ranked = RankedItem(row, 0.0, source)
        for history in ([0], []):
            reasons = Explainer(release, engine.snapshot, history, None).reasons(ranked)
            assert reasons
            assert all(reason_body(row, reason, release)["text"].endswith(".") for reason in reasons)
