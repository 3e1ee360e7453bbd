-- An attempt of a process that waits in the queue of a lock: it is refused unless it is this
-- process's turn. A release calls the first one (call.lua); a lock that is free goes to that one, and
-- the others are refused until it had time to come. After holder.lua, counter.lua and call.lua, and
-- after acquire.lua and mint.lua as the functions take and mint.
--
-- The queue is a sorted set of processes. The score is the time in µs when a process came
-- or, of one that is called, minus the time until which the others wait for it. Who does
-- not come by then loses its place: it may have died. Then twice as many are called at once,
-- so that a thousand that died delay the living by ten such times rather than a thousand. Who was
-- called and came in vain, because somebody had overtaken it, has the score 1: it stays before
-- the others.
--
-- KEYS[3]  the queue
-- KEYS[4]  the bell of this process; see call.lua
-- ARGV[4]  the process
-- ARGV[5]  how long those who are called have, in ms
-- ARGV[6]  the ttl of the queue in ms
-- ARGV[7]  when to come again after having got a place, in ms, if the server announces nothing
--          to this process; otherwise '0'
-- and those of acquire.lua.
--
-- Reply: {n, m}. n is the reply of acquire.lua. For a refusal m is how many processes are before
-- this one, and less than 0, -m-1 of them, where the lock is free; for a grant it is 1 if others
-- wait, and 0 otherwise.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local queue, process, soon = KEYS[3], ARGV[4], tonumber(ARGV[7])

-- A place is a hint. Where it cannot be had, a full server for one, the attempt is refused
-- all the same.
local function wait(remaining, held)
  local new = redis.pcall('ZADD', queue, 'NX', string.format('%.0f', now), process)
  redis.pcall('PEXPIRE', queue, ARGV[6])
  if new == 0 and held then
    local mine = redis.pcall('ZADD', queue, 'XX', 'INCR', '0', process)
    if type(mine) == 'string' and tonumber(mine) < 0 then
      redis.pcall('ZADD', queue, 'XX', '1', process)
    end
  end
  if soon > 0 then
    return {-1 - (new == 1 and math.min(soon, remaining) or remaining), 0}
  end
  redis.pcall('GETRANGE', KEYS[4], '0', '0')
  -- A reading command: one change of the queue will be announced, and mean nothing to this client.
  local before = tonumber(redis.pcall('ZRANK', queue, process)) or 0
  return {-1 - remaining, held and before or -1 - before}
end

-- turn returns nothing if it is this process's turn, or for how many ms it is others'. Where
-- the queue cannot be kept (an ACL, something else under its name) it is everybody's.
local function turn()
  local mine = redis.pcall('ZADD', queue, 'XX', 'INCR', '0', process)
  if type(mine) == 'table' or mine and tonumber(mine) < 0 then
    return -- called, alone or with others
  end
  local most, missing = now + ARGV[5] * 1000, 0
  local first = redis.pcall('ZPOPMIN', queue)
  if first.err then
    return
  end
  while first[1] and tonumber(first[2]) < 0 do
    local till = -tonumber(first[2])
    if till > now and till <= most then -- later than that: the clock was set back
      redis.call('ZADD', queue, first[2], first[1])
      return math.ceil((till - now) / 1000)
    end
    missing = missing + 1
    first = redis.call('ZPOPMIN', queue)
  end
  if not first[1] or first[1] == process then
    return
  end
  local called = {first[1], first[2]}
  if missing > 0 then
    local more = redis.call('ZPOPMIN', queue, math.min(2 * missing, 256) - 1)
    for i = 1, #more do
      called[#called + 1] = more[i]
    end
  end
  local among = false
  for i = 1, #called, 2 do
    among = among or called[i] == process
  end
  for i = 1, #called, 2 do
    -- If it is this process's turn, the others keep their places.
    redis.call('ZADD', queue, among and called[i + 1] or string.format('%.0f', -most), called[i])
  end
  redis.call('PEXPIRE', queue, ARGV[6]) -- the last one taken out took the ttl with it
  if not among then
    for i = 1, #called, 2 do
      ring(queue, called[i])
    end
    return tonumber(ARGV[5])
  end
end

local owner, refusal = holder()
if refusal then
  return refusal
elseif owner ~= '' and owner ~= string.match(ARGV[1], '^[^;]+;') then
  local reply = held_by_other(owner)
  if type(reply) ~= 'number' then
    return reply
  end
  if reply == 0 then
    ring(queue, process)
    return {0, 0}
  end
  return wait(-reply - 1, true)
end
if owner == '' then
  -- Changes nothing, because the lock is free, but is refused where taking it would be. The
  -- writes on the queue are allowed even on a full server, and everything is after them.
  -- Somebody else's empty string has to stay as it is, with its ttl; KEEPTTL came with Redis 6.
  if redis.call('PTTL', KEYS[1]) == -2 then
    redis.call('SET', KEYS[1], '', 'XX', 'PX', '1')
  end
  local others = turn()
  if others then
    return wait(others, false)
  end
end
redis.pcall('ZREM', queue, process)
local reply = take() or mint()
ring(queue, process) -- after all that reads, since up to Redis 7.0 that tracks all keys of a script
if type(reply) ~= 'number' then
  return reply
elseif reply <= 0 then
  return {reply, 0}
end
return {reply, redis.pcall('PEXPIRE', queue, ARGV[6]) == 1 and 1 or 0}
