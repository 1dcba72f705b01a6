-- Releases the claims of events that were refused.
--
-- KEYS: a claim per event. ARGV: the text that each event claimed its id with.

for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held and string.match(held, '^%d+\n(.*)$') == ARGV[i] then
    redis.call('DEL', key)
  end
end
return #KEYS
