"""What Redis keeps of the lists that were given: the lists for a while, and counts for good. No user ids anywhere.

isrf:l:<recommendation_id>   string  a list (`service.recommend.result_lists`), with a TTL
isrf:m:<digest>              string  that an item of a list was clicked or bought already, with a TTL
isrf:{b0}:exposure           hash    counts (`service.recommend.click_stats`)
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

COUNTS_KEY = "isrf:{b0}:exposure"


def list_key(recommendation_id: str) -> str:
    return f"isrf:l:{recommendation_id}"


async def keep_lists(client: Any, lists: Mapping[str, bytes], ttl_s: int) -> None:
    pipe = client.pipeline(transaction=False)
    for recommendation_id, payload in lists.items():
        pipe.set(list_key(recommendation_id), payload, ex=ttl_s)
    await pipe.execute()


async def first_marks(client: Any, marks: Sequence[str], ttl_s: int) -> list[bool]:
    pipe = client.pipeline(transaction=False)
    for mark in marks:
        pipe.set(f"isrf:m:{hashlib.blake2b(mark.encode(), digest_size=12).hexdigest()}", b"", ex=ttl_s, nx=True)
    return [bool(answer) for answer in await pipe.execute()]


async def add_counts(client: Any, counts: Mapping[str, int]) -> None:
    pipe = client.pipeline(transaction=False)
    for name, count in counts.items():
        pipe.hincrby(COUNTS_KEY, name, count)
    await pipe.execute()


async def read_counts(client: Any) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in (await client.hgetall(COUNTS_KEY)).items()}
