-- Frees the lock like release.lua after an attempt of unknown outcome, and sees to it that
-- the attempt is refused should it arrive only now: bytes that were written to a connection
-- before it broke can reach the server after what was sent on the next one.
--
-- Owners that were taken back stand in keys of their own. The counter, which every grant
-- reads anyway, says whether there can be any: an ordinary grant pays nothing for them.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
-- KEYS[3]  KEYS[2] .. ':' .. owner, where acquire.lua looks for it
-- ARGV[1]  the owner
-- ARGV[2]  how late the attempt may come, in s
-- ARGV[3]  the ttl of the counter in ms
--
-- Reply: 1 freed, 0 not held by this owner.
local second = redis.call('TIME')[1] + ARGV[2]
redis.call('SET', KEYS[3], '', 'EX', ARGV[2])
local last = redis.pcall('GET', KEYS[2]) or '0'
-- What is no counter is left alone; acquire.lua refuses everybody there.
if type(last) ~= 'table' then
  local number, before = string.match(last, '^(%d+):?(%d*)$')
  if number then
    second = math.max(second, tonumber(before) or 0)
    redis.call('SET', KEYS[2], number .. ':' .. string.format('%.0f', second), 'PX', ARGV[3])
  end
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
