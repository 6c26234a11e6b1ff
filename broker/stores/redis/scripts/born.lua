-- Make a mailbox, unless it is there.
--
-- KEYS[1] is the place of a user or a room: :meta hash, no expiry.
local time = redis.call('TIME')
return redis.call('HSETNX', KEYS[1] .. ':meta', 'born', time[1] * 1000000 + time[2])
