#!lua flags=no-writes
-- Return a page of what is kept, read or not, next to one of its bounds.
--
-- KEYS[1] is the place of a user or a room: :meta and :box as in append.lua, :pulled as in read.lua.
-- ARGV: low (exclusive), before (exclusive, '' none), limit, bytes_max, newest first ('1')
-- Returns {messages, cut, pointers}, both from the end that the page is next to, as read.lua does.
local place, newest = KEYS[1], ARGV[5] == '1'
local limit, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('EXISTS', place .. ':meta') == 0 then
    return 'absent'
end
local low, high = '(' .. ARGV[1], ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local command = newest and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
local from, to = newest and high or low, newest and low or high

local found, bytes, offset, cut = {}, 0, 0, 1
while cut == 1 and #found <= limit and bytes <= bytes_max do
    local rows = redis.call(command, place .. ':box', from, to, 'LIMIT', offset, 50)
    offset = offset + #rows
    if #rows < 50 then
        cut = 0
    end
    for i, row in ipairs(rows) do
        found[#found + 1] = row
        bytes = bytes + #cmsgpack.unpack(row)[5]
        if #found > limit or bytes > bytes_max then
            if i < #rows then
                cut = 1
            end
            break
        end
    end
end
local pointers = redis.call(
    command, place .. ':pulled', from, to, 'WITHSCORES', 'LIMIT', 0, limit + 1
)
return {found, cut, pointers}
