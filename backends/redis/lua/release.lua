-- Frees the lock, if its owner still has it.
--
-- KEYS[1]  the lock
-- ARGV[1]  the owner
--
-- Reply: 1 freed, 0 not held by this owner.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
