"""The names of the keys of users; `isrf.contract.event_log` has those that the offline job reads too.

All keys of a user, and the stream of their bucket, have the hash tag `{bN}`: they are in one slot of a cluster, so that
one script can use them together. The bucket is a stable hash of the id; changing it or `NUM_BUCKETS` loses state.

    isrf:{b7}:v:<user_id>   string  version: `<nonce>.<count>@<latest timestamp held>`
    isrf:{b7}:h:<user_id>   zset    history since the release: `<item_id>\\n<timestamp>[\\n*]`, scored by timestamp
    isrf:{b7}:x:<user_id>   hash    item_id → mark: latest bought / disliked / removed timestamps
    isrf:{b7}:e:<user_id>   zset    digests of the events of the last 24 h, scored by the server's time of acceptance
    isrf:{b7}:g:<user_id>   string  cached interests (`service.inference.group_cache`), with a TTL
    isrf:{b7}:a:<user_id>   string  the last answer (`service.recommend.response_cache`), with a TTL
    isrf:{b7}:t             hash    tombstones of erased users: keyed hash → nonce, position in the stream, time;
                                    `n`, which changes with every erasure, and `s`, the record of the hash's secret
    isrf:{b7}:f:<hash>      zset    members of an erased user's `e`, as hashes, with a TTL; <hash> as in `t`
    isrf:{b7}:c:<digest>    string  claim of an event id of this bucket (`service.state.redis.users.claims`), with a TTL
    isrf:{b7}:s             stream  accepted events, until the offline job has read them
    isrf:{b0}:meta          hash    `id` of the store, `secret` of its tombstones
    isrf:{b7}:ping          string  written by probes, and before a wait for replicas

Result lists and counts, which name no user, have keys of their own (`service.state.redis.list_store`, `counters`).
"""

import base64
import hashlib
from typing import NamedTuple

from isrf.contract import event_log as stream
from isrf.contract.event_log import META_KEY, NUM_BUCKETS, bucket_of, stream_key, tombstone_key
from service.state.events import Event

__all__ = [
    "META_KEY",
    "NUM_BUCKETS",
    "UserKeys",
    "bucket_of",
    "event_digest",
    "stream_key",
    "tombstone_key",
    "user_keys",
]


class UserKeys(NamedTuple):
    version: str
    history: str
    marks: str
    event_ids: str
    group: str
    answer: str


def user_keys(user_id: str) -> UserKeys:
    return UserKeys(*stream.user_keys(user_id))


def event_digest(event: Event) -> str:
    """Returns the digest by which a user's state recognises an event: 72 bits in 12 characters, for ids of any length.

    It covers the id, the item and the type, so that another event with the same id is not a duplicate.
    """
    identity = "\n".join((event.event_id, event.event, event.item_id))
    return base64.b64encode(hashlib.blake2b(identity.encode(), digest_size=9).digest()).decode()
