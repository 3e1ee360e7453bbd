-- Frees the lock, if the hold with a token still has it, and leaves a note by which the holder
-- learns that it was broken rather than deleted. After holder.lua and counter.lua.
--
-- KEYS[1]  the lock
-- KEYS[2]  the token counter; with ':broken:' and the owner it is the note
-- ARGV[1]  the token: the last one that was handed out
-- ARGV[2]  the owner, where it is known, or ''
--
-- Reply: 1 freed, 0 not that hold, or the error that no lock stands there.
local owner, refusal = holder()
if refusal then
  return refusal
elseif owner == '' then
  return 0
elseif not owner or #owner > 62 then
  return held_by_other(owner)
elseif not string.match(owner, '^%l+:%x+%-%d+;?$') then -- its counter may have the token still
  return redis.error_reply('LOCKSTEP FOREIGN string')
elseif ARGV[2] ~= '' and owner ~= ARGV[2] then
  return 0
end
local token, why = counter_read()
if not token then
  return why
elseif string.format('%.0f', token) ~= ARGV[1] and (token > 0 or ARGV[2] == '') then
  return 0 -- without a counter the owner's name will do
end
-- The holder asks for the note when it hears of the loss: at its deadline at the latest.
local remaining = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.pcall('SET', KEYS[2] .. ':broken:' .. owner, '', 'PX', string.format('%.0f', math.min(math.max(remaining, 0), 86400000) + 60000))
return 1
