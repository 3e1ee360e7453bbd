-- Mints the token of a lock that acquire.lua has just taken, and frees the lock where it cannot.
-- KEYS, ARGV and the replies are those of acquire.lua.
local token = redis.pcall('INCR', KEYS[2])
if type(token) == 'number' and token > 1 and token < clock + 1000 and clock < tokens_end then
  if token <= clock then
    token = clock
    redis.call('SET', KEYS[2], digits, 'PX', ARGV[3])
  else -- in the same millisecond; the counter has the ttl for a hold that may have been shorter
    redis.pcall('PEXPIRE', KEYS[2], ARGV[3])
  end
  return token
end

-- Rarely, there is no counter; or it was set by a clock that has gone back; or it is a text,
-- "token:second": until that second an attempt may come that was given up before.
-- A counter may have been lost in this very millisecond: only the microseconds are past its
-- last token.
local now = redis.pcall('TIME')
local second, refusal = '', now.err and now
if type(token) ~= 'number' then
  local last, why = counter_read()
  if not last then
    refusal = why
  elseif why == '' then
    refusal = token -- it is a number, and INCR failed all the same: its own error
  else
    token, second = last + 1, why
    local tombstone = redis.pcall('GETRANGE', KEYS[2] .. ':' .. string.match(ARGV[1], '^[^;]+;'), 0, 0)
    if tombstone ~= '' then
      refusal = type(tombstone) == 'table' and tombstone or redis.error_reply('TAKENBACK this attempt was given up')
    end
  end
elseif token >= tokens_end then
  redis.pcall('DECR', KEYS[2])
end
if not refusal then
  token = math.max(token, now[1] * 1000000 + now[2])
  if second ~= '' and tonumber(second) < tonumber(now[1]) then
    second = ''
  end
  refusal = counter_write(token, second, ARGV[3])
end
if refusal then
  redis.call('DEL', KEYS[1])
  return refusal
end
return token
