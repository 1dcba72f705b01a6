-- Takes a batch of events of one bucket into state: all effects of an event or none.
--
-- KEYS: the bucket's stream, then per user: version, history, marks, event ids.
-- ARGV: newest history entries kept, seconds that an event id is remembered, a random nonce, "1" if events go into the
--       stream (else ""), then per event 9 values:
--       user's place (1…), user_id, item_id, effect, timestamp, assigned ("1" or ""), event digest, accepted_at,
--       the stream's payload.
-- Returns one number per event: 1 accepted, 0 duplicate.
--
-- A script keeps the writes it made before an error, so everything that can fail (a key of the wrong type) is read
-- first; the first write is the one that a full or read-only server refuses. Timestamps stay the caller's strings: Lua
-- prints numbers with 14 digits only. The result does not depend on the order in which events arrive: an item's marks
-- hold the latest timestamp of each kind, and `removed` at t takes back whatever happened until t.

local FIELDS = 9
local keep, remember, nonce, streamed = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'

-- 1. Read. -----------------------------------------------------------------------------------------------------------
local stream_type = redis.call('TYPE', KEYS[1]).ok
if stream_type ~= 'none' and stream_type ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is no stream')
end

local users, events, answers = {}, {}, {}

local function user_at(place)
  local user = users[place]
  if not user then
    local at = 2 + (place - 1) * 4
    user = { v = KEYS[at], h = KEYS[at + 1], x = KEYS[at + 2], e = KEYS[at + 3], seen = {}, marks = {}, accepted = 0 }
    user.version = redis.call('GET', user.v)
    user.size = redis.call('ZCARD', user.h)
    redis.call('HLEN', user.x)
    users[place] = user
  end
  return user
end

-- A mark is "B<t>;D<t>;R<t>", parts that never happened left out.
local function mark_of(user, item)
  local mark = user.marks[item]
  if not mark then
    local stored = redis.call('HGET', user.x, item) or ''
    mark = { B = string.match(stored, 'B([^;]+)'), D = string.match(stored, 'D([^;]+)'), R = string.match(stored, 'R([^;]+)') }
    user.marks[item] = mark
  end
  return mark
end

for i = 5, #ARGV, FIELDS do
  local event = {
    user = user_at(tonumber(ARGV[i])), user_id = ARGV[i + 1], item = ARGV[i + 2], effect = ARGV[i + 3], t = ARGV[i + 4],
    assigned = ARGV[i + 5], digest = ARGV[i + 6], at = ARGV[i + 7], payload = ARGV[i + 8],
  }
  local known = event.user.seen[event.digest] or redis.call('ZSCORE', event.user.e, event.digest)
  if known and tonumber(known) > tonumber(event.at) - remember then
    answers[#answers + 1] = 0
  else
    event.user.seen[event.digest] = event.at
    event.mark = mark_of(event.user, event.item)
    events[#events + 1] = event
    answers[#answers + 1] = 1
  end
end

-- 2. Write. ----------------------------------------------------------------------------------------------------------
local function later(mark, kind, t)
  if not mark[kind] or tonumber(t) > tonumber(mark[kind]) then
    mark[kind] = t
    mark.changed = true
  end
end

local function forget_history(user, item, t)
  for _, member in ipairs(redis.call('ZRANGE', user.h, 0, -1)) do
    local its_item, its_t = string.match(member, '^([^\n]*)\n([^\n]*)')
    if its_item == item and tonumber(its_t) <= tonumber(t) then
      redis.call('ZREM', user.h, member)
    end
  end
end

for _, event in ipairs(events) do
  local user, mark = event.user, event.mark
  if streamed then
    redis.call('XADD', KEYS[1], '*', 'e', event.payload)
  end
  redis.call('ZADD', user.e, event.at, event.digest)
  if event.effect == 'R' then
    later(mark, 'R', event.t)
    forget_history(user, event.item, event.t)
  elseif event.effect == 'D' then
    later(mark, 'D', event.t)
  else
    if event.effect == 'B' then
      later(mark, 'B', event.t)
    end
    if not mark.R or tonumber(event.t) > tonumber(mark.R) then
      local member = event.item .. '\n' .. event.t
      if event.assigned == '1' then
        member = member .. '\n*'
      end
      user.size = user.size + redis.call('ZADD', user.h, event.t, member)
    end
  end
  user.accepted = user.accepted + 1
  user.at = event.at
end

for _, user in pairs(users) do
  if user.accepted > 0 then
    for item, mark in pairs(user.marks) do
      if mark.changed then
        local parts = {}
        for _, kind in ipairs({ 'B', 'D', 'R' }) do
          if mark[kind] then
            parts[#parts + 1] = kind .. mark[kind]
          end
        end
        redis.call('HSET', user.x, item, table.concat(parts, ';'))
      end
    end
    if user.size > keep then
      redis.call('ZREMRANGEBYRANK', user.h, 0, -(keep + 1))
    end
    redis.call('ZREMRANGEBYSCORE', user.e, '-inf', string.format('%.6f', tonumber(user.at) - remember))
    redis.call('EXPIRE', user.e, remember)
    local held, count = string.match(user.version or '', '^(.*)%.(%d+)$')
    redis.call('SET', user.v, (held or nonce) .. '.' .. string.format('%d', (tonumber(count) or 0) + user.accepted))
  end
end

return answers
