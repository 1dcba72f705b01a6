-- Removes entries that a release has learned, unless they have changed since they were read.
--
-- KEYS: entries, their order, item_ids without a release. ARGV: per item its id and the entry that was read.
-- Returns the number of removed entries.

local count = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('SREM', KEYS[3], ARGV[i])
    count = count + 1
  end
end
return count
