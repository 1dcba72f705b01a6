-- Puts or removes a placement and numbers the change.
--
-- KEYS: placements, their numbering. ARGV: the name, the payload ("" removes), the limit, a random nonce, the version
-- that must be stored ("" any, 0 none).
-- Returns {outcome, version}: "done" and the number of the change, "other_version" and the stored version (0 for none),
-- "absent" where there is nothing to remove, "too_many" where one more would be too many.
--
-- Reads everything that can fail before the first write.

local count = redis.call('HLEN', KEYS[1])
local known = redis.call('HGET', KEYS[1], ARGV[1])
local numbering = redis.call('HMGET', KEYS[2], 'id', 'n')
if (numbering[1] and not string.match(numbering[1], '^%x+$')) or (numbering[2] and not tonumber(numbering[2])) then
  return redis.error_reply('FOREIGN content that this service did not write')
end
local version = known and string.match(known, '^(%d+) ') or '0'
if ARGV[5] ~= '' and tonumber(ARGV[5]) ~= tonumber(version) then
  return {'other_version', version}
end
if ARGV[2] == '' and not known then
  return {'absent', '0'}
end
if ARGV[2] ~= '' and not known and count >= tonumber(ARGV[3]) then
  return {'too_many', '0'}
end
redis.call('HSETNX', KEYS[2], 'id', ARGV[4])
local number = redis.call('HINCRBY', KEYS[2], 'n', 1)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], number .. ' ' .. ARGV[2])
end
return {'done', tostring(number)}
