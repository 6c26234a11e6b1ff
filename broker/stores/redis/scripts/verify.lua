#!lua flags=allow-oom
-- Look whether what a broker has answered for is there; if not, leave a mark for every reader.
--
-- KEYS[1] is the place of a user or a room: :meta, :box and :gone as in append.lua.
-- ARGV: the highest sequence that the broker gave, fresh ('1': its message must still be known),
--       from (sequence, exclusive: nothing up to there is lost; 0: not known)
-- Returns 1 where something was lost, else 0. Everything from there up to the mark may be gone then:
-- who has not acknowledged the mark is told, and no sequence is given twice. Where a reader has been
-- given, or acknowledged, what lies above the sequence, the mark lies above that.
local place, seen = KEYS[1], tonumber(ARGV[1])
local meta = place .. ':meta'
local m = redis.call('HMGET', meta, 'born', 'last', 'f', 'given', 'purged', 'swept', 'lost', 'from')
if not m[1] or tonumber(m[1]) >= seen then
    return 0  -- removed meanwhile, and made anew
end
local last, from = tonumber(m[2] or 0), math.min(tonumber(ARGV[3]), seen - 1)
local top = math.max(tonumber(m[3] or 0), tonumber(m[4] or 0))
local lost = tonumber(m[7] or 0)
if last >= seen then
    -- Others have gone on. For so long it must be there, read or not, unless it was tidied.
    if ARGV[2] ~= '1' or seen <= tonumber(m[5] or 0) or seen <= tonumber(m[6] or 0)
        or (seen <= lost and seen > tonumber(m[8] or 0))
        or redis.call('ZCOUNT', place .. ':box', seen, seen) > 0
        or redis.call('HEXISTS', place .. ':gone', seen) == 1 then
        return 0
    end
end
local mark = seen
if seen <= top then
    mark = math.max(last, top) + 1
end
mark = string.format('%.0f', math.max(mark, lost))
from = math.min(from, last < seen and last or from, tonumber(m[8] or from))
redis.call('HSET', meta, 'last', string.format('%.0f', math.max(last, mark)), 'lost', mark,
    'from', string.format('%.0f', from))
redis.call('SPUBLISH', place .. ':wake', mark)
return 1
