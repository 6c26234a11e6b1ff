#!lua flags=allow-oom
-- Note that a reader was given messages up to a sequence.
--
-- KEYS[1] is the place of a user: :meta hash, no expiry.
-- ARGV: device, sequence
local meta, device, seq = KEYS[1] .. ':meta', ARGV[1], tonumber(ARGV[2])
local m = redis.call('HMGET', meta, 'born', 'c:' .. device, 'd:' .. device, 'given')
if m[1] then
    if (device == '' or m[2]) and seq > tonumber(m[3] or 0) then
        redis.call('HSET', meta, 'd:' .. device, seq)
    end
    if seq > tonumber(m[4] or 0) then
        redis.call('HSET', meta, 'given', seq)
    end
end
