-- Stands before each script that may give a free lock to the next process in its queue (queue.lua),
-- and tells that one.
--
-- A release is announced to every process that has read the lock; of a hundred that wait,
-- ninety-nine would ask in vain. So each has a bell: a key that it reads when it asks and that
-- nobody else reads. A write to it is announced to that process alone. Nothing remains there.
-- The others ask later, in case that nobody comes (place.go).
--
-- All commands here on the queue count as writes: after a read the server would announce
-- every change of the queue to this client.

-- ring also ends the server's tracking of the bell, for a process that waits no more: nothing else
-- would, and the table of what is tracked is bounded.
local function ring(queue, process)
  redis.pcall('SET', queue .. ':' .. process, '')
  redis.pcall('DEL', queue .. ':' .. process)
end

-- call has the others wait for the first in the queue for patience ms, and returns its name; nil
-- where nobody waits. Who was called before and has not come in its time loses its place.
local function call(queue, patience, ttl)
  local time = redis.pcall('TIME')
  if time.err then
    return nil
  end
  local now = time[1] * 1000000 + time[2]
  local first = redis.pcall('ZPOPMIN', queue)
  while first[1] and tonumber(first[2]) < 0 and -tonumber(first[2]) <= now do
    first = redis.pcall('ZPOPMIN', queue)
  end
  if not first[1] then
    return nil
  end
  redis.pcall('ZADD', queue, string.format('%.0f', -now - patience * 1000), first[1])
  redis.pcall('PEXPIRE', queue, ttl) -- the last one taken out took the ttl with it
  ring(queue, first[1])
  return first[1]
end
