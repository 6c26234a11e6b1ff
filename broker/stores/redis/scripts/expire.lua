#!lua flags=allow-oom
-- Take out what has outlived its time in one mailbox.
--
-- KEYS[1] is the place of a user or a room: see append.lua; besides
--   :over  zset  no expiry  member sequence, score when :gone may forget it, in ms
-- ARGV: now_ms, limit, retention_read_ms
-- Returns {when the next is due ('' none), messages that nobody had read}.
local place, now, limit, kept_ms = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local meta, box, ttl = place .. ':meta', place .. ':box', place .. ':ttl'
local m = redis.call('HMGET', meta, 'f', 'n', 'b', 'rb')
local furthest, count, bytes, read = tonumber(m[1] or 0), tonumber(m[2] or 0), tonumber(m[3] or 0),
    tonumber(m[4] or 0)
local unread, taken = {}, false
for _, seq in ipairs(redis.call('ZRANGEBYSCORE', ttl, '-inf', now, 'LIMIT', 0, limit)) do
    local row = redis.call('ZRANGEBYSCORE', box, seq, seq)[1]
    if row then
        local message = cmsgpack.unpack(row)
        local forget_ms = message[2] + kept_ms
        message[6] = 0
        if message[1] > furthest then
            unread[#unread + 1] = row
            message[6], forget_ms = now, now + kept_ms
            count, bytes = count - 1, bytes - #message[5]
        else
            read = read - #message[5]
        end
        redis.call('ZREM', box, row)
        redis.call('HSET', place .. ':gone', seq, cmsgpack.pack(message))
        redis.call('ZADD', place .. ':over', forget_ms, seq)
        taken = true
    end
    redis.call('ZREM', ttl, seq)
end
if taken then
    redis.call('HSET', meta, 'n', count, 'b', bytes, 'rb', read)
end
return {redis.call('ZRANGE', ttl, 0, 0, 'WITHSCORES')[2] or '', unread}
