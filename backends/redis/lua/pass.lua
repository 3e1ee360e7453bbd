-- Keeps a lock in its process, whose next owner gets it (mint.lua stands before this), or
-- frees it because it is another process's turn.
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
if ARGV[6] == '1' then
  redis.call('ZREM', KEYS[3], ARGV[4])
  if redis.call('PEXPIRE', KEYS[3], ARGV[7]) == 1 then
    local time = redis.call('TIME')
    redis.call('ZADD', KEYS[3], string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[4])
    redis.call('DEL', KEYS[1])
    redis.call('GET', KEYS[1]) -- so that those who wait here hear of the next change
    return {-1, 0}
  end
end
local first, last = mint(KEYS[2], tonumber(ARGV[5]), ARGV[3])
if not first then
  return overflow
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('GET', KEYS[1]) -- the write ended the tracking of this key
return {first, last}
