"""User state inside one process: a SQLite database with the effects of events, and the record of what was accepted.

One process has the folder; docs/concepts/state.md says what is noticed of its files.

    store          `EmbeddedStore`: all four stores on one database; users/, item_store, list_store, counters: one each
    database       connections: one that writes, two that read, each in a thread of its own
    writer         transactions: callers that wait together share the next one
    item_entries   what was said of items, in the tables
    schema         the tables
    takeover       a journal of the version before
    files          locks and identity of the files
    soundness      damage inside the database
    leftovers      whether the file still holds what was deleted
"""

from service.state.sqlite.store import EmbeddedStore

__all__ = ["EmbeddedStore"]
