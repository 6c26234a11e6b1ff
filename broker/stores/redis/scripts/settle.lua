#!lua flags=allow-oom
-- Take brokers off the roll of a server whose mailboxes have all been marked.
--
-- KEYS[1] is a place on that server: :brokers as in sign.lua.
-- ARGV: the server as it is to be known, as a value of the roll; then, for each: broker, its value
local key = KEYS[1] .. ':brokers'
for i = 2, #ARGV, 2 do
    if redis.call('HGET', key, ARGV[i]) == ARGV[i + 1] then
        if ARGV[i] == '' then
            redis.call('HSET', key, '', ARGV[1])
        else
            redis.call('HDEL', key, ARGV[i])
        end
    end
end
