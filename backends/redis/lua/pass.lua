-- Keeps a lock in its process, whose next owner gets it, or frees it because it is another
-- process's turn.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
-- KEYS[3]  the line of processes; see line.lua
-- ARGV[1]  the owner whose value the lock has and keeps
-- ARGV[2]  the ttl of the next owner's hold in ms
-- ARGV[3]  the ttl of the counter in ms
-- ARGV[4]  the process
-- ARGV[5]  how many tokens
-- ARGV[6]  '1' to free the lock if others are in line
-- ARGV[7]  the ttl of the line in ms
--
-- Reply: {first, last} the tokens for this owner and for those after it; {-1, 0} freed;
-- {0, 0} not held by this owner.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {0, 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[6] == '1' then
  redis.call('ZREM', KEYS[3], ARGV[4])
  if redis.call('PEXPIRE', KEYS[3], ARGV[7]) == 1 then
    redis.call('ZADD', KEYS[3], string.format('%.0f', now), ARGV[4])
    redis.call('DEL', KEYS[1])
    redis.call('GET', KEYS[1]) -- so that those who wait here hear of the next change
    return {-1, 0}
  end
end

-- The tokens end at the server's clock in µs, unless the counter is past that already: then
-- it is one. So no token that was used is ahead of the clock from which a lost counter starts
-- again. Read by writing, or as a text; see acquire.lua.
local first, second = redis.pcall('INCR', KEYS[2]), ''
if type(first) ~= 'number' then
  local number
  number, second = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+)(:%d+)$')
  if not number then
    return first
  end
  first = number + 1
end
local last = math.max(first, now)
first = math.max(first, last - ARGV[5] + 1)
if last >= 9007199254740992 then
  return redis.error_reply('LOCKSTEP the token counter is at 2^53')
end
redis.call('SET', KEYS[2], string.format('%.0f', last) .. second, 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('GET', KEYS[1]) -- the write ended the tracking of this key
return {first, last}
