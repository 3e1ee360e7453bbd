-- Says who holds the lock. After holder.lua and counter.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter; with ':queue' it is the queue of processes (queue.lua). That one is not
--          among KEYS: there often is none, and then a slot that migrates refuses the whole script.
-- ARGV[1]  how long a value is at most
--
-- Reply: {value, remaining in ms or -1, token, 0 where the counter was deleted, the server's clock
-- in µs, how many processes are in the queue, or -1 where that cannot be asked}; the value is
-- '' when the lock is free. Or the errors of acquire.lua.
local owner, refusal = holder()
if refusal then
  return refusal
elseif owner == '' then
  if redis.call('PTTL', KEYS[1]) ~= -2 then -- somebody else put an empty string there
    return redis.error_reply('LOCKSTEP FOREIGN string that is empty')
  end
  return {'', 0, '0', '0', -1}
elseif not owner or #owner > 62 then
  return held_by_other(owner)
end
local token, why = counter_read()
if not token then
  return why
end
local time = redis.call('TIME')
local waiting = redis.pcall('ZCARD', KEYS[2] .. ':queue')
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1] - 1), redis.call('PTTL', KEYS[1]), string.format('%.0f', token),
  string.format('%.0f', time[1] * 1000000 + time[2]), type(waiting) == 'number' and waiting or -1}
