"""Writes events to Redis: claims the event ids that callers sent, then runs each bucket's script with all effects.

The claims come first, so that no event is lost: a claim without its event hides nothing, but another event could hide
an event without its claim.
"""

from collections.abc import Mapping, Sequence

from isrf.contract.errors import StoreError
from isrf.contract.event_log import erased_ids_salt, tombstone_name
from service.state.events import Event
from service.state.records import Applied, Outcome
from service.state.redis.failures import FAILURES, foreign
from service.state.redis.keys import bucket_of
from service.state.redis.scripts import ScriptCall, Scripts, lua_script, mark_key
from service.state.redis.users.claims import Claim, claim_of, claims_call, read_named, release_call
from service.state.redis.users.commands import script_call
from service.state.redis.users.erasure import Erasure

SCRIPT = lua_script("script")
CLAIM_SCRIPT = lua_script("claims")
RELEASE_SCRIPT = lua_script("release_claims")

STALE = b"STALE"
_OUTCOMES: dict[int, Outcome] = {0: "duplicate", 1: "accepted", 2: "erased"}


class EventWrites:
    """Writes the events of one store."""

    def __init__(self, scripts: Scripts, erasure: Erasure) -> None:
        self._scripts, self._erasure = scripts, erasure

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        """As `Store.apply`; raises the client's errors where no event was stored.

        A failure after some were stored makes the others "unavailable": a caller who repeats stored events could count
        them twice.
        """
        results = [Applied("unavailable")] * len(events)
        errors: list[Exception] = []
        secret = await self._erasure.secret_for_writes()
        claims = {index: claim_of(event, secret) for index, event in enumerate(events) if event.named}
        indices = list(range(len(events)))
        try:
            while indices:
                claimed = await self._claim(claims, indices, results, errors)
                await self._write(events, claimed, results, errors)
                released = [
                    claims[index]
                    for index, claimed_at in claimed.items()
                    if claimed_at is None and index in claims and results[index].outcome == "erased"
                ]
                await self._release(released)
                keys = {claim.key for claim in released}
                # Events that reused the id of a refused event try again: its claim is released.
                indices = [
                    index for index in indices if results[index].outcome == "reused" and claims[index].key in keys
                ]
                for index in indices:
                    results[index] = Applied("unavailable")
        except (*FAILURES, StoreError) as error:
            errors.append(error)
        if errors and all(result.outcome == "unavailable" for result in results):
            raise errors[0]
        return results

    async def _claim(
        self, claims: Mapping[int, Claim], indices: Sequence[int], results: list[Applied], errors: list[Exception]
    ) -> dict[int, int | None]:
        """Claims event ids; returns the indices of events to write, with the seconds of their own earlier claims."""
        to_write: dict[int, int | None] = {index: None for index in indices if index not in claims}
        by_bucket = _grouped({index: claims[index].bucket for index in indices if index in claims})
        calls = [claims_call([claims[index] for index in of_bucket]) for of_bucket in by_bucket.values()]
        for of_bucket, answer in zip(by_bucket.values(), await self._scripts.run(CLAIM_SCRIPT, calls), strict=True):
            if isinstance(answer, Exception):
                errors.append(answer)
                continue
            for index, claim_answer in zip(of_bucket, answer, strict=True):
                if isinstance(claim_answer, int):
                    to_write[index] = claim_answer or None
                    continue
                try:
                    results[index] = Applied("reused", *read_named(claim_answer))
                except ValueError:
                    results[index] = Applied("unavailable")
                    errors.append(foreign("the claim of an event id"))
        return to_write

    async def _write(
        self,
        events: Sequence[Event],
        claimed: Mapping[int, int | None],
        results: list[Applied],
        errors: list[Exception],
    ) -> None:
        by_bucket = _grouped({index: bucket_of(events[index].user_id) for index in sorted(claimed)})
        answers = await self._scripts.run(SCRIPT, await self._calls(events, claimed, by_bucket))
        stale = {
            bucket: by_bucket[bucket] for bucket, answer in zip(by_bucket, answers, strict=True) if answer == STALE
        }
        if stale:
            # The bucket's names have another secret: a newer one, or one that is not valid any more.
            try:
                refreshed = await self._erasure.refresh()
                calls = await self._calls(events, claimed, stale, compare_secret=refreshed)
                retried = dict(zip(stale, await self._scripts.run(SCRIPT, calls), strict=True))
            except (*FAILURES, StoreError) as error:
                retried = dict.fromkeys(stale, error)
            answers = [retried.get(bucket, answer) for bucket, answer in zip(by_bucket, answers, strict=True)]
        unconfirmed = await self._scripts.confirm([mark_key(bucket) for bucket in by_bucket])
        for (bucket, indices), answer in zip(by_bucket.items(), answers, strict=True):
            failed = answer if isinstance(answer, Exception) else unconfirmed.get(mark_key(bucket))
            if failed is not None or answer == STALE:
                errors.append(failed or foreign("the secret of the tombstones"))
                continue
            for index, code in zip(indices, answer, strict=True):
                results[index] = Applied(_OUTCOMES[code])

    async def _calls(
        self,
        events: Sequence[Event],
        claimed: Mapping[int, int | None],
        by_bucket: dict[int, list[int]],
        *,
        compare_secret: bool = True,
    ) -> list[ScriptCall]:
        calls: list[ScriptCall] = []
        for bucket, indices in by_bucket.items():
            of_bucket = [(events[index], claimed[index]) for index in indices]
            secret = await self._erasure.secret_for_writes()
            users = dict.fromkeys(event.user_id for event, _ in of_bucket)
            names = {user_id: (tombstone_name(secret, user_id), erased_ids_salt(secret, user_id)) for user_id in users}
            record = self._erasure.record if compare_secret else ""
            calls.append(script_call(bucket, of_bucket, names, record))
        return calls

    async def _release(self, claims: Sequence[Claim]) -> None:
        by_bucket = _grouped({index: claim.bucket for index, claim in enumerate(claims)})
        # A claim that stays because a server is away expires after a day.
        await self._scripts.run(
            RELEASE_SCRIPT, [release_call([claims[index] for index in indices]) for indices in by_bucket.values()]
        )


def _grouped(buckets: dict[int, int]) -> dict[int, list[int]]:
    """Returns the indices of each bucket, in their order."""
    groups: dict[int, list[int]] = {}
    for index, bucket in buckets.items():
        groups.setdefault(bucket, []).append(index)
    return groups
