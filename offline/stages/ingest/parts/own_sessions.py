"""Sessions in which somebody also used an account: one person with two owners of events.

Before the login a visitor's rows name the session alone, after it both ids. What is held out from the account must not
be learned from the session: a row of such a session with such an item is left out of training.
"""

import polars as pl

from isrf.method.order import Split
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.parts.spool import Spool


def own_sessions(interactions: Spool) -> pl.DataFrame:
    """Accounts and the sessions in which they were used, each pair once.

    Args:
        interactions: with `user_id` (the owner), and `session`: the owner's name of the session in which an account
            did the event, or null.

    Returns:
        `user_id`, `session`; only sessions that also have events of their own.
    """
    own = interactions.gather(lambda part: part.filter(IS_SESSION).select("user_id").unique())["user_id"]
    linked = interactions.gather(
        lambda part: part.filter(pl.col("session").is_not_null()).select("user_id", "session").unique()
    )
    return linked.filter(pl.col("session").is_in(own.implode()))


def without_held_out(events: Spool, linked: pl.DataFrame) -> tuple[Spool, int]:
    """Leaves out training rows of sessions whose item is held out from an account that was used in the session.

    A session that keeps no training row goes as a whole, as nobody can be asked for without a history.

    Args:
        events: `user_id`, `item_id` and `split`, in order, in parts that divide nobody's rows.
        linked: as `own_sessions` returns them.

    Returns:
        The events that stay, in their order, and the number of those left out.
    """
    if linked.is_empty():
        return events, 0
    of_linked = (pl.col("split") != Split.TRAIN) & ~IS_SESSION & pl.col("user_id").is_in(linked["user_id"].implode())
    held_out = events.gather(lambda part: part.filter(of_linked).select("user_id", "item_id"))
    pairs = linked.join(held_out, on="user_id").select(pl.col("session").alias("user_id"), "item_id").unique()
    if pairs.is_empty():
        return events, 0
    shown = pairs.with_columns(shown=True)

    def of_part(part: pl.DataFrame) -> pl.DataFrame:
        marked = part.join(shown, on=["user_id", "item_id"], how="left", maintain_order="left").with_columns(
            pl.col("shown").fill_null(False) & (pl.col("split") == Split.TRAIN)
        )
        kept = marked.filter(~pl.col("shown")).drop("shown")
        return kept.filter(~IS_SESSION | (pl.col("split") == Split.TRAIN).any().over("user_id"))

    kept = events.mapped(of_part)
    return kept, events.height - kept.height
