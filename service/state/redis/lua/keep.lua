-- Caches values of a user, unless the user's state has changed, or was erased, since it was read.
--
-- KEYS: version, tombstones, then a key per value. ARGV: the version that was read, the name of the user's tombstone,
--       the version of an unknown user, then per value its seconds to live, and the value.
-- Returns 1 where the values were stored, else 0.

local version = redis.call('GET', KEYS[1])
if version then
  version = string.match(version, '^[^@]*')
else
  local stone = redis.call('HGET', KEYS[2], ARGV[2])
  version = stone and 'erased-' .. string.match(stone, '^[^ ]*') or ARGV[3]
end
if version ~= ARGV[1] then
  return 0
end
for place = 3, #KEYS do
  redis.call('SET', KEYS[place], ARGV[2 * place - 1], 'EX', ARGV[2 * place - 2])
end
return 1
