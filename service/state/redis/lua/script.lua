-- Applies a batch of events of one bucket to state: all effects of an event or none.
--
-- KEYS: the bucket's stream, its tombstones, then per user: version, history, marks, event ids, erased event ids.
-- ARGV: newest history entries kept, seconds that an event id is remembered, a random nonce, the record of the
--       tombstones' secret ("" to skip the comparison with the bucket's record), the number of users, per user the name
--       of the tombstone, the salt of the erased event ids and the last items of the release's history (latest first,
--       each as "<item>\n<timestamp, or nothing>\n"), then per event 9 values:
--       user's number (1…), item_id, effect, timestamp, assigned ("1" or ""), event digest,
--       the second at which its id was claimed ("" for now), the stream's payload before the timestamp, and after it
--       up to the items that the event followed.
-- Returns one number per event: 1 accepted, 0 duplicate, 2 older than its user's erasure (by its timestamp, or sent
-- again); or "STALE" where the names of the bucket's tombstones have another secret, and the script did nothing.
--
-- Redis keeps the writes that a script made before an error. So the script first reads everything that can fail (a key
-- of the wrong type, foreign content); its first write is one that a full or read-only server refuses. Timestamps stay
-- strings, because Lua prints numbers with only 14 digits. The result does not depend on the order in which events with
-- timestamps arrive: an item's marks hold the latest timestamp of each kind, and `removed` at t cancels everything up
-- to t. An event without a timestamp gets one after all events of its user, whatever the caller's clock says.
-- This server's clock decides how long an event id is remembered. `service.state.sqlite.users.followed` finds the
-- followed items in the same way.

local FIELDS, USER_FIELDS = 9, 3
-- Entries of a history that are looked at: few at first, as most users have an item in one entry only.
local FOLLOWED, FIRST_LOOK, LOOKED_AT = 8, 10, 32
local PAST_ENTRY = '([^\n]*)\n([^\n]*)\n'
local keep, remember, nonce = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local secret, num_users = ARGV[4], tonumber(ARGV[5])
local now = redis.call('TIME')[1]
local forgotten = tonumber(now) - remember
local STEP = 0.000001
local MOST = 100000000000

local function moment(text)
  local number = tonumber(text)
  if number and number >= 0 and number < MOST then
    return number
  end
  error({ err = 'FOREIGN content that this service did not write' })
end

-- 1. Read. -----------------------------------------------------------------------------------------------------------
local stream_type = redis.call('TYPE', KEYS[1]).ok
if stream_type ~= 'none' and stream_type ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is no stream')
end
local bucket_secret = redis.call('HGET', KEYS[2], 's')
if bucket_secret and secret ~= '' and bucket_secret ~= secret then
  return redis.status_reply('STALE')
end

local users, events, answers = {}, {}, {}

-- The latest moment of a user whose version does not contain it.
local function latest_of(user)
  local latest = 0
  local newest = redis.call('ZREVRANGE', user.h, 0, 0, 'WITHSCORES')
  if newest[2] then
    latest = moment(newest[2])
  end
  for _, mark in ipairs(redis.call('HVALS', user.x)) do
    for part in string.gmatch(mark, '[^;]+') do
      latest = math.max(latest, moment(string.sub(part, 2)))
    end
  end
  return latest
end

