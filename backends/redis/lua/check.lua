-- Looks whether a hold still stands, and writes nothing: a write would be announced to
-- this client itself where the server knows no NOLOOP, and be answered by a look, for ever.
-- After holder.lua.
--
-- KEYS[1]  the lock
-- ARGV[1]  the owner
--
-- Reply: 1 it stands, 0 not held by this owner.
local owner, refusal = holder(#ARGV[1])
if owner ~= ARGV[1] then
  return refusal or 0
end
return 1
