-- Erases one user: from here on nobody reads what is known of them, and what is posted starts a fresh user.
--
-- KEYS: the bucket's tombstones, its stream, then the user's keys.
-- ARGV: the user's name among the tombstones, a random nonce, the time in seconds.
-- Returns the position in the stream until which their entries must not be read.
--
-- Its work does not grow with the stream: old entries are taken out afterwards, page by page.

local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local position = newest[1] and newest[1][1] or '0-0'
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. position .. ' ' .. ARGV[3])
redis.call('HINCRBY', KEYS[1], 'n', 1)
for place = 3, #KEYS do
  redis.call('DEL', KEYS[place])
end
return position
