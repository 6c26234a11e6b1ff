#!lua flags=allow-oom
-- Delete some of what is kept no longer in one mailbox.
--
-- KEYS[1] is the place of a user or a room: see append.lua and expire.lua.
-- ARGV: now_ms, retention_read_ms, retention_unread_ms, retention_room_ms, retention_bytes_max,
--       rows_max, room ('1'), from (sequence, exclusive: where the step before ended)
-- Returns {where the step ended ('' at the end), when the next message expires ('' none)}.
local place, now, room = KEYS[1], tonumber(ARGV[1]), ARGV[7] == '1'
local read_ms, unread_ms, room_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rows_max = tonumber(ARGV[6])
local meta, box, ttl = place .. ':meta', place .. ':box', place .. ':ttl'
local flat = redis.call('HGETALL', meta)
if #flat == 0 then
    return {'', ''}
end
local m, slowest = {}, nil
for i = 1, #flat, 2 do
    m[flat[i]] = flat[i + 1]
    if string.sub(flat[i], 1, 2) == 'c:' then
        slowest = math.min(slowest or math.huge, tonumber(flat[i + 1]))
    end
end
if not m['c:'] then
    slowest = 0
end
local furthest, purged, swept = tonumber(m.f or 0), tonumber(m.purged or 0), tonumber(m.swept or 0)
local count, bytes, read = tonumber(m.n or 0), tonumber(m.b or 0), tonumber(m.rb or 0)
local surplus = read - tonumber(ARGV[5])
local shortest = math.min(read_ms, room_ms, unread_ms > 0 and unread_ms or read_ms)

local looked_at, ended = 0, ''
for _, row in ipairs(redis.call('ZRANGEBYSCORE', box, '(' .. ARGV[8], '+inf', 'LIMIT', 0, rows_max)) do
    local message = cmsgpack.unpack(row)
    local seq, age, size = message[1], now - message[2], #message[5]
    local over = not room and surplus > 0 and seq <= furthest
    if age <= shortest and not over then
        break
    end
    looked_at = looked_at + 1
    ended = string.format('%.0f', seq)
    local goes = room and age > room_ms or (not room and seq <= furthest and (over or age > read_ms))
    if goes then
        redis.call('ZREM', box, row)
        redis.call('ZREM', ttl, ended)
        swept = math.max(swept, seq)
        if room then
            count, bytes = count - 1, bytes - size
        else
            read, surplus = read - size, surplus - size
        end
        if room or seq > slowest then
            purged = math.max(purged, seq)
        end
    elseif not room and seq > furthest and unread_ms > 0 and age > unread_ms then
        redis.call('ZADD', ttl, 'LT', now, ended)
    end
end
if looked_at > 0 then
    redis.call('HSET', meta, 'n', count, 'b', bytes, 'rb', read)
    if purged > 0 then
        redis.call('HSET', meta, 'purged', purged)
    end
end
local forget = redis.call('ZRANGEBYSCORE', place .. ':over', '-inf', '(' .. ARGV[1], 'LIMIT', 0, rows_max)
for _, seq in ipairs(forget) do
    redis.call('HDEL', place .. ':gone', seq)
    redis.call('ZREM', place .. ':over', seq)
    swept = math.max(swept, tonumber(seq))
end
if swept > tonumber(m.swept or 0) then
    redis.call('HSET', meta, 'swept', swept)
end
if looked_at < rows_max then
    ended = ''
end
return {ended, redis.call('ZRANGE', ttl, 0, 0, 'WITHSCORES')[2] or ''}
