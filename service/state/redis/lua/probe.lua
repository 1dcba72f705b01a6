-- Does the same kinds of writes as events do, on one key that nobody reads, so that it fails where they would fail.
--
-- KEYS: the key. The first write is one that a full server refuses: Redis does not check later writes of a script.

redis.call('SET', KEYS[1], '1')
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[1], '*', 'e', '')
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], 1, 'x')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'x', '1')
redis.call('EXPIRE', KEYS[1], 60)
return 1
