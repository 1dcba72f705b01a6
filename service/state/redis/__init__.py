"""User state in Redis or a Redis Cluster.

store       `RedisStore`: all four stores behind two clients; users/, item_store, list_store, counters: one each
clients     the two clients, what is tried again, how long, and with what error it ends
scripts     how Lua scripts are run, and replicas waited for; each file in lua/ is one atomic script
keys        how keys are spelled
durability  whether Redis is set to keep what was accepted
room        whether it has room for what can be made again
failures    whatever goes wrong as one `StoreError`
"""
