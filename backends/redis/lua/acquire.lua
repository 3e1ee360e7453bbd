-- One attempt to hold a lock: a lease or a session, which differ only in who keeps
-- them alive. This part takes the lock; mint.lua goes on with the token. After holder.lua and
-- counter.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter, in the same slot
-- ARGV[1]  the value of the lock: the owner, and what it says of itself
-- ARGV[2]  the ttl of the hold in ms
-- ARGV[3]  the ttl of the counter in ms, longer than that of the hold
--
-- Reply, an integer n:
--   n > 0   granted; n is the fencing token
--   n == 0  somebody else holds it, with no end in sight (a key without a ttl, not ours)
--   n < 0   somebody else holds it for another -n-1 ms
-- or an error, after which nothing of the attempt is left:
--   LOCKSTEP FOREIGN type   something that is no lock stands there
--   LOCKSTEP COUNTER what   what stands in the counter's place is none
--   TAKENBACK               this owner gave the attempt up before it came (takeback.lua)
--
-- A script that fails leaves what it has written. What can fail after the lock was taken,
-- by an ACL or by what an administrator put there, is therefore called by pcall and undone.
local taken = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if not taken or taken.err then
  -- A server that refuses writes can still say that the lock is held: contention is what the
  -- caller can do something about.
  local owner, refusal = holder()
  if refusal or owner == '' then
    -- Somebody may have put an empty value there.
    return refusal or taken or held_by_other(owner)
  elseif owner ~= string.match(ARGV[1], '^[^;]+;') then
    return held_by_other(owner)
  elseif taken then
    return taken
  end
  -- The same owner again: the reply to its first attempt was lost. The counter moves
  -- with grants only, so it still is this hold's token, unless it was deleted.
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  local token = counter_read()
  if token and token > 0 then
    redis.pcall('PEXPIRE', KEYS[2], ARGV[3])
    holder() -- see below
    return token
  end
end

-- The token is the server's clock in microseconds, or one more than the last where that is
-- ahead. It is the clock, and not just one more, because the counter may be an old copy (a
-- promoted replica, a restart). The beginning of this millisecond will do: it is the end of
-- the lock less its ttl, and asking for that by a reading command also makes the server track
-- the lock for this client, so that the holder hears of a deletion; the write above ended
-- that. The counter is read by writing, since a reading command would have every later grant
-- announced to this client.
local ends = redis.REDIS_VERSION_NUM and redis.pcall('PEXPIRETIME', KEYS[1])
if type(ends) == 'number' then
  local ms = ends - ARGV[2]
  clock, digits = ms * 1000, ms .. '000'
else -- before Redis 7, or an ACL without it
  local now = redis.pcall('TIME')
  if now.err then
    redis.call('DEL', KEYS[1])
    return now
  end
  clock = now[1] * 1000000 + now[2]
  digits = string.format('%.0f', clock)
  local _, refusal = holder()
  if refusal then
    redis.call('DEL', KEYS[1])
    return refusal
  end
end
