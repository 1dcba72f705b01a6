"""Stores users' state in a SQLite database of one process: the effects of events, and the accepted events themselves.

One process uses the folder; docs/concepts/state.md says which losses of its files the store notices.

    store          `EmbeddedStore`: all four stores on one database; users/, item_store, list_store, counters: one each
    database       connections: one that writes, two that read, each in a thread of its own
    writer         transactions: callers that wait together share the next one
    item_entries   changes of items, in the tables
    schema         the tables
    takeover       imports a journal of the previous version
    files          locks and identity of the files
    soundness      finds damage inside the database
    leftovers      finds deleted texts in the file
"""

from service.state.sqlite.store import EmbeddedStore

__all__ = ["EmbeddedStore"]
