-- Let a user into a room or out of it: here stands who may read and send.
--
-- KEYS[1] is the place of a room:
--   :meta     hash  no expiry  as in append.lua
--   :members  zset  no expiry  all scores 0, so in order of name: who is in it or invited
--   :joined   set   no expiry  who is in it
-- ARGV: user, what ('1' joined, '0' invited, '' neither)
local place, user, what = KEYS[1], ARGV[1], ARGV[2]
if redis.call('EXISTS', place .. ':meta') == 0 then
    return 'absent'
end
redis.call(what == '1' and 'SADD' or 'SREM', place .. ':joined', user)
if what == '' then
    redis.call('ZREM', place .. ':members', user)
else
    redis.call('ZADD', place .. ':members', 0, user)
end
return 'OK'
