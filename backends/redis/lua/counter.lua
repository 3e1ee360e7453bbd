-- Stands before each script that uses the token counter. The counter's format is here and
-- nowhere else.
--
-- KEYS[2] is the counter: "token", the last one that was handed out, or "token:second": until
-- that second of the server's clock an attempt may arrive that was taken back (takeback.lua).
-- Grants count up by INCR, which refuses the second form: an ordinary grant need not parse.
-- clock is the server's at a grant, in µs, and digits the same as text: from acquire.lua to mint.lua.
local clock, digits
local tokens_end = 9007199254740992 -- 2^53: Lua's numbers, and JSON's, are exact below

-- counter_read returns token and second ('' for none), 0 and '' where there is no counter, or
-- nil and an error reply. What stands there may be anybody's: only its beginning is loaded.
-- This is a reading command, after which the server announces the counter's changes to this
-- client. Grants therefore do without it.
local function counter_read()
  local text = redis.pcall('GETRANGE', KEYS[2], 0, 63)
  if type(text) ~= 'string' then
    if string.find(text.err, 'WRONGTYPE', 1, true) then
      text = redis.error_reply('LOCKSTEP COUNTER not a string')
    end
    return nil, text
  elseif text == '' then
    return 0, ''
  end
  local token, note = string.match(text, '^(%d+)(.*)$')
  local second = note == '' and '' or string.match(note or '', '^:(%d+)$')
  if not second or #second > 16 then
    return nil, redis.error_reply('LOCKSTEP COUNTER not a number')
  elseif #token > 16 or tonumber(token) >= tokens_end then
    return nil, redis.error_reply('LOCKSTEP COUNTER at 2^53')
  end
  return tonumber(token), second
end

-- counter_write returns nothing, or an error reply for a token that is none.
local function counter_write(token, second, ttl)
  if token >= tokens_end then
    return redis.error_reply('LOCKSTEP COUNTER at 2^53')
  end
  local text = string.format('%.0f', token)
  if second ~= '' then
    text = text .. ':' .. second
  end
  redis.call('SET', KEYS[2], text, 'PX', ttl)
end
