-- Tries every command that the other scripts call, on keys of the same kinds that do not exist,
-- and says which of them fail and why. It leaves nothing behind: what would make a key does so
-- only where it may delete it again.
--
-- KEYS[1]  as a lock
-- KEYS[2]  as a token counter
-- KEYS[3]  as a queue
--
-- Reply: for each failure the command, KEYS' index (0 for none), and the error.
local failed = {}
local function try(command, key, ...)
  local reply
  if key > 0 then
    reply = redis.pcall(command, KEYS[key], ...)
  else
    reply = redis.pcall(command, ...)
  end
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = command
    failed[#failed + 1] = tostring(key)
    failed[#failed + 1] = reply.err
    return false
  end
  return true
end

try('TIME', 0)
try('SET', 1, '', 'XX', 'PX', '1')
try('GETRANGE', 1, '0', '0')
try('TYPE', 1)
try('PTTL', 1)
try('PEXPIRE', 1, '1')
if redis.REDIS_VERSION_NUM then
  try('PEXPIRETIME', 1)
end
local deletes = try('DEL', 1)
try('SET', 2, '', 'XX', 'PX', '1')
try('GETRANGE', 2, '0', '0')
if try('DEL', 2) then
  try('INCR', 2)
  try('DECR', 2)
  redis.pcall('DEL', KEYS[2])
end
try('SCAN', 0, '0', 'COUNT', '1')
try('ZCARD', 3)
try('ZADD', 3, 'XX', '0', 'm')
try('ZPOPMIN', 3)
try('ZREM', 3, 'm')
try('ZRANK', 3, 'm')
-- Each reading command has the server track all keys of the script for this client, until they
-- change.
for i = 1, deletes and #KEYS or 0 do
  redis.pcall('SET', KEYS[i], '', 'PX', '1')
  redis.pcall('DEL', KEYS[i])
end
return failed
