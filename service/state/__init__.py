"""User state: what a release says of a user, and what came since.

ARCHITECTURE.md ("State") says what *accepted* means, what a replica may miss and for how long, and what happens without
Redis. What the offline job reads of it is spelled in `isrf.stream`.

    events       posted JSON → `Event` or refusal; what event types mean
    keys         how Redis keys are spelled
    commands     what is sent to Redis for a user, and what comes back
    script.lua   all effects of a bucket's events, or none
    store        what routes may ask (`Store`); redis_store (Redis) or embedded (SQLite) keeps it; connect chooses
    merge        release ⊕ what came since; what of it the release has learned
    erasure      tombstones of erased users
    recent       who was active lately
    group_cache  a user's interests as cached bytes
"""