-- Reads when the release's last items of a user were removed.
local function read_removed(user)
  local items = {}
  for item in string.gmatch(user.past, PAST_ENTRY) do
    items[#items + 1] = item
  end
  if #items > 0 then
    for place, mark in ipairs(redis.call('HMGET', user.x, unpack(items))) do
      user.removed[items[place]] = mark and tonumber(string.match(mark, 'R([^;]*)'))
    end
  end
end

local function user_at(place)
  local user = users[place]
  if not user then
    local at = 3 + (place - 1) * 5
    user = {
      v = KEYS[at], h = KEYS[at + 1], x = KEYS[at + 2], e = KEYS[at + 3], f = KEYS[at + 4],
      salt = ARGV[4 + USER_FIELDS * place], seen = {}, marks = {}, accepted = 0, past = '', removed = {},
    }
    -- "<nonce>.<count>@<latest>"
    user.version = redis.call('GET', user.v) or ''
    user.size = redis.call('ZCARD', user.h)
    local num_marks = redis.call('HLEN', user.x)
    user.nonce, user.count, user.latest = string.match(user.version, '^([^.@]+)%.(%d+)@([%d.]+)$')
    if not user.nonce then
      user.nonce, user.count = string.match(user.version, '^([^.@]+)%.(%d+)$')
    end
    user.latest = user.latest and moment(user.latest) or latest_of(user)
    local stone = redis.call('HGET', KEYS[2], ARGV[3 + USER_FIELDS * place])
    if stone then
      user.erased_at = moment(string.match(stone, '^%S+ %S+ (%S+)$'))
      user.latest = math.max(user.latest, user.erased_at)
    else
      user.past = ARGV[5 + USER_FIELDS * place]
      if num_marks > 0 then
        read_removed(user)
      end
    end
    users[place] = user
  end
  return user
end

-- A mark is "B<t>;D<t>;R<t>", without the parts that never happened.
local function mark_of(user, item)
  local mark = user.marks[item]
  if not mark then
    mark = {}
    for part in string.gmatch(redis.call('HGET', user.x, item) or '', '[^;]+') do
      moment(string.sub(part, 2))
      mark[string.sub(part, 1, 1)] = string.sub(part, 2)
    end
    user.marks[item] = mark
  end
  return mark
end

-- Whether an event of an erased user was accepted before the erasure, or claimed its id in an earlier second.
local function is_erased(user, event)
  local at = redis.call('ZSCORE', user.f, redis.sha1hex(user.salt .. event.digest))
  if at and tonumber(at) > forgotten then
    return true
  end
  local erased_at = event.claimed and redis.call('ZSCORE', user.f, '@')
  return erased_at and event.claimed < tonumber(erased_at)
end

for i = 6 + USER_FIELDS * num_users, #ARGV, FIELDS do
  local event = {
    user = user_at(tonumber(ARGV[i])), item = ARGV[i + 1], effect = ARGV[i + 2], t = ARGV[i + 3],
    assigned = ARGV[i + 4] == '1', digest = ARGV[i + 5], claimed = tonumber(ARGV[i + 6]),
    before_time = ARGV[i + 7], after_time = ARGV[i + 8],
  }
  local user = event.user
  local known = user.seen[event.digest] or redis.call('ZSCORE', user.e, event.digest)
  if known and tonumber(known) > forgotten then
    answers[#answers + 1] = 0
  elseif user.erased_at
    and ((not event.assigned and tonumber(event.t) <= user.erased_at) or is_erased(user, event)) then
    answers[#answers + 1] = 2
  else
    if event.assigned and tonumber(event.t) < user.latest + STEP then
      -- Without zeros at the end, as Python writes floats.
      event.t = string.gsub(string.gsub(string.format('%.6f', user.latest + STEP), '0+$', ''), '%.$', '.0')
    end
    user.latest = math.max(user.latest, tonumber(event.t))
    user.seen[event.digest] = now
    event.mark = mark_of(user, event.item)
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
    if its_item == item and (tonumber(its_t) or MOST) <= tonumber(t) then
      redis.call('ZREM', user.h, member)
    end
  end
end

-- RFC 3629, section 4.
local UTF_8 = {
  '[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
  '\237[\128-\159][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]',
  '[\241-\243][\128-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]',
}

-- An item_id as the caller's JSON writer spells it; nil for foreign content, which would make the entry unreadable.
local function in_json(item)
  if not string.find(item, '[%c"\\\128-\255]') then
    return '"' .. item .. '"'
  end
  local rest = item
  for _, sequence in ipairs(UTF_8) do
    rest = string.gsub(rest, sequence, ' ')
  end
  if string.find(rest, '[%c\128-\255]') then
    return nil
  end
  return '"' .. string.gsub(item, '["\\]', '\\%0') .. '"'
end

-- The user's last items before the event by time, as a JSON array: of state and of the release, latest first. It
-- reads state at the moment of the write, so that the batch's earlier events are among them. Nothing here can fail.
local function followed_by(event)
  local user, t, found, seen = event.user, tonumber(event.t), {}, { [event.item] = true }
  if event.effect ~= 'B' and event.effect ~= 'H' then
    return '[]'
  end
  local function add(item)
    if not seen[item] then
      seen[item] = true
      found[#found + 1] = in_json(item)
    end
  end
  local next_past = string.gmatch(user.past, PAST_ENTRY)
  local past_item, past_t = next_past()
  local function add_past(after)
    while past_item and #found < FOLLOWED do
      local at = tonumber(past_t) or -math.huge
      if after and at <= after then
        return
      end
      local mark = user.marks[past_item]
      local removed = mark and tonumber(mark.R) or user.removed[past_item]
      if at <= t and not (removed and removed >= at) then
        add(past_item)
      end
      past_item, past_t = next_past()
    end
  end
  local looked_at, page_size = 0, FIRST_LOOK
  while user.size > looked_at and page_size > 0 and #found < FOLLOWED do
    local page = redis.call('ZREVRANGEBYSCORE', user.h, event.t, '-inf', 'LIMIT', looked_at, page_size)
    for _, member in ipairs(page) do
      local item, at = string.match(member, '^([^\n]*)\n([^\n]*)')
      if item then
        add_past(tonumber(at) or MOST)
        if #found == FOLLOWED then
          break
        end
        add(item)
      end
    end
    looked_at = looked_at + page_size
    page_size = #page == page_size and LOOKED_AT - looked_at or 0
  end
  add_past()
  return '[' .. table.concat(found, ',', 1, math.min(#found, FOLLOWED)) .. ']'
end

for _, event in ipairs(events) do
  local user, mark = event.user, event.mark
  local payload = event.before_time .. event.t .. event.after_time .. ',' .. followed_by(event) .. ']'
  redis.call('XADD', KEYS[1], '*', 'e', payload)
  redis.call('ZADD', user.e, now, event.digest)
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
      if event.assigned then
        member = member .. '\n*'
      end
      user.size = user.size + redis.call('ZADD', user.h, event.t, member)
    end
  end
  user.accepted = user.accepted + 1
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
    redis.call('ZREMRANGEBYSCORE', user.e, '-inf', string.format('%d', forgotten))
    redis.call('EXPIRE', user.e, remember)
    local count = string.format('%d', (tonumber(user.count) or 0) + user.accepted)
    redis.call('SET', user.v, (user.nonce or nonce) .. '.' .. count .. '@' .. string.format('%.7f', user.latest))
  end
end

return answers
