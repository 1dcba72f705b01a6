"""A real release's engine: an answer is the same to the last bit alone and in any company."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from isrf.method.interest import Neighbours
from isrf.method.recommend.request import Ranked, RankingRequest, UserInterests
from isrf.runtime.active_users import read_active_users
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.release.opening import Release, open_release
from service.release.snapshot import make_snapshot
from service.settings import LARGEST_BATCH
from service.telemetry.metrics import Metrics

NUM_USERS = 40


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def engine(release: Release, metrics: Metrics) -> AsyncIterator[Engine]:
    limit = QueueLimit(LoadLimits(1, max_batch=LARGEST_BATCH, max_waiting=1000), metrics)
    one = Engine(release, limit=limit, metrics=metrics)
    yield one
    one.close()


def histories(release: Release) -> list[list[int]]:
    pasts = (release.users.past(str(user_id), lambda _: True) for user_id in list(release.users.ids)[::7])
    read = [release.catalogue.rows(entry.item_id for entry in past.history) for past in pasts]
    return [rows for rows in read if rows][:NUM_USERS]


def same(one: tuple[UserInterests, Ranked], other: tuple[UserInterests, Ranked]) -> bool:
    arrays = [(part.explicit, part.group, *part.neighbours) for part, _ in (one, other)]
    assert isinstance(one[0].neighbours, Neighbours)
    fused = [ranked.fused for _, ranked in (one, other)]
    assert fused[0] is not None
    assert fused[1] is not None
    return (
        one[1].items == other[1].items
        and np.array_equal(fused[0].scores, fused[1].scores)
        and all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
    )


@pytest.mark.parametrize("crowded", [False, True])
async def test_alone_and_in_company_answers_are_equal_to_the_last_bit(
    release: Release, engine: Engine, metrics: Metrics, crowded: bool
) -> None:
    asked = histories(release)
    if crowded:
        people = read_active_users(release.recommender, ["v"] * 9, asked[:9])
        engine.snapshot = make_snapshot(release, [0, 1], {f"new-{k}": one for k, one in enumerate(people)})
    snapshot = engine.snapshot
    rng = np.random.default_rng(0)
    requests = [
        RankingRequest(history=rows, n=10, allowed=rng.random(len(release.catalogue)) < share)
        for rows, share in zip(asked, [1.0, 0.5, 0.02, 1.0] * len(asked), strict=False)
    ]
    alone = [await engine.answer(request, -1, snapshot, None) for request in requests]
    go_on = threading.Event()
    blocked = asyncio.create_task(engine.run("explain", lambda: go_on.wait(60)))
    # Some of them bring interests that were read before; all wait together for the one thread.
    waiting = [
        asyncio.create_task(engine.answer(request, -1, snapshot, alone[k][0] if k % 3 == 0 else None))
        for k, request in enumerate(requests)
    ]
    await asyncio.sleep(0)
    go_on.set()
    together = await asyncio.gather(*waiting)
    await blocked
    assert [same(one, other) for one, other in zip(alone, together, strict=True)] == [True] * len(asked)
    lines = metrics.exposition().decode().splitlines()
    runs = next(float(line.split()[-1]) for line in lines if line.startswith("isrf_model_batch_size_count"))
    assert runs == len(asked) + -(-len(asked) // LARGEST_BATCH)
