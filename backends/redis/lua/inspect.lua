-- Says who holds the lock.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter
--
-- Reply: {owner, rest in ms or -1, token or ''}, or nil when the lock is free.
local holder = redis.call('GET', KEYS[1])
if not holder then
  return nil
end
return {holder, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2]) or ''}
