-- Stands before each script that asks who holds a lock.
--
-- KEYS[1] is the lock. Its value is the owner, "lease:…;" or "session:…;", and what the owner says
-- of itself to people (key.go). Owners of older versions have no semicolon.

-- holder returns the owner, and '' when the lock is free; false when something of another type
-- stands there; nil and an error reply when the server does not tell. An owner has at most 62
-- bytes: what anybody else put there is not loaded as a whole, whatever its size. Who only wants to
-- know whether the owner is himself gives his length: then it is he, or something else.
-- It also makes the server track the lock for this client.
local function holder(length)
  local value = redis.pcall('GETRANGE', KEYS[1], 0, (length or 64) - 1)
  if type(value) == 'string' then
    return length and value or string.match(value, '^%l+:%x+%-%d+;') or value
  elseif string.find(value.err, 'WRONGTYPE', 1, true) then
    return false
  end
  return nil, value
end

-- held_by_other is the reply to an attempt at a lock that owner holds: how long it waits, and 0
-- for no end in sight (a key without a ttl); or the error that it is no lock.
local function held_by_other(owner)
  if not owner or #owner > 62 then
    local kind = redis.pcall('TYPE', KEYS[1])
    return redis.error_reply('LOCKSTEP FOREIGN ' .. (kind.ok or 'value of another type'))
  end
  local remaining = redis.call('PTTL', KEYS[1])
  if remaining < 0 then
    return 0
  end
  return -remaining - 1
end
