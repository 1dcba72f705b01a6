"""Events go into a Redis: first every given event id is claimed, then each bucket's script does all effects.

The order of the two is what keeps an event from being lost: a claim without its event hides nothing, an event without
its claim could be hidden.
"""

from collections.abc import Mapping, Sequence

from isrf.contract.event_log import erased_ids_salt, tombstone_name
from service.state.events import Event
from service.state.records import Applied, Outcome
from service.state.redis.failures import foreign
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
    """One per store."""

    def __init__(self, scripts: Scripts, erasure: Erasure) -> None:
        self._scripts, self._erasure = scripts, erasure

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        """As `Store.apply`; raises the client's errors where no event could be taken in."""
        results = [Applied("unavailable")] * len(events)
        errors: list[Exception] = []
        secret = await self._erasure.secret_for_writes()
        claims = {at: claim_of(event, secret) for at, event in enumerate(events) if event.named}
        places = list(range(len(events)))
        while places:
            claimed = await self._claim(claims, places, results, errors)
            await self._write(events, claimed, results, errors)
            released = [
                claims[at]
                for at, claimed_at in claimed.items()
                if claimed_at is None and at in claims and results[at].outcome == "erased"
            ]
            await self._release(released)
            keys = {claim.key for claim in released}
            # Who came behind an event that was not taken in has the id to itself.
            places = [at for at in places if results[at].outcome == "reused" and claims[at].key in keys]
        if errors and all(result.outcome == "unavailable" for result in results):
            raise errors[0]
        return results

    async def _claim(
        self, claims: Mapping[int, Claim], places: Sequence[int], results: list[Applied], errors: list[Exception]
    ) -> dict[int, int | None]:
        """Places of events that may be written, each with the second at which it had claimed its id, None for none."""
        may: dict[int, int | None] = {at: None for at in places if at not in claims}
        by_bucket = _grouped({at: claims[at].bucket for at in places if at in claims})
        calls = [claims_call([claims[at] for at in places]) for places in by_bucket.values()]
        for its_places, answer in zip(by_bucket.values(), await self._scripts.run(CLAIM_SCRIPT, calls), strict=True):
            if isinstance(answer, Exception):
                errors.append(answer)
                continue
            for at, said in zip(its_places, answer, strict=True):
                if isinstance(said, int):
                    may[at] = said or None
                    continue
                try:
                    results[at] = Applied("reused", *read_named(said))
                except ValueError:
                    results[at] = Applied("unavailable")
                    errors.append(foreign("the claim of an event id"))
        return may

    async def _write(
        self,
        events: Sequence[Event],
        claimed: Mapping[int, int | None],
        results: list[Applied],
        errors: list[Exception],
    ) -> None:
        by_bucket = _grouped({at: bucket_of(events[at].user_id) for at in sorted(claimed)})
        answers = await self._scripts.run(SCRIPT, await self._calls(events, claimed, by_bucket))
        stale = {bucket: by_bucket[bucket] for bucket, one in zip(by_bucket, answers, strict=True) if one == STALE}
        if stale:
            # Its tombstones have names under another secret: one that the store was told since, or one that counts no
            # more.
            refreshed = await self._erasure.refresh()
            again = await self._scripts.run(SCRIPT, await self._calls(events, claimed, stale, whatever=not refreshed))
            news = dict(zip(stale, again, strict=True))
            answers = [news.get(bucket, one) for bucket, one in zip(by_bucket, answers, strict=True)]
        unconfirmed = await self._scripts.confirm([mark_key(bucket) for bucket in by_bucket])
        for (bucket, its_places), answer in zip(by_bucket.items(), answers, strict=True):
            failed = answer if isinstance(answer, Exception) else unconfirmed.get(mark_key(bucket))
            if failed is not None or answer == STALE:
                errors.append(failed or foreign("the secret of the tombstones"))
                continue
            for at, said in zip(its_places, answer, strict=True):
                results[at] = Applied(_OUTCOMES[said])

    async def _calls(
        self,
        events: Sequence[Event],
        claimed: Mapping[int, int | None],
        by_bucket: dict[int, list[int]],
        *,
        whatever: bool = False,
    ) -> list[ScriptCall]:
        calls: list[ScriptCall] = []
        for bucket, places in by_bucket.items():
            some = [(events[at], claimed[at]) for at in places]
            secret = await self._erasure.secret_for_writes()
            users = dict.fromkeys(event.user_id for event, _ in some)
            names = {user_id: (tombstone_name(secret, user_id), erased_ids_salt(secret, user_id)) for user_id in users}
            record = "" if whatever else self._erasure.record
            calls.append(script_call(bucket, some, names, record))
        return calls

    async def _release(self, claims: Sequence[Claim]) -> None:
        by_bucket = _grouped({at: claim.bucket for at, claim in enumerate(claims)})
        # One that stays for lack of a server is forgotten with the day.
        await self._scripts.run(
            RELEASE_SCRIPT, [release_call([claims[at] for at in places]) for places in by_bucket.values()]
        )


def _grouped(buckets: dict[int, int]) -> dict[int, list[int]]:
    """Places by bucket, in their order."""
    groups: dict[int, list[int]] = {}
    for place, bucket in buckets.items():
        groups.setdefault(bucket, []).append(place)
    return groups
