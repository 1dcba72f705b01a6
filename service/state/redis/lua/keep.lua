-- Keeps what was computed of a user, unless the user has moved, or was erased, since it was read.
--
-- KEYS: version, tombstones, then a key per value. ARGV: the version that was read, the user's name among the
--       tombstones, the version of nobody, then per value how many seconds it stays, and the value.
-- Returns whether it was kept.

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
