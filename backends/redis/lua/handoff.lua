-- Hands a lock off to the next owner in its process, or frees it because it is another
-- process's turn. After holder.lua, counter.lua and call.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
-- KEYS[3]  the queue of processes; see queue.lua
-- KEYS[4]  the bell of this process, with ARGV[9]; see call.lua
-- ARGV[1]  the owner whose value the lock has and keeps
-- ARGV[2]  the ttl of the next owner's hold in ms
-- ARGV[3]  the ttl of the counter in ms
-- ARGV[4]  the process
-- ARGV[5]  how many tokens
-- ARGV[6]  '1' to free the lock if others are in the queue
-- ARGV[7]  the ttl of the queue in ms
-- ARGV[8]  what the next owner says of itself, where that differs; otherwise ''
-- ARGV[9]  how long the next process has that is called, in ms; '' to call nobody
--
-- Reply: {first, last} the tokens for this owner and for those after it; {-1, n} freed, and
-- n processes are before this one in the queue; {0, 0} not held by this owner. After an error the
-- lock may have the new ttl.
local owner, refusal = holder(#ARGV[1])
if owner ~= ARGV[1] then
  return refusal or {0, 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[6] == '1' then
  local left = redis.pcall('ZREM', KEYS[3], ARGV[4])
  -- Where the queue cannot be kept (an ACL, a foreign key) others may be waiting: freed too.
  if type(left) ~= 'number' or redis.call('PEXPIRE', KEYS[3], ARGV[7]) == 1 then
    redis.call('DEL', KEYS[1])
    if ARGV[9] ~= '' then
      call(KEYS[3], ARGV[9], ARGV[7])
    end
    redis.pcall('ZADD', KEYS[3], string.format('%.0f', now), ARGV[4])
    -- So that those who wait here hear of the next change. In a slot that is migrating the
    -- key is another node's from now on, which is no reason to fail.
    holder()
    if not KEYS[4] then
      return {-1, 0}
    end
    redis.pcall('GETRANGE', KEYS[4], '0', '0')
    return {-1, tonumber(redis.pcall('ZRANK', KEYS[3], ARGV[4])) or 0}
  end
end

-- Before INCR: it is a write that a full server allows, and after which it allows the others.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[8] ~= '' then
  redis.call('SET', KEYS[1], ARGV[1] .. ARGV[8], 'PX', ARGV[2])
end

-- The tokens end at the server's clock in µs, unless the counter is past that already: then
-- it is one. So no token that was used is ahead of the clock from which a lost counter starts
-- again. Read by writing, or as a text; see acquire.lua.
local first, second = redis.pcall('INCR', KEYS[2]), ''
if type(first) ~= 'number' then
  local token, why = counter_read()
  if not token or why == '' then
    return token and first or why
  end
  first, second = token + 1, why
end
local last = math.max(first, now)
first = math.max(first, last - ARGV[5] + 1)
refusal = counter_write(last, second, ARGV[3])
if refusal then
  return refusal
end
holder() -- the write ended the tracking of this key
if KEYS[4] then
  ring(KEYS[3], ARGV[4])
end
return {first, last}
