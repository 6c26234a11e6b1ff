#!lua flags=allow-oom
-- Take messages out of the bucket of what a user may send, and reserve some more for a broker.
--
-- KEYS[1] is the place of a user:
--   :sends  string  until the bucket is full again  'TOKENS AT', AT in ms of the server's clock
-- ARGV: used (taken in any case; below 0: put back), wanted (reserved as far as there is), tokens a
--       second, tokens at most
-- Returns {reserved, what is left after that, as a string: it has a fraction, and may be below 0}.
local key = KEYS[1] .. ':sends'
local used, wanted, rate, most = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] / 1000, tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local tokens = most
local kept = redis.call('GET', key)
if kept then
    local before, at = string.match(kept, '^(%S+) (%S+)$')
    -- A server that took over may be behind with its clock.
    tokens = before + math.max(0, now - at) * rate
end
tokens = math.min(most, math.min(most, tokens) - used)
local reserved = math.max(0, math.min(wanted, math.floor(tokens)))
tokens = tokens - reserved
if tokens < most then
    local full_ms = math.ceil((most - tokens) / rate)
    redis.call('SET', key, string.format('%.6f %.0f', tokens, now), 'PX', full_ms)
else
    redis.call('DEL', key)
end
return {reserved, string.format('%.6f', tokens)}
