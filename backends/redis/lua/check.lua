-- Looks whether a hold still stands, and writes nothing: a write would be announced to
-- this client itself where the server knows no NOLOOP, and be answered by a look, for ever.
--
-- KEYS[1]  the lock
-- ARGV[1]  the owner
--
-- Reply: 1 it stands, 0 not held by this owner.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return 1
end
return 0
