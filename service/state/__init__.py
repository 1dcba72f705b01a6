"""User state: what a release says of a user, and what came since.

docs/concepts/state.md says what *accepted* means, what a replica may miss and for how long, and what happens without
Redis. What the offline job reads of it is spelled in `isrf.contract.event_log`.

    user_store, item_store, list_store, counters   what may be asked; store is the four together
    connect   which implementation keeps it: redis/ (Redis) or sqlite/ (the embedded store); neither knows the other
    records   what a store is given, and what it says
    events    posted JSON → `Event` or refusal; what event types mean
    payload   an event as it is kept
    merge     release ⊕ what came since; what of it the release has learned
    sealed    finds accidents in what is cached
"""
