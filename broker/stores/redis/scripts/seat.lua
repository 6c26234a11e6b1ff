-- Let a user read a room, or no longer; or note an invitation.
--
-- KEYS[1] is the place of a user:
--   :meta    hash  no expiry  as in append.lua
--   :rooms   hash  no expiry  room -> 'joined since position high': 1 or 0 (invited); the sequences
--            in the room that reading began above and that was pulled up to; the highest sequence
--            that the room has here
--   :pulled  zset  no expiry  as in read.lua
-- ARGV: room, what ('1' joined, '0' invited, '' neither), since
local place, room = KEYS[1], ARGV[1]
if redis.call('EXISTS', place .. ':meta') == 0 then
    return 'absent'
end
local before = redis.call('HGET', place .. ':rooms', room)
local joined = before and string.sub(before, 1, 1) == '1'
if ARGV[2] == '1' then
    if not joined then
        redis.call('HSET', place .. ':rooms', room, '1 ' .. ARGV[3] .. ' ' .. ARGV[3] .. ' 0')
    end
    return 'OK'
end
if ARGV[2] == '0' then
    redis.call('HSET', place .. ':rooms', room, '0 0 0 0')
else
    redis.call('HDEL', place .. ':rooms', room)
end
if joined then
    for _, pointer in ipairs(redis.call('ZRANGE', place .. ':pulled', 0, -1)) do
        if string.sub(pointer, 1, #room + 1) == room .. ' ' then
            redis.call('ZREM', place .. ':pulled', pointer)
        end
    end
end
return 'OK'
