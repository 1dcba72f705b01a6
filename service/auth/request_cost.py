"""Limits how many items a request may ask for, and says as how many calls it counts.

A reason needs a hundred times the work of an item and twenty times its bytes. So a request may ask for fewer explained
items, and they count as more calls. A request of a few hundred bytes must not cost a minute of CPU time.
"""

from collections.abc import Awaitable, Callable

from starlette.types import Scope

from isrf.contract.errors import RequestError

MOST_ITEMS = 12_800
"""Items of all lists of a request together: 50 for each of 256 users."""
MOST_EXPLAINED = 1000
"""The same with explanations."""
EXPLAINED_A_CALL = 20
"""This many explained items of a list count as one more call."""

CHARGE = "charge"
"""Key in a request's state of the function that counts more calls; absent in development mode, which has no limit."""
CHARGE_ADDRESS = "charge_address"
"""The same for a beacon's address."""
EVENTS_A_BEACON = 10
"""This many further events of a beacon count as one more."""
Charge = Callable[[int], Awaitable[None]]


def check_cost(lists: int, n: int, *, explain: bool) -> None:
    """Raises `RequestError` where this number of lists of `n` items is more than a request may ask for."""
    most = MOST_EXPLAINED if explain else MOST_ITEMS
    if lists * n <= most:
        return
    what = "explained items" if explain else "items"
    raise RequestError(
        "request.too_much",
        f"{lists} users with n={n} are {lists * n} {what}, and one request may ask for {most}.",
        fix=f"Ask for n={max(1, most // lists)} at most, or for {max(1, most // n)} users in a request"
        + (f", or without `explain` ({MOST_ITEMS})." if explain else "."),
    )


def calls_of(lists: int, n: int, *, explain: bool) -> int:
    """Returns as how many calls a request for this number of lists counts."""
    return lists * (1 + n // EXPLAINED_A_CALL) if explain and n > EXPLAINED_A_CALL else lists


async def charge_events(scope: Scope, events: int) -> None:
    """Counts a beacon's events for its address, beyond the one call that was counted when it arrived.

    Raises:
        AccessError: the address' rate limit does not allow them now.
    """
    calls, count = events // EVENTS_A_BEACON, scope["state"].get(CHARGE_ADDRESS)
    if count is not None and calls > 0:
        await count(calls)


async def charge(scope: Scope, lists: int, n: int, *, explain: bool) -> None:
    """Counts the calls of a request beyond the one that was counted when it arrived.

    Raises:
        AccessError: the key's rate limit does not allow them now.
    """
    calls, count = calls_of(lists, n, explain=explain), scope["state"].get(CHARGE)
    if count is not None and calls > 1:
        await count(calls - 1)
