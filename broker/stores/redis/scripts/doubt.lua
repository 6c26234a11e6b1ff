#!lua flags=allow-oom
-- Mark a mailbox that may have lost messages: every reader is told.
--
-- KEYS[1] is the place of a user or a room: :meta as in append.lua.
-- ARGV: from (sequence, exclusive: nothing up to there is lost), a name of this doubt
-- Returns 1, or 0 where it is marked already. All that was given lies below the mark, so that nobody
-- has passed it; no sequence below it is given any more.
local meta = KEYS[1] .. ':meta'
local m = redis.call('HMGET', meta, 'born', 'last', 'f', 'given', 'lost', 'from', 'doubt')
if not m[1] or m[7] == ARGV[2] then
    return 0
end
local time = redis.call('TIME')
local mark = 1 + math.max(
    time[1] * 1000000 + time[2], tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(m[4] or 0),
    tonumber(m[5] or 0)
)
local from = math.min(tonumber(ARGV[1]), tonumber(m[6] or ARGV[1]))
mark = string.format('%.0f', mark)
redis.call('HSET', meta, 'last', mark, 'lost', mark, 'from', string.format('%.0f', from),
    'doubt', ARGV[2])
redis.call('SPUBLISH', KEYS[1] .. ':wake', mark)
return 1
