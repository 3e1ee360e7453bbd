-- Frees the lock like release.lua after an attempt of unknown outcome, and sees to it that
-- the attempt is refused should it arrive only now: bytes that were written to a connection
-- before it broke can reach the server after what was sent on the next one. After holder.lua
-- and counter.lua.
--
-- Owners that were taken back stand in keys of their own. The counter, which every grant
-- reads anyway, says whether there can be any: an ordinary grant pays nothing for them.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
-- KEYS[3]  KEYS[2] .. ':' .. owner, where acquire.lua looks for it
-- ARGV[1]  the owner
-- ARGV[2]  how late the attempt may come, in s
-- ARGV[3]  the ttl of the counter in ms, at least
--
-- Reply: 1 freed, 0 not held by this owner. An error means that it is not held and that a late
-- attempt would not be refused: this is to be repeated.
local owner, refusal = holder(#ARGV[1])
if refusal then
  return refusal
end
-- Freed before anything that needs memory: a full server refuses a SET, but not after a DEL.
local freed = owner == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
local now = redis.pcall('TIME')
local noted = now.err and now or redis.pcall('SET', KEYS[3], '1', 'EX', ARGV[2])
if not noted.err then
  -- What is no counter is left alone; acquire.lua refuses everybody there.
  local token, last = counter_read()
  if token then
    local second = math.max(now[1] + ARGV[2], tonumber(last) or 0)
    -- Another may hold the lock, for as long as which the counter is to last.
    local left = redis.pcall('PTTL', KEYS[2])
    left = math.max(type(left) == 'number' and left or 0, tonumber(ARGV[3]))
    noted = counter_write(token, string.format('%.0f', second), string.format('%.0f', left)) or noted
  end
end
if noted.err and freed == 0 then
  return noted
end
return freed
