#!lua flags=allow-oom
-- Note what a user sent: where to, and under which sequence there.
--
-- KEYS[1] is the place of a user: :meta hash, as in append.lua; besides
--   :sent  zset  no expiry, the newest ARGV[1]  score sequence, member 'TO SEQUENCE'
-- ARGV: how many to keep; then, for each message: to, sequence
local place = KEYS[1]
if redis.call('EXISTS', place .. ':meta') == 0 then
    return 'absent'
end
for i = 2, #ARGV, 2 do
    redis.call('ZADD', place .. ':sent', ARGV[i + 1], ARGV[i] .. ' ' .. ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', place .. ':sent', 0, -ARGV[1] - 1)
return 'OK'
