-- Makes a hold end ARGV[2] ms from now, if its owner still has it. Never brings one
-- back.
--
-- KEYS[1]  the lock
-- ARGV[1]  the owner
-- ARGV[2]  the ttl in ms
--
-- Reply: 1 done, 0 not held by this owner.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('GET', KEYS[1]) -- the write ended the tracking of this key
return 1
