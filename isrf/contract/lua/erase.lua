-- Erases one user: from here on nobody reads what is known of them, and what is posted starts a fresh user.
--
-- KEYS: the bucket's tombstones, its stream, the user's erased event ids, then the user's keys: version, history,
--       marks, event ids, and others.
-- ARGV: the user's name among the tombstones, a random nonce, the record of the names' secret, a random number to count
--       erasures from, seconds that an event id is remembered, the salt of the user's erased event ids.
-- Returns the position in the stream until which their entries must not be read.
--
-- The time is this server's: callers' clocks may differ. The tombstone's time is no earlier than an earlier one's, nor
-- than anything that was held of the user: what came with a clock ahead of this one stays out when it is sent again.
-- Its work does not grow with the stream: old entries are taken out afterwards (`purge.lua`). What the user's keys hold
-- may be anything; it goes. The event ids of the last day stay known until the day is over, so that events that are
-- sent again do not bring the user back: as hashes, with a salt that only the store's secret gives.

local MOST = 100000000000

local function moment(text)
  local number = tonumber(text or '')
  return number and number >= 0 and number < MOST and number or 0
end

local function held_until(version, history, marks)
  local said = redis.pcall('GET', version)
  local latest = type(said) == 'string' and string.match(said, '@([%d.]+)$')
  if latest then
    return moment(latest)
  end
  latest = moment((redis.pcall('ZREVRANGE', history, 0, 0, 'WITHSCORES'))[2])
  for _, mark in ipairs(redis.pcall('HVALS', marks)) do
    for part in string.gmatch(mark, '[^;]+') do
      latest = math.max(latest, moment(string.sub(part, 2)))
    end
  end
  return latest
end

local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local position = newest[1] and newest[1][1] or '0-0'
local before = redis.call('HGET', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local erased_at = time[1] .. '.' .. string.format('%06d', time[2])
local erased_before = moment(string.match(before or '', '^%S+ %S+ (%S+)$'))
for _, other in ipairs({ held_until(KEYS[4], KEYS[5], KEYS[6]), erased_before }) do
  if other > tonumber(erased_at) then
    erased_at = string.format('%.7f', other)
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. position .. ' ' .. erased_at, 's', ARGV[3])
-- Counted from a random number: a store that lost its data does not come to the same counts again.
redis.call('HSETNX', KEYS[1], 'n', ARGV[4])
if type(redis.pcall('HINCRBY', KEYS[1], 'n', 1)) ~= 'number' then
  redis.call('HSET', KEYS[1], 'n', ARGV[4])
end
local remember, salt = tonumber(ARGV[5]), ARGV[6]
local forgotten = string.format('%d', tonumber(time[1]) - remember)
if type(redis.pcall('ZREMRANGEBYSCORE', KEYS[3], '-inf', forgotten)) ~= 'number' then
  redis.call('DEL', KEYS[3])
end
local ids = redis.pcall('ZRANGEBYSCORE', KEYS[7], '(' .. forgotten, '+inf', 'WITHSCORES')
for place = 1, #ids, 2 do
  redis.call('ZADD', KEYS[3], ids[place + 1], redis.sha1hex(salt .. ids[place]))
end
-- And when it was, by which claims of ids that came to nothing are told from later ones.
redis.call('ZADD', KEYS[3], time[1], '@')
redis.call('EXPIRE', KEYS[3], remember)
for place = 4, #KEYS do
  redis.call('DEL', KEYS[place])
end
return position
