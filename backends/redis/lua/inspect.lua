-- Says who holds the lock. After holder.lua and counter.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
-- KEYS[3]  the queue of processes; see queue.lua
-- ARGV[1]  how long a value is at most
--
-- Reply: {value, remaining in ms or -1, token, 0 where the counter was deleted, the server's clock
-- in µs, how many processes are in the queue, or -1 where the user may not ask}; the value is
-- '' when the lock is free. Or the errors of acquire.lua.
local owner, refusal = holder()
if refusal then
  return refusal
elseif owner == '' then
  return {'', 0, '0', '0', -1}
elseif not owner or #owner > 62 then
  return held_by_other(owner)
end
local token, why = counter_read()
if not token then
  return why
end
local time = redis.call('TIME')
local waiting = redis.pcall('ZCARD', KEYS[3])
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1] - 1), redis.call('PTTL', KEYS[1]), string.format('%.0f', token),
  string.format('%.0f', time[1] * 1000000 + time[2]), type(waiting) == 'number' and waiting or -1}
