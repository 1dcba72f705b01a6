"""Encodes claims of event ids, by which an event id names only one event.

A claim stays for `REMEMBER_S` in a key of its own, in the slot of the id, as the same id may arrive for users of
different slots. It holds the item, the type, and a hash of the user that is keyed with the store's secret and differs
from id to id. Claims do not decide on duplicates: a claim whose event never reached its user's state (after a crash
between the two) does not hide that event when it is sent again. A claim stays when its user is erased.
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
    """The event that an event id names."""

    bucket: int
    key: str
    event: str  # "<hash>\n<type>\n<item>"; the server stores it after the time in whole seconds


def claim_of(event: Event, secret: bytes) -> Claim:
    """Returns the claim of an event on its id; only ids that callers sent need claims."""
    bucket = bucket_of(event.event_id)
    digest = hashlib.blake2b(event.event_id.encode(), digest_size=12).digest()
    user = hmac.new(secret, f"claim\n{event.event_id}\n{event.user_id}".encode(), "sha256").digest()[:12]
    return Claim(
        bucket,
        f"isrf:{{b{bucket}}}:c:{_text(digest)}",
        "\n".join((_text(user), event.event, event.item_id)),
    )


def claims_call(claims: Sequence[Claim]) -> ScriptCall:
    """Returns the call of `claims.lua` for claims of one bucket, in the order of their events."""
    return len(claims), [*(claim.key for claim in claims), REMEMBER_S, *(claim.event for claim in claims)]


def release_call(claims: Sequence[Claim]) -> ScriptCall:
    """Returns the call of `release_claims.lua` for claims of one bucket."""
    return len(claims), [*(claim.key for claim in claims), *(claim.event for claim in claims)]


def read_named(event: bytes) -> tuple[str, str]:
    """Returns the item and the type of a claim; raises `ValueError` where it is not one."""
    _, kind, item_id = event.decode().split("\n")
    return item_id, kind


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
