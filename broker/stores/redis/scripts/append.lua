-- Append one message to a mailbox, unless (sender, id) is there: then answer with the first.
--
-- KEYS[1] is the place, `PREFIX{u:USER}` or `PREFIX{r:#ROOM}`. All keys begin with it, and so lie in
-- one slot:
--   :meta     hash    no expiry           born, last, n, b, f, given, w and cursors (see keys.py)
--   :box      zset    no expiry           score sequence, member cmsgpack {seq, at, sender, id, text}
--   :ids      hash    two windows         SENDER NUL ID -> sequence, the younger generation
--   :ids:old  hash    as it was renamed   the older one
--   :gone     hash    no expiry           sequence -> a message that has expired, packed, and when
--   :ttl      zset    no expiry           member sequence, score the time at which it expires, ms
--   :joined   set     no expiry           of a room: who is in it
--   :blocks   zset    no expiry           of a user: from whom nothing is taken
-- Publishes the sequence to the sharded channel PLACE:wake.
--
-- ARGV: sender, id, text, at_ms, messages_max, bytes_max, ids_max, window_ms, expires_ms ('' none),
--       refuse ('1': nothing new is taken), room ('1': only for those in it), the highest sequence
--       that the broker has given here (0: it remembers none; see verify.lua)
-- Returns the sequence, or what is in the way: 'conflict', 'refused', 'absent', 'blocked' or
-- 'full'.
local place, sender, id, text = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local meta, box, ids = place .. ':meta', place .. ':box', place .. ':ids'
local name = sender .. '\0' .. id

local first = redis.call('HGET', ids, name) or redis.call('HGET', ids .. ':old', name)
if first then
    local kept = redis.call('ZRANGEBYSCORE', box, first, first)[1]
        or redis.call('HGET', place .. ':gone', first)
    if kept and cmsgpack.unpack(kept)[5] ~= text then
        return 'conflict'
    end
    return tonumber(first)
end
if ARGV[10] == '1' then
    return 'refused'
end

local m = redis.call('HMGET', meta, 'born', 'last', 'n', 'b', 'f', 'given', 'w')
if not m[1] then
    return 'absent'
end
if ARGV[11] == '1' and redis.call('SISMEMBER', place .. ':joined', sender) == 0 then
    return 'absent'
end
if redis.call('ZSCORE', place .. ':blocks', sender) then
    return 'blocked'
end
local last, seen = tonumber(m[2] or 0), tonumber(ARGV[12])
if last < seen and tonumber(m[1]) < seen then
    local top = math.max(tonumber(m[5] or 0), tonumber(m[6] or 0))
    last = top < seen and seen or top + 1  -- above all that a reader may have passed
    local mark = string.format('%.0f', last)
    redis.call('HSET', meta, 'last', mark, 'lost', mark, 'from', 0)
end
local count, bytes = tonumber(m[3] or 0), tonumber(m[4] or 0)
if count >= tonumber(ARGV[5]) or (count > 0 and bytes + #text > tonumber(ARGV[6])) then
    return 'full'
end

-- Microseconds of the server's clock, and above all that anybody may have seen of this mailbox.
local time = redis.call('TIME')
local seq = math.max(
    time[1] * 1000000 + time[2],
    last + 1, tonumber(m[5] or 0) + 1, tonumber(m[6] or 0) + 1
)
local at = tonumber(ARGV[4])
redis.call('ZADD', box, seq, cmsgpack.pack({seq, at, sender, id, text}))
redis.call('HSET', meta, 'last', seq, 'n', count + 1, 'b', bytes + #text)

if not m[7] then
    redis.call('HSET', meta, 'w', at)
elseif at - m[7] > tonumber(ARGV[8]) or redis.call('HLEN', ids) >= tonumber(ARGV[7]) then
    if redis.call('EXISTS', ids) == 1 then
        redis.call('RENAME', ids, ids .. ':old')
    end
    redis.call('HSET', meta, 'w', at)
end
redis.call('HSET', ids, name, seq)
if redis.call('HLEN', ids) == 1 then
    redis.call('PEXPIRE', ids, 2 * ARGV[8])
end
if ARGV[9] ~= '' then
    redis.call('ZADD', place .. ':ttl', ARGV[9], seq)
end
redis.call('SPUBLISH', place .. ':wake', seq)
return seq
