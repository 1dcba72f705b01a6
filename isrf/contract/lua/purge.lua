-- Takes an erased user's entries out of a page of their bucket's stream.
--
-- KEYS: the stream. ARGV: how the payload of each of the user's entries begins, the first id of the page, the last id
--       of all, entries of a page.
-- Returns where the next page begins, "" after the last one.

local prefix = ARGV[1]
local page = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
for _, entry in ipairs(page) do
  local payload = entry[2][2]
  if payload and string.sub(payload, 1, #prefix) == prefix then
    redis.call('XDEL', KEYS[1], entry[1])
  end
end
return #page == tonumber(ARGV[4]) and '(' .. page[#page][1] or ''
