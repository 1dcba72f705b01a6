-- Stores changes of items: replaces each item's entry by the new one, if it is still the entry that was read.
--
-- KEYS: entries, their order, the numbering, item_ids without a release.
-- ARGV: the limit of item_ids without a release, a random nonce, then per item 4 values:
--       item_id, the entry that was read ("" for none), the new entry, "1" if no release has the item.
-- Returns one number per item: 1 stored, 0 another writer was faster (read again), -1 too many items.
--
-- Reads everything that can fail before the first write.

local limit = tonumber(ARGV[1])
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
local counting = redis.call('HMGET', KEYS[3], 'id', 'n')
if (counting[1] and not string.match(counting[1], '^%x+$')) or
    (counting[2] and (tonumber(counting[2]) or -1) < redis.call('ZCARD', KEYS[2])) then
  return redis.error_reply('FOREIGN content that this service did not write')
end
local num_added = redis.call('SCARD', KEYS[4])
local answers = {}
for i = 3, #ARGV, 4 do
  local item, expected, entry, added = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local another = added == '1' and redis.call('SISMEMBER', KEYS[4], item) == 0
  if (redis.call('HGET', KEYS[1], item) or '') ~= expected then
    answers[#answers + 1] = 0
  elseif another and num_added >= limit then
    answers[#answers + 1] = -1
  else
    redis.call('HSETNX', KEYS[3], 'id', ARGV[2])
    redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[3], 'n', 1), item)
    redis.call('HSET', KEYS[1], item, entry)
    if another then
      redis.call('SADD', KEYS[4], item)
      num_added = num_added + 1
    end
    answers[#answers + 1] = 1
  end
end
return answers
