"""Names who did an event: an account, or the session of a visitor without one.

Inside `ingest` and the replay, the column `user_id` names an event's owner. A session's owner is its `session_id` after
a control character. No `user_id` holds one, so a session is never an account, whatever its id says. A row that has both
ids is the account's.
"""

import polars as pl

_MARK = "\x1f"

IS_SESSION = pl.col("user_id").str.starts_with(_MARK)
"""Whether the owner in `user_id` is a session."""


def session_owner(session_id: pl.Expr) -> pl.Expr:
    """The owner's name of a session."""
    return pl.concat_str(pl.lit(_MARK), session_id)


def is_session(owner: str) -> bool:
    """Whether an owner is a session."""
    return owner.startswith(_MARK)


def session_id(owner: str) -> str:
    """The session_id of a session's owner."""
    return owner.removeprefix(_MARK)


def both_ids() -> tuple[pl.Expr, pl.Expr]:
    """Columns `user_id` and `session_id` as the shop's file has them: one of the two is null."""
    return (
        pl.when(IS_SESSION).then(None).otherwise(pl.col("user_id")).alias("user_id"),
        pl.when(IS_SESSION).then(pl.col("user_id").str.strip_prefix(_MARK)).alias("session_id"),
    )
