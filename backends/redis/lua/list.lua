-- One page of the names of all locks on a master. A script, because its key leads to the master;
-- the command by itself would be some master's.
--
-- KEYS[1]  leads to the master
-- ARGV[1]  the cursor
-- ARGV[2]  the pattern
-- ARGV[3]  about how many names to look at
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
