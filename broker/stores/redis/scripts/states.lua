#!lua flags=no-writes
-- Tell where messages of one mailbox stand.
--
-- KEYS[1] is the place of a user or a room: :meta, :box and :gone as in append.lua.
-- ARGV: sequences
-- Returns {furthest, given, for each sequence: {message, when it expired unread (0: not)} or nil}.
local place = KEYS[1]
local m = redis.call('HMGET', place .. ':meta', 'f', 'given')
local answer = {tonumber(m[1] or 0), tonumber(m[2] or 0)}
for _, seq in ipairs(ARGV) do
    local row, expired = redis.call('ZRANGEBYSCORE', place .. ':box', seq, seq)[1], 0
    if not row then
        row = redis.call('HGET', place .. ':gone', seq)
        expired = row and cmsgpack.unpack(row)[6] or 0
    end
    answer[#answer + 1] = row and {row, expired} or {}
end
return answer
