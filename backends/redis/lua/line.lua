-- One attempt of a process that waits in line for a lock (mint.lua stands before this).
-- A release calls all of the line at once; a lock that is free goes to the first one, and
-- the others are refused until it had time to come.
--
-- The line is a sorted set of processes. The score is the time in µs when a process came
-- or, of one that is called, minus the time until which the others wait for it. Who does
-- not come by then loses its place: it may have died.
--
-- All commands here on the line count as writes: after a read the server would announce
-- every change of the line to this client.
--
-- KEYS[1]  the lock; its value is the owner
-- KEYS[2]  the token counter, in the same slot
-- KEYS[3]  the line
-- ARGV[1]  the owner
-- ARGV[2]  the ttl of the hold in ms
-- ARGV[3]  the ttl of the counter in ms
-- ARGV[4]  the process
-- ARGV[5]  how long the one that is called has, in ms
-- ARGV[6]  the ttl of the line in ms
--
-- Reply as acquire.lua's.
local lock, line = KEYS[1], KEYS[3]
local owner, process, patience = ARGV[1], ARGV[4], tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function wait(rest)
  redis.call('ZADD', line, 'NX', string.format('%.0f', now), process)
  redis.call('PEXPIRE', line, ARGV[6])
  return -rest - 1
end

local holder = redis.call('GET', lock)
if holder and holder ~= owner then
  local rest = redis.call('PTTL', lock)
  if rest < 0 then
    return 0
  end
  return wait(rest)
end

local token
if holder then
  -- The same owner again: the reply to its first attempt was lost. The counter moves
  -- with grants only, so it still is this hold's token.
  token = tonumber(redis.call('GET', KEYS[2]))
else
  while true do
    local first = redis.call('ZPOPMIN', line)
    if not first[1] or first[1] == process then
      break
    end
    local till = -tonumber(first[2])
    if till < 0 then
      till = now + patience * 1000
    end
    if now < till then
      redis.call('ZADD', line, string.format('%.0f', -till), first[1])
      return wait(math.ceil((till - now) / 1000))
    end
  end
end
redis.call('ZREM', line, process)
if not token then
  token = mint(KEYS[2], 1, ARGV[3])
  if not token then
    return overflow
  end
end
redis.call('SET', lock, owner, 'PX', ARGV[2])
-- The write above ended the tracking of this key: the read begins it again, so that
-- the holder hears of a deletion.
redis.call('GET', lock)
return token
