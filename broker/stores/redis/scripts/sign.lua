#!lua flags=allow-oom
-- Sign the roll of a server: which brokers it may have answered, and on which state of it.
--
-- KEYS[1] is a place on that server, `PREFIX{b:NUMBER}` (see rollcall.py):
--   :brokers  hash  no expiry  broker -> 'who term stream beat at': the server that it last compared
--             its memory with, a number of its own, and when that was, in us of the server's clock;
--             '' -> the same for the server that has been accounted for, with the time since when it
--             has been the one, in place of a number (0: always)
-- ARGV: broker; who, term and stream that it knows ('' when it is new here); beat ('': it leaves);
--       cluster ('1'), syncs ('1': a restart loses nothing); who, term and stream of the server
--       before, which it answers for ('' none), and since when it has not been that one
-- Returns {who, term, stream, signed, the roll as it was, the time}. It is not signed (0) where the
-- server is not the one that the broker knows.
local key, own, beat, syncs = KEYS[1] .. ':brokers', ARGV[1], ARGV[5], ARGV[7] == '1'
local info = redis.call('INFO', 'replication')
local stream = string.match(info, 'master_replid:(%x+)')
-- A cluster's failover raises the epoch; elsewhere the stream before is known until a restart.
local who, term = '-', string.match(info, 'master_replid2:(%x+)')
if ARGV[6] == '1' then
    who, term = string.match(
        redis.call('CLUSTER', 'NODES'), '(%x+) %S+ %S*myself%S* %S+ %S+ %S+ (%d+)'
    )
end
local function same(other, others_term, others_stream, restarts)
    return other == who and (others_stream == stream or restarts and others_term == term)
end

local roll = redis.call('HGETALL', key)
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if ARGV[2] ~= '' and not same(ARGV[2], ARGV[3], ARGV[4], syncs) then
    return {who, term, stream, 0, roll, tonumber(now)}
end
if beat == '' then
    redis.call('HDEL', key, own)
    return {who, term, stream, 1, roll, tonumber(now)}
end
local here = who .. ' ' .. term .. ' ' .. stream .. ' '
redis.call('HSET', key, own, here .. beat .. ' ' .. now)
local kept = redis.call('HGET', key, '')
local kept_who, kept_term, kept_stream, began = string.match(kept or '', '(%S+) (%S+) (%S+) (%d+)')
if not kept or same(kept_who, kept_term, kept_stream, true) then
    redis.call('HSET', key, '', here .. (began or '0') .. ' ' .. now)
elseif kept_who == ARGV[8] and (kept_term == ARGV[9] or kept_stream == ARGV[10]) then
    redis.call('HSET', key, '', here .. ARGV[11] .. ' ' .. now)
end
return {who, term, stream, 1, roll, tonumber(now)}
