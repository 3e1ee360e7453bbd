-- mint(counter, n, ttl) takes up to n tokens from the counter and returns the first and
-- the last of them. They end at the server's clock in µs at the latest, unless the counter
-- is past that already: then it is one. So no token that was handed out is ever ahead of
-- the clock from which a lost counter starts again. nil: the counter is past 2^53.
--
-- INCR rather than GET: a read would make the server track the counter for this client and
-- announce every later grant twice.
local function mint(counter, n, ttl)
  local first = redis.call('INCR', counter)
  local now = redis.call('TIME')
  local micros = now[1] * 1000000 + now[2]
  local last = first
  if first < micros then
    last = micros
    first = math.max(first, micros - n + 1)
  end
  if last > 9007199254740992 then
    return nil
  end
  redis.call('SET', counter, string.format('%.0f', last), 'PX', ttl)
  return first, last
end
local overflow = redis.error_reply('LOCKSTEP the token counter is above 2^53')
