#!lua flags=allow-oom
-- Give messages of rooms their places in a user's mailbox, each once.
--
-- KEYS[1] is the place of a user: :meta and :box as in append.lua, :rooms as in seat.lua, :pulled as
-- in read.lua: pointers, since a text is stored once however many are in the room.
-- ARGV: for each room: room, position before, position after, how many, sequences in the room
--
-- Conditional on the position, so that brokers may do it twice. A message keeps the sequence that it
-- has in its room where no reader has been given a later one; otherwise it comes behind all of them,
-- and so does what was said in that room after it.
local place, i = KEYS[1], 1
local meta, box, pulled, rooms = place .. ':meta', place .. ':box', place .. ':pulled', place .. ':rooms'
local m = redis.call('HMGET', meta, 'born', 'last', 'f', 'given')
if not m[1] then
    return 'absent'
end
local sealed = math.max(tonumber(m[3] or 0), tonumber(m[4] or 0))
local top = math.max(sealed, tonumber(m[2] or 0), tonumber(redis.call('ZRANGE', pulled, -1, -1, 'WITHSCORES')[2] or 0))
while i <= #ARGV do
    local room, before, after, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    local value = redis.call('HGET', rooms, room)
    local since, position, high = string.match(value or '', '^1 (%d+) (%d+) (%d+)$')
    if position == before then
        local placed = tonumber(high)
        for j = i + 4, i + 3 + count do
            local seq = tonumber(ARGV[j])
            if seq <= sealed or seq <= placed then
                seq = top + 1
            end
            while redis.call('ZCOUNT', pulled, seq, seq) + redis.call('ZCOUNT', box, seq, seq) > 0 do
                seq = seq + 1
            end
            redis.call('ZADD', pulled, seq, room .. ' ' .. ARGV[j])
            top, placed = math.max(top, seq), seq
        end
        high = math.max(placed, tonumber(after))
        redis.call('HSET', rooms, room, string.format('1 %s %s %.0f', since, after, high))
    end
    i = i + 4 + count
end
return 'OK'
