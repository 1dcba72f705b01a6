"""An event id names one event: how a claim on it is written, and read by whoever sends the same id.

A claim stands for `REMEMBER_S` after the event that made it, in a key of its own, whose slot is the id's: the same id
may come for users of different slots. It says the item and the type, and of the user nothing but a hash that is keyed
with the store's secret and differs from id to id. It decides nothing of duplicates: a claim whose event never reached
its user's state (a crash between both) does not hide that event when it is sent again. It stays when the user is
erased.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from isrf.contract.event_log import REMEMBER_S, bucket_of
from service.state.events import Event
from service.state.redis.scripts import ScriptCall


class Claim(NamedTuple):
    """What an event id is said to name."""

    bucket: int
    key: str
    event: str  # "<hash>\n<type>\n<item>"; the server keeps it after the time, in whole seconds


def claim_of(event: Event, secret: bytes) -> Claim:
    """What an event claims for its id; to be made for ids that callers gave, not for those made of the event."""
    bucket = bucket_of(event.event_id)
    digest = hashlib.blake2b(event.event_id.encode(), digest_size=12).digest()
    user = hmac.new(secret, f"claim\n{event.event_id}\n{event.user_id}".encode(), "sha256").digest()[:12]
    return Claim(
        bucket,
        f"isrf:{{b{bucket}}}:c:{_text(digest)}",
        "\n".join((_text(user), event.event, event.item_id)),
    )


def claims_call(claims: Sequence[Claim]) -> ScriptCall:
    """For `claims.lua`, of claims of one bucket in the order of their events."""
    return len(claims), [*(claim.key for claim in claims), REMEMBER_S, *(claim.event for claim in claims)]


def release_call(claims: Sequence[Claim]) -> ScriptCall:
    """For `release_claims.lua`, of claims of one bucket."""
    return len(claims), [*(claim.key for claim in claims), *(claim.event for claim in claims)]


def read_named(event: bytes) -> tuple[str, str]:
    """The item and the type that an id names; raises `ValueError` on what no claim says."""
    _, kind, item_id = event.decode().split("\n")
    return item_id, kind


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
