-- Frees the lock, if its owner still has it. After holder.lua and call.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the queue, where others are known to wait; see queue.lua
-- ARGV[1]  the owner
-- ARGV[2]  the process, ARGV[3] how long the next one has, in ms, and ARGV[4] the ttl of the queue in
--          ms, with KEYS[2]
--
-- Reply: 0 not held by this owner, 1 freed; with KEYS[2] freed and another process called 2, and
-- nobody or this process itself 3.
local owner, refusal = holder(#ARGV[1])
if owner ~= ARGV[1] then
  return refusal or 0
end
redis.call('DEL', KEYS[1])
if not KEYS[2] then
  return 1
end
local called = call(KEYS[2], ARGV[3], ARGV[4])
return called and called ~= ARGV[2] and 2 or 3
