#!lua flags=allow-oom
-- Let an attempt at a user's password from one address begin, or count what came of one.
--
-- The first question of broker/core/attempts.py, over all brokers. KEYS[1] is the place of a user,
-- who need not exist:
--   :tried:ADDRESS  hash  as long as failures are remembered
--       n wrong ones, at when the last was (ms); r under way, since when the last of them is
-- ARGV: address, what came of it ('' it wants to begin), how many are free, delay after the last
--       free one, delay at most, failures are forgotten after, an attempt is over after (all ms),
--       at home ('1')
-- Returns how long to wait, in ms; -1: that depends on those under way; 0.
local key, outcome = KEYS[1] .. ':tried:' .. ARGV[1], ARGV[2]
local free, first_ms, most_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local forget_ms, over_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', key, 'n', 'at', 'r', 'since')
local n, at = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
local r, since = tonumber(kept[3] or 0), tonumber(kept[4] or 0)
if now - at >= forget_ms then
    n = 0
end
if math.abs(now - since) >= over_ms then
    r = 0  -- of a broker that has ended
end
if outcome == '' then
    if n >= free then
        local delay = math.min(most_ms, first_ms * 2 ^ math.min(n - free, 16))
        -- A clock that was set back must not hold up for longer than it would have.
        local wait = math.min(delay, at + delay - now)
        if wait > 0 then
            return wait
        elseif r > 0 then
            return -1
        end
    elseif n + r >= free and (n > 0 or ARGV[8] ~= '1') then
        return -1
    end
    r, since = r + 1, now
else
    r = math.max(0, r - 1)
    if outcome == 'right' then
        n = 0
    elseif outcome ~= 'none' then
        n, at = n + 1, now
    end
    if n == 0 and r == 0 then
        redis.call('DEL', key)
        return 0
    end
end
redis.call('HSET', key, 'n', n, 'at', at, 'r', r, 'since', since)
redis.call('PEXPIRE', key, forget_ms)
return 0
