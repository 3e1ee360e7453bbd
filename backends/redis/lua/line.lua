-- Stands before acquire.lua in an attempt of a process that waits in line for a lock: it
-- refuses the attempt unless it is this process's turn. A release calls all of the line at
-- once; a lock that is free goes to the first one, and the others are refused until it had
-- time to come.
--
-- The line is a sorted set of processes. The score is the time in µs when a process came
-- or, of one that is called, minus the time until which the others wait for it. Who does
-- not come by then loses its place: it may have died.
--
-- All commands here on the line count as writes: after a read the server would announce
-- every change of the line to this client.
--
-- KEYS[3]  the line
-- ARGV[4]  the process
-- ARGV[5]  how long the one that is called has, in ms
-- ARGV[6]  the ttl of the line in ms
-- ARGV[7]  when to come again after having got a place, in ms, if the server announces nothing
--          to this process; otherwise '0'
-- and those of acquire.lua, whose reply is this one's too.
do
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local line, process = KEYS[3], ARGV[4]

  local function wait(rest)
    local new = redis.call('ZADD', line, 'NX', string.format('%.0f', now), process)
    redis.call('PEXPIRE', line, ARGV[6])
    local soon = tonumber(ARGV[7])
    if new == 1 and soon > 0 and soon < rest then
      rest = soon
    end
    return -rest - 1
  end

  local holder = redis.call('GET', KEYS[1])
  if holder and holder ~= ARGV[1] then
    local rest = redis.call('PTTL', KEYS[1])
    if rest < 0 then
      return 0
    end
    return wait(rest)
  end
  while not holder do
    local first = redis.call('ZPOPMIN', line)
    if not first[1] or first[1] == process then
      break
    end
    local till, most = -tonumber(first[2]), now + ARGV[5] * 1000
    if till < 0 or till > most then -- is called now, or was before the clock was set back
      till = most
    end
    if now < till then
      redis.call('ZADD', line, string.format('%.0f', -till), first[1])
      return wait(math.ceil((till - now) / 1000))
    end
  end
  redis.call('ZREM', line, process)
end
