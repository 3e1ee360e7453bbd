-- One attempt to hold a lock: a lease or a session, which differ only in who keeps
-- them alive.
--
-- KEYS[1]  the lock; its value is the owner
-- KEYS[2]  the token counter, in the same slot
-- ARGV[1]  the owner
-- ARGV[2]  the ttl of the hold in ms
-- ARGV[3]  the ttl of the counter in ms
--
-- Reply, an integer n:
--   n > 0   granted; n is the fencing token
--   n == 0  somebody else holds it, with no end in sight (a key without a ttl, not ours)
--   n < 0   somebody else holds it for another -n-1 ms
-- or the error TAKENBACK: this owner gave the attempt up before it came (takeback.lua).
--
-- A script that fails leaves what it has written. What can fail after the lock was taken,
-- by an ACL or by what an administrator put there, is therefore called by pcall and undone.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    local rest = redis.call('PTTL', KEYS[1])
    if rest < 0 then
      return 0
    end
    return -rest - 1
  end
  -- The same owner again: the reply to its first attempt was lost. The counter moves
  -- with grants only, so it still is this hold's token, unless it was deleted.
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  local token = string.match(redis.call('GET', KEYS[2]) or '', '^%d+')
  if token then
    redis.call('GET', KEYS[1]) -- see below
    return tonumber(token)
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
local clock, digits
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
  redis.call('GET', KEYS[1])
end
local token = redis.pcall('INCR', KEYS[2])
if type(token) == 'number' and token > 1 and token < clock + 1000 then
  if token <= clock then
    token = clock
    redis.call('SET', KEYS[2], digits, 'PX', ARGV[3])
  end
  return token -- by INCR alone in the same millisecond: the counter's ttl is still fresh
end

-- Rarely, there is no counter; or it was set by a clock that has gone back; or it is a text,
-- "token:second", which takeback.lua wrote: until that second an attempt may come that was
-- given up before.
-- A counter may have been lost in this very millisecond: only the microseconds are past its
-- last token.
local now = redis.pcall('TIME')
local second, refusal = '', nil
if now.err then
  refusal = now
elseif type(token) ~= 'number' then
  local text = redis.pcall('GET', KEYS[2])
  local number
  if type(text) == 'string' then
    number, second = string.match(text, '^(%d+):(%d+)$')
  end
  if type(text) ~= 'string' then
    refusal = token -- INCR's own error
  elseif not number then
    refusal = redis.error_reply('LOCKSTEP the token counter is not a number')
  elseif redis.call('GET', KEYS[2] .. ':' .. ARGV[1]) then
    refusal = redis.error_reply('TAKENBACK this attempt was given up')
  else
    token = number + 1
  end
elseif token >= 9007199254740992 then
  redis.pcall('DECR', KEYS[2])
  refusal = redis.error_reply('LOCKSTEP the token counter is at 2^53')
end
if refusal then
  redis.call('DEL', KEYS[1])
  return refusal
end
token = math.max(token, now[1] * 1000000 + now[2])
if second ~= '' and tonumber(second) >= tonumber(now[1]) then
  second = ':' .. second
else
  second = ''
end
redis.call('SET', KEYS[2], string.format('%.0f', token) .. second, 'PX', ARGV[3])
return token
