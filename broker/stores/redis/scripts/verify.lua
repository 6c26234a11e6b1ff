#!lua flags=allow-oom
-- Look whether what a broker has answered for is there; if not, leave a mark for every reader.
--
-- KEYS[1] is the place of a user or a room: :meta, :box and :gone as in append.lua.
-- ARGV: the highest sequence that the broker gave, fresh ('1': its message must still be known)
-- Returns 1 where something was lost, else 0. Everything up to the sequence counts as deleted then
-- (`purged`), so that who has not acknowledged it is told, and no sequence is given twice.
local place, seen = KEYS[1], tonumber(ARGV[1])
local meta = place .. ':meta'
local m = redis.call('HMGET', meta, 'born', 'last', 'f', 'purged')
if not m[1] or tonumber(m[1]) >= seen then
    return 0  -- removed meanwhile, and made anew
end
local last, purged = tonumber(m[2] or 0), tonumber(m[4] or 0)
if last >= seen then
    -- Others have gone on. What was read may be gone, what was not must be there.
    if ARGV[2] ~= '1' or seen <= tonumber(m[3] or 0) or seen <= purged
        or redis.call('ZCOUNT', place .. ':box', seen, seen) > 0
        or redis.call('HEXISTS', place .. ':gone', seen) == 1 then
        return 0
    end
end
redis.call('HSET', meta, 'last', string.format('%.0f', math.max(last, seen)),
    'purged', string.format('%.0f', math.max(purged, seen)))
return 1
