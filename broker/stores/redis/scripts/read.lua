#!lua flags=allow-oom
-- Return what a reader has not acknowledged, and note what it is given.
--
-- KEYS[1] is the place of a user: :meta, :box and :rooms as in acknowledge.lua; besides
--   :pulled  zset  no expiry  score sequence in this mailbox, member 'ROOM SEQUENCE-THERE'
--
-- ARGV: device, after, limit, bytes_max, devices_max, pulled ('1': the rooms have been looked at)
-- Returns {cursor, delivered, last, purged, messages, cut, pointers, lost, from}: own messages up to
-- limit + 1, or up to the first that does not fit into bytes_max; cut 1: there are more; pointers as
-- member, score; what lies above from and up to lost may be gone (see verify.lua).
-- With pointers the caller finds out what fits, and says so by give.lua. 'absent', {'pull', rooms}.
local place, device = KEYS[1], ARGV[1]
local meta, box = place .. ':meta', place .. ':box'
local limit, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local flat = redis.call('HGETALL', meta)
if #flat == 0 then
    return 'absent'
end
local rooms = redis.call('HGETALL', place .. ':rooms')
if #rooms > 0 and ARGV[6] ~= '1' then
    return {'pull', rooms}
end
local m, devices = {}, 0
for i = 1, #flat, 2 do
    m[flat[i]] = flat[i + 1]
    if string.sub(flat[i], 1, 2) == 'c:' and flat[i] ~= 'c:' then
        devices = devices + 1
    end
end
local given = tonumber(m.given or 0)
local last = math.max(tonumber(m.last or 0), given, tonumber(m.f or 0))
for i = 2, #rooms, 2 do
    last = math.max(last, tonumber(string.match(rooms[i], '(%d+)$')))
end

local known = device == '' or m['c:' .. device]
local cursor = tonumber(m['c:' .. (known and device or '')] or 0)
local delivered = tonumber(m['d:' .. device] or 0)
if not known then
    delivered = devices >= tonumber(ARGV[5]) and last or 0
end
local low = '(' .. string.format('%.0f', math.max(tonumber(ARGV[2]), cursor))

local found, taken, bytes, offset, cut = {}, 0, 0, 0, 1
local top = 0
while cut == 1 and #found <= limit and bytes <= bytes_max do
    -- Few at a time: texts may be long, and what does not fit is read in vain.
    local rows = redis.call('ZRANGEBYSCORE', box, low, '+inf', 'LIMIT', offset, 50)
    offset = offset + #rows
    if #rows < 50 then
        cut = 0
    end
    for i, row in ipairs(rows) do
        local message = cmsgpack.unpack(row)
        bytes = bytes + #message[5]
        found[#found + 1] = row
        if #found <= limit and (bytes <= bytes_max or #found == 1) then
            top = message[1]
        end
        if #found > limit or bytes > bytes_max then
            if i < #rows then
                cut = 1
            end
            break
        end
    end
end
local pointers = redis.call(
    'ZRANGEBYSCORE', place .. ':pulled', low, '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1
)
if #pointers == 0 and top > 0 then
    if known and top > delivered then
        redis.call('HSET', meta, 'd:' .. device, top)
    end
    if top > given then
        redis.call('HSET', meta, 'given', top)
    end
end
return {
    cursor, delivered, last, tonumber(m.purged or 0), found, cut, pointers,
    tonumber(m.lost or 0), tonumber(m.from or 0)
}
