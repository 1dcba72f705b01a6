"""What a user costs in Redis."""

from pathlib import Path

import numpy as np

from isrf.method.interest import Neighbours
from isrf.method.recommend.request import UserInterests
from service.inference import group_cache
from service.state.connect import open_store
from service.state.records import Cached
from service.state.redis.keys import user_keys
from tests.service.servers import RedisServer, apply_to, event, settings_for

NOW = 1_700_000_000.0
LIMIT = 3_200


async def test_a_user_with_20_items_fits_into_3_2_kb(redis_server: RedisServer, tmp_path: Path) -> None:
    """All but the stream: version, history, marks, event ids, interests of 128 numbers and 100 neighbours."""
    rng = np.random.default_rng(0)
    users = rng.permutation(42_000)[:100][None].astype(np.int64)
    similarity = np.sort(rng.uniform(0.7, 1.2, (1, 100)).astype(np.float32))[:, ::-1]
    vectors = rng.normal(size=(2, 1, 128)).astype(np.float32)
    interests = group_cache.rounded(
        UserInterests(vectors[0], Neighbours(users, similarity, np.array([False])), vectors[1])
    )
    store = await open_store(settings_for(redis_server, tmp_path))
    with redis_server.client() as client:
        client.flushall()
        user_id = "A3SGXH7AUHU8GW"
        items = [f"B00{k:07d}" for k in range(20)]
        await apply_to(store)(*(event(item, NOW + 977.0 * k, user_id=user_id) for k, item in enumerate(items)))
        payload = group_cache.encode(interests, version="v", release_id="r", snapshot="c")
        version = (await store.read(user_id)).version
        await store.keep(user_id, version, group=Cached(payload, 3600))
        # The last answer comes on top, for minutes and a few hundred bytes.
        sizes = {
            kind: client.memory_usage(key) for kind, key in user_keys(user_id)._asdict().items() if kind != "answer"
        }
    assert sum(sizes.values()) <= LIMIT, sizes
    assert len(payload) < 1000
    await store.close()
