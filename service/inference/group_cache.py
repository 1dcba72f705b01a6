"""Encodes a user's interests for the cache in the store: float16 vectors, sealed with what they depend on.

An entry is valid for one user version, release and snapshot; `decode` ignores any other. The engine rounds interests to
float16 *before* it uses them (`rounded`), so that an answer is the same with and without the cache.

    16 bytes  seal (`service.state.sealed`)
     8 bytes  neighbours, width of their list, weak | bytes per step << 1, width of the explicit vector (uint16 each)
    then      steps between the neighbours' sorted rows, their similarities, explicit and group vector (float16)
"""

import numpy as np

from isrf.method.interest import Neighbours
from isrf.method.recommend.request import UserInterests
from service.state.sealed import seal, unseal

_HEADER = 8
_FORMAT = "3"
"""Increased with every change of the layout: replicas of two versions may share one Redis."""


def rounded(interests: UserInterests) -> UserInterests:
    """Returns interests (of any number of queries) as the cache returns them: float16, equal similarities by row."""
    near = interests.neighbours
    similarity = near.similarity.astype(np.float16)
    order = np.stack([np.lexsort((u, -s, u < 0)) for u, s in zip(near.users, similarity, strict=True)])
    return UserInterests(
        interests.explicit.astype(np.float16).astype(np.float32),
        Neighbours(
            np.take_along_axis(near.users, order, axis=1),
            np.take_along_axis(similarity, order, axis=1).astype(np.float32),
            near.weak,
        ),
        interests.group.astype(np.float16).astype(np.float32),
    )


def encode(interests: UserInterests, *, version: str, release_id: str, snapshot: str) -> bytes:
    """Returns the entry for one query's rounded interests, without the padding of the neighbour list."""
    near = interests.neighbours
    taken = near.users[0] >= 0
    by_row = np.argsort(near.users[0][taken])
    steps = np.diff(near.users[0][taken][by_row], prepend=0)
    size = 2 if steps.max(initial=0) < 1 << 16 else 4
    flags = int(near.weak[0]) | size << 1
    counts = np.array([len(steps), near.users.shape[1], flags, interests.explicit.shape[1]], dtype="<u2")
    content = b"".join(
        (
            counts.tobytes(),
            steps.astype(f"<u{size}").tobytes(),
            near.similarity[0][taken][by_row].astype("<f2").tobytes(),
            interests.explicit[0].astype("<f2").tobytes(),
            interests.group[0].astype("<f2").tobytes(),
        )
    )
    return seal(content, _FORMAT, release_id, snapshot, version)


def decode(payload: bytes | None, *, version: str, release_id: str, snapshot: str) -> UserInterests | None:
    """Returns the interests with a batch axis of 1; None where the entry has another version, release or snapshot."""
    content = unseal(payload, _FORMAT, release_id, snapshot, version)
    if content is None:
        return None
    num, width, flags, explicit_dim = (int(v) for v in np.frombuffer(content, "<u2", 4))
    size = flags >> 1
    rows = np.cumsum(np.frombuffer(content, f"<u{size}", num, _HEADER).astype(np.int64))
    at = _HEADER + size * num
    likeness = np.frombuffer(content, "<f2", num, at).astype(np.float32)
    order = np.lexsort((rows, -likeness))
    users = np.full((1, width), -1, dtype=np.int64)
    users[0, :num] = rows[order]
    similarity = np.zeros((1, width), dtype=np.float32)
    similarity[0, :num] = likeness[order]
    at += 2 * num
    vectors = np.frombuffer(content, "<f2", offset=at).astype(np.float32)[None]
    weak = np.array([bool(flags & 1)])
    return UserInterests(vectors[:, :explicit_dim], Neighbours(users, similarity, weak), vectors[:, explicit_dim:])
