"""User state in Redis or a Redis Cluster.

store       `RedisStore`: all four stores behind two clients; users/, item_store, list_store, counters: one each
clients     the two clients: retries, timeouts, errors
scripts     runs Lua scripts and waits for replicas; each file in lua/ is one atomic script
keys        the names of the keys
durability  checks that Redis' settings cannot lose accepted events
room        checks that Redis has memory for caches
failures    turns every failure into a `StoreError`
"""
