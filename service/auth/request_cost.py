"""What a request costs beside others: how many items one may ask for, and as how many calls it counts.

A reason takes a hundred times the work of an item and twenty times its bytes, so of explained items fewer may be asked
for, and they count. One call of a few hundred bytes must not be worth a minute of a processor.
"""

from collections.abc import Awaitable, Callable

from starlette.types import Scope

from isrf.contract.errors import RequestError

MOST_ITEMS = 12_800
"""Of all lists of a request together: 50 for each of 256 users."""
MOST_EXPLAINED = 1000
"""The same where each item is explained."""
EXPLAINED_A_CALL = 20
"""So many explained items of a list are a call more."""

CHARGE = "charge"
"""Where a request's state has what counts further calls; absent in development mode, which has no limit."""
Charge = Callable[[int], Awaitable[None]]


def check_cost(lists: int, n: int, *, explain: bool) -> None:
    """Raises `RequestError` where so many lists of `n` items are more than one request may ask for."""
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
    """As how many calls a request for so many lists counts."""
    return lists * (1 + n // EXPLAINED_A_CALL) if explain and n > EXPLAINED_A_CALL else lists


async def charge(scope: Scope, lists: int, n: int, *, explain: bool) -> None:
    """Counts what a request for so many lists costs beyond the one call that was counted when it came in.

    Raises:
        AccessError: that is more than the key may call now.
    """
    calls, counted = calls_of(lists, n, explain=explain), scope["state"].get(CHARGE)
    if counted is not None and calls > 1:
        await counted(calls - 1)
