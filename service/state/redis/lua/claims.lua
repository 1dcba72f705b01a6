-- Claims event ids: for a while each id names one event, for all callers and replicas.
--
-- KEYS: a claim per event. ARGV: how many seconds a claim lasts, by this server's clock, then per event a text that
--       identifies it.
-- Returns per event 0 for a new claim, the second of the claim for the event's own earlier claim, else the event that
-- the id names instead; '' where the key has foreign content.

local remember = tonumber(ARGV[1])
local now = redis.call('TIME')[1]
local answers = {}
for i, key in ipairs(KEYS) do
  local event = ARGV[i + 1]
  local held = redis.pcall('GET', key)
  local held_at, held_event
  if type(held) == 'string' then
    held_at, held_event = string.match(held, '^(%d+)\n(.*)$')
  end
  if held and not held_at then
    answers[i] = ''
  elseif held_at and tonumber(held_at) > tonumber(now) - remember then
    answers[i] = held_event == event and tonumber(held_at) or held_event
  else
    redis.call('SET', key, now .. '\n' .. event, 'EX', remember)
    answers[i] = 0
  end
end
return answers
