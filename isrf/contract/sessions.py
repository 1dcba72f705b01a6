"""The owner of a session's events: a visitor without an account, in the state and in the event log.

Both store an owner where an account has its user_id. A session's owner is its session_id behind a prefix, and no event
may name a user_id with that prefix. So a session never equals a user, is counted by everybody's evidence, and never
shows up as an account: exports and the shop's files write it as a `session_id` without a `user_id`.
"""

SESSION_PREFIX = "isrf-session:"
"""The beginning of every session's owner, and of no user_id."""


def session_owner(session_id: str) -> str:
    """The owner of a session's events."""
    return SESSION_PREFIX + session_id


def session_of(owner: str) -> str | None:
    """The session_id of an owner; None for a user_id."""
    return owner.removeprefix(SESSION_PREFIX) if owner.startswith(SESSION_PREFIX) else None


def owner_fields(owner: str) -> dict[str, str]:
    """An owner as a line of an export names it: `user_id` or `session_id`."""
    session_id = session_of(owner)
    return {"user_id": owner} if session_id is None else {"session_id": session_id}
