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
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  local rest = redis.call('PTTL', KEYS[1])
  if rest < 0 then
    return 0
  end
  return -rest - 1
end

local token
if holder then
  -- The same owner again: the reply to its first attempt was lost. The counter moves
  -- with grants only, so it still is this hold's token.
  token = tonumber(redis.call('GET', KEYS[2]))
end
if not token then
  -- INCR rather than GET and SET: a read would make the server track the counter for
  -- this client and announce every later grant twice.
  token = redis.call('INCR', KEYS[2])
  -- A counter that expired or was lost starts again from the server's clock, which is
  -- past every token handed out before.
  local now = redis.call('TIME')
  local micros = now[1] * 1000000 + now[2]
  if token < micros then
    token = micros
  end
  if token > 9007199254740992 then
    return redis.error_reply('LOCKSTEP the token counter is above 2^53')
  end
  redis.call('SET', KEYS[2], string.format('%.0f', token), 'PX', ARGV[3])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
-- The write above ended the tracking of this key: the read begins it again, so that
-- the holder hears of a deletion.
redis.call('GET', KEYS[1])
return token
