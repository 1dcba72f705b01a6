"""User state: what a release says of a user, and what came since.

ARCHITECTURE.md ("State") says what *accepted* means, what a replica may miss and for how long, and what happens without
Redis. What the offline job reads of it is spelled in `isrf.contract.event_log`.

    events       posted JSON → `Event` or refusal; what event types mean
    keys         how Redis keys are spelled
    commands     what is sent to Redis for a user, and what comes back
    event_writes claims of event ids, then one script per bucket; claims is how a claim is written
    script.lua   all effects of a bucket's events, or none
    scripts      how scripts are run, and replicas waited for
    store        what routes may ask (`Store`); redis_store (Redis) or embedded (SQLite) keeps it; connect chooses
    merge        release ⊕ what came since; what of it the release has learned
    erasure      tombstones of erased users
    recent       who was active lately
    everything   all users and accepted events, page by page
    items        what the shop said of items
    durability   whether Redis is set to keep what was accepted
    failures     whatever goes wrong as one `StoreError`
    payload      an event as it is kept; sealed finds accidents in what is cached
    group_cache  a user's interests as cached bytes
    exposure_keys  lists that were given, and counts of what was shown and clicked
"""
