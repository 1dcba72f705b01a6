-- Removes a user's state that the release has learned, unless the state has changed since it was read.
--
-- KEYS: version, history, marks. ARGV: the version that was read, number of history members, the members, then items.

local version = redis.call('GET', KEYS[1]) or ''
if string.match(version, '^[^@]*') ~= ARGV[1] then
  return 0
end
local members = tonumber(ARGV[2])
for place = 3, 2 + members do
  redis.call('ZREM', KEYS[2], ARGV[place])
end
for place = 3 + members, #ARGV do
  redis.call('HDEL', KEYS[3], ARGV[place])
end
if redis.call('EXISTS', KEYS[2], KEYS[3]) == 0 then
  redis.call('DEL', KEYS[1])
end
return 1
