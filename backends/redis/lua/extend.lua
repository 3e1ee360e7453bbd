-- Makes a hold end ARGV[2] ms from now, if its owner still has it. Never brings one
-- back. After holder.lua.
--
-- KEYS[1]  the lock
-- ARGV[1]  the owner
-- ARGV[2]  the ttl in ms
-- ARGV[3]  the token counter, with ARGV[4], now and then; not among KEYS, because in a slot that
--          migrates the server can do nothing with several keys
-- ARGV[4]  the ttl of the counter in ms
--
-- Reply: 1 done, 0 not held by this owner.
local owner, refusal = holder(#ARGV[1])
if owner ~= ARGV[1] then
  return refusal or 0
end
if ARGV[3] then
  redis.pcall('PEXPIRE', ARGV[3], ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
holder() -- the write ended the tracking of this key
return 1
