-- Takes a process out of the queue of a lock. Where it was called, the next one is. After call.lua.
--
-- KEYS[1]  the queue
-- ARGV[1]  the process
-- ARGV[2]  how long the next one has, in ms
-- ARGV[3]  the ttl of the queue in ms
--
-- Reply: 1.
local mine = redis.pcall('ZADD', KEYS[1], 'XX', 'INCR', '0', ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
ring(KEYS[1], ARGV[1])
if type(mine) == 'string' and tonumber(mine) < 0 then
  call(KEYS[1], ARGV[2], ARGV[3])
end
return 1
