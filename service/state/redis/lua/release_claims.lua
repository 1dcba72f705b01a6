-- Gives claims back whose events came to nothing.
--
-- KEYS: a claim per event. ARGV: what each event claimed.

for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held and string.match(held, '^%d+\n(.*)$') == ARGV[i] then
    redis.call('DEL', key)
  end
end
return #KEYS
