#!lua flags=allow-oom
-- Move a reader's cursor forward, as far as one step may count.
--
-- KEYS[1] is the place of a user: see append.lua for :meta and :box (zset, no expiry); besides
--   :rooms  hash  no expiry  room -> 'joined since position high', see seat.lua
--
-- ARGV: device ('' the user), sequence, devices_max, pulled ('1': the rooms have been looked at),
--       again ('1': it was acknowledged before, whatever the mailbox may have lost since)
-- Returns {cursor, more}, more 1 when the step has to be repeated; 'absent'; or {'pull', rooms} when
-- messages of rooms must be pulled first.
local STEP_ROWS = 1000
local place, device, seq = KEYS[1], ARGV[1], tonumber(ARGV[2])
local meta, box = place .. ':meta', place .. ':box'
local flat = redis.call('HGETALL', meta)
if #flat == 0 then
    return 'absent'
end
local m = {}
for i = 1, #flat, 2 do
    m[flat[i]] = flat[i + 1]
end
local last = tonumber(m.last or 0)
local reached = last
local rooms = redis.call('HGETALL', place .. ':rooms')
if #rooms > 0 and ARGV[4] ~= '1' then
    return {'pull', rooms}
end
for i = 2, #rooms, 2 do
    reached = math.max(reached, tonumber(string.match(rooms[i], '(%d+)$')))
end

local field = 'c:' .. device
local cursor = m[field]
if device ~= '' and not cursor then
    local count, behind, lowest = 0, nil, nil
    for name, value in pairs(m) do
        if string.sub(name, 1, 2) == 'c:' and name ~= 'c:' then
            count = count + 1
            local at = tonumber(value)
            if not behind or at < lowest or (at == lowest and name < behind) then
                behind, lowest = name, at
            end
        end
    end
    if count >= tonumber(ARGV[3]) then
        redis.call('HDEL', meta, behind, 'd:' .. string.sub(behind, 3))
        redis.call('HSET', meta, 'd:' .. device, math.max(reached, tonumber(m.given or 0), tonumber(m.f or 0)))
    end
    cursor = m['c:'] or '0'
    redis.call('HSET', meta, field, cursor)
end
cursor = tonumber(cursor or 0)
if ARGV[5] ~= '1' then
    seq = math.min(seq, reached)
end
if seq <= cursor then
    return {cursor, 0}
end

local furthest, more = tonumber(m.f or 0), 0
if seq > furthest then
    local count, bytes = tonumber(m.n or 0), tonumber(m.b or 0)
    local read, size = count, bytes
    if seq < last then
        read, size = 0, 0
        local rows = redis.call('ZRANGEBYSCORE', box, '(' .. (m.f or '0'), seq, 'LIMIT', 0, STEP_ROWS)
        for _, row in ipairs(rows) do
            local message = cmsgpack.unpack(row)
            read, size = read + 1, size + #message[5]
            if read == STEP_ROWS then
                seq, more = math.min(seq, message[1]), 1
            end
        end
    end
    redis.call('HSET', meta, 'f', seq, 'n', count - read, 'b', bytes - size,
        'rb', tonumber(m.rb or 0) + size)
end
if seq > cursor then
    redis.call('HSET', meta, field, seq)
end
return {math.max(seq, cursor), more}
