#!lua
-- Take over messages of another store into one mailbox, with the sequences that they have there.
--
-- KEYS[1] is the place of a user or a room, whose mailbox no broker serves yet: :meta, :box, :ids,
-- :gone and :ttl as in append.lua, :over as in expire.lua. The cursors must stand already: which
-- messages count as unread goes by them.
-- ARGV: now_ms, window_ms, retention_read_ms; then, for each message: sequence, at_ms, sender, id,
--       text, expires_ms ('' never), expired_ms ('' not so), remember ('1': its id is known)
--
-- Repeated, it changes nothing: what is there is not counted again. It needs the memory for all of
-- its messages or takes none of them, hence the first line without flags.
-- Returns how many are new; 'absent' where there is no mailbox.
local place, now_ms, window_ms, kept_ms = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local meta, box, ids = place .. ':meta', place .. ':box', place .. ':ids'
local m = redis.call('HMGET', meta, 'born', 'f', 'n', 'b', 'rb')
if not m[1] then
    return 'absent'
end
local furthest, count, bytes, read = tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(m[4] or 0),
    tonumber(m[5] or 0)
local new, remembered = 0, false
for i = 4, #ARGV, 8 do
    local seq, sender, id, text = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    local message = {tonumber(seq), tonumber(ARGV[i + 1]), sender, id, text}
    if ARGV[i + 6] ~= '' then
        message[6] = tonumber(ARGV[i + 6])
        new = new + redis.call('HSET', place .. ':gone', seq, cmsgpack.pack(message))
        redis.call('ZADD', place .. ':over', message[6] + kept_ms, seq)
    else
        local added = redis.call('ZADD', box, seq, cmsgpack.pack(message))
        new = new + added
        if message[1] > furthest then
            count, bytes = count + added, bytes + added * #text
        else
            read = read + added * #text
        end
        if ARGV[i + 5] ~= '' then
            redis.call('ZADD', place .. ':ttl', ARGV[i + 5], seq)
        end
    end
    if ARGV[i + 7] == '1' then
        redis.call('HSET', ids, sender .. '\0' .. id, seq)
        remembered = true
    end
end
redis.call('HSET', meta, 'n', count, 'b', bytes, 'rb', read)
if remembered then
    redis.call('HSETNX', meta, 'w', now_ms)
    redis.call('PEXPIRE', ids, 2 * window_ms)
end
return new
