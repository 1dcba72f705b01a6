"""Stores users' state since the release, and merges it with the release's history.

docs/concepts/state.md says what *accepted* means, what a replica may miss and for how long, and what happens without
Redis. `isrf.contract.event_log` has the keys and tables that the offline job reads.

    user_store, item_store, list_store, counters   the protocols; store combines the four
    connect   opens redis/ (Redis) or sqlite/ (the embedded store); neither imports the other
    records   the types that a store takes and returns
    events    posted JSON → `Event` or refusal; the meaning of event types
    payload   encodes an event for the store
    merge     merges release and store; finds what the release has learned
    sealed    seals cache entries
"""
