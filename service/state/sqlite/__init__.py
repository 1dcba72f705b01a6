"""User state inside one process: a SQLite database with the effects of events, and the record of what was accepted.

One process has the folder; ARCHITECTURE.md ("State") says what is noticed of its files.

    store          `EmbeddedStore`: what routes may ask, and what the process holds ready
    database       connections: one that writes, two that read, each in a thread of its own
    writer         transactions: callers that wait together share the next one
    effects        what events do to the tables
    users          a user's record out of the tables, erasure, collection
    item_entries   what was said of items
    records        users' records held ready
    schema         the tables
    takeover       a journal of the version before
    files          locks and identity of the files
    soundness      damage inside the database
    leftovers      whether the file still holds what was deleted
"""

from service.state.sqlite.store import EmbeddedStore

__all__ = ["EmbeddedStore"]
