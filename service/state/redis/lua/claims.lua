-- Claims event ids: each names one event for a while, whoever sends it and through whichever replica.
--
-- KEYS: a claim per event. ARGV: seconds that a claim holds, by this server's clock, then per event what tells it from
--       every other one.
-- Returns per event 0 where its claim was made now, the second at which it was made where it was its own already, else
-- what the id names instead; '' where the key holds nothing of ours.

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
