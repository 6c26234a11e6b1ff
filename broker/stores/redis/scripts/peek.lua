#!lua flags=no-writes
-- Look at a room for one user: who is in it may pull what is above a position.
--
-- KEYS[1] is the place of a room: :meta, :box, :joined as in append.lua.
-- ARGV: user, position (exclusive), limit
-- Returns {last, purged, position to go on from, sequences, lost, from}, the latter two as read.lua
-- does; 'absent' for who is not in it.
local place, limit = KEYS[1], tonumber(ARGV[3])
if redis.call('SISMEMBER', place .. ':joined', ARGV[1]) == 0 then
    return 'absent'
end
local m = redis.call('HMGET', place .. ':meta', 'last', 'purged', 'lost', 'from')
local last = tonumber(m[1] or 0)
local rows = redis.call(
    'ZRANGEBYSCORE', place .. ':box', '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, limit
)
local seqs = {}
for i = 2, #rows, 2 do
    seqs[#seqs + 1] = tonumber(rows[i])
end
local position = #seqs == limit and seqs[#seqs] or math.max(last, tonumber(ARGV[2]))
return {last, tonumber(m[2] or 0), position, seqs, tonumber(m[3] or 0), tonumber(m[4] or 0)}
