-- Gives claims back whose events came to nothing.
--
-- KEYS: a claim per event. ARGV: each claim as it was made.

for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i] then
    redis.call('DEL', key)
  end
end
return #KEYS
