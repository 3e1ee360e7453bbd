-- One attempt to hold several locks: all of them, or none. After holder.lua and counter.lua, and
-- after acquire.lua and mint.lua as the functions take and mint, which find the lock at hand in
-- KEYS[1], KEYS[2] and ARGV[1].
--
-- KEYS     for each lock the lock and its token counter, all in one slot
-- ARGV[1]  nothing; ARGV[2] and ARGV[3] are those of acquire.lua
-- ARGV[4]  and the following: for each lock its value
--
-- Reply: for each lock its token; or the reply of acquire.lua for the one that could not be had,
-- which is not above 0 or an error, and which it is, from 1.
local keys = {unpack(KEYS)}

local function turn_to(i)
  KEYS[1], KEYS[2], ARGV[1] = keys[2 * i - 1], keys[2 * i], ARGV[i + 3]
end

-- All are looked at before one is taken: a refusal writes nothing, neither a lock nor a counter. The
-- server then tracks all of them for this client, for one announcement each.
local n, ours = #keys / 2, {}
for i = 1, n do
  turn_to(i)
  local owner, refusal = holder()
  if refusal then
    return {refusal, i}
  elseif owner == string.match(ARGV[1], '^[^;]+;') then
    ours[i] = true
  elseif owner ~= '' then
    return {held_by_other(owner), i}
  end
end

-- What can fail after that is undone, as in acquire.lua; what its owner held before stays.
local taken = 0
local function undo(reply, i)
  for j = 1, taken do
    if not ours[j] then
      redis.call('DEL', keys[2 * j - 1])
    end
  end
  return {reply, i}
end

-- All are taken before one token is minted: up to Redis 7.0 each reading command has the server
-- track all keys of the script, and the write that mints ends that for the counter.
local tokens = {}
for i = 1, n do
  turn_to(i)
  tokens[i] = take()
  if tokens[i] and (type(tokens[i]) ~= 'number' or tokens[i] <= 0) then
    return undo(tokens[i], i)
  end
  taken = i
end
for i = 1, n do
  turn_to(i)
  tokens[i] = tokens[i] or mint()
  if type(tokens[i]) ~= 'number' then
    return undo(tokens[i], i)
  end
end
return tokens
