#!lua name=@NAME@
-- The online store's functions; features/library.py fills in @...@ and documents arguments and keys,
-- features/state.py is the same in Python. Numbers are doubles: slots below 2^53 are counted as such,
-- a record with a larger one is done on its bytes, as halves of 32 bits.

local FORMAT = @FORMAT@
local EXACT = 9007199254740992
local HALF = 4294967296
local ZERO = "\000\000\000\000\000\000\000\000"
local CLAIM = "<Bc16c16I8"
local NEW, RECOVERED, REPLAY, CONFLICT, PENDING, EXPIRED = 1, 2, 3, 4, 5, 6
local LAYOUTS = {
@LAYOUTS@
}

-- While a library loads only `redis` exists: the rest is bound at the first call.
local byte, sub, find, floor, concat, spread, sort, pack, read
local function bind()
  byte, sub, find, floor = string.byte, string.sub, string.find, math.floor
  concat, sort, spread, pack, read = table.concat, table.sort, unpack, struct.pack, struct.unpack
end

local function late(deadline)
  local now = redis.call("TIME")
  return now[1] * 1000 + floor(now[2] / 1000) > deadline
end

local function max8(a, b)
  if a == b then return a end
  local a_low, a_high = read("<I4I4", a)
  local b_low, b_high = read("<I4I4", b)
  if a_high > b_high or (a_high == b_high and a_low > b_low) then return a end
  return b
end

local function add8(a, b)
  local a_low, a_high = read("<I4I4", a)
  local b_low, b_high = read("<I4I4", b)
  local low, high = a_low + b_low, a_high + b_high
  if low >= HALF then low, high = low - HALF, high + 1 end
  if high >= HALF then error("a slot passed 2^64") end
  return pack("<I4I4", low, high)
end

-- A state being rewritten: pieces of the old bytes and new records, joined once at the end.
-- `copied`: first byte of the old state that no piece holds yet.
local pieces, count, copied

local function splice(state, from, record, next)
  if from > copied then
    count = count + 1
    pieces[count] = sub(state, copied, from - 1)
  end
  if record then
    count = count + 1
    pieces[count] = record
  end
  copied = next
end

local function open(L, state)
  local h = {read(L.header, state)}
  if h[1] ~= FORMAT then error("damaged state: format " .. h[1]) end
  pieces, count, copied = {false}, 1, L.body
  return h
end

local function close(L, state, h)
  splice(state, #state + 1, nil, 0)
  pieces[1] = pack(L.header, spread(h, 1, L.fields))
  return concat(pieces)
end

-- Where a tile's record is in [from, stop), or belongs; and whether it is there.
local function locate(state, from, stop, size, tile)
  if from == stop then return stop, false end
  local last = read("<I4", state, stop - size)
  if last < tile then return stop, false end
  if last == tile then return stop - size, true end
  local low, high = 0, (stop - from) / size - 1
  while low < high do
    local middle = floor((low + high) / 2)
    if read("<I4", state, from + middle * size) < tile then low = middle + 1 else high = middle end
  end
  local at = from + low * size
  return at, read("<I4", state, at) == tile
end

-- Where the first tile is that is not before `oldest`.
local function expire(state, from, stop, size, oldest)
  local at = from
  while at < stop and read("<I4", state, at) < oldest do at = at + size end
  return at
end

-- The record at `at` (a new one if not `there`) after adding the target at `base` in `arg`, on its bytes.
local function grown(T, state, at, there, tile, arg, base)
  local words = {pack("<I4", tile)}
  for j = 1, T.slots do
    local start = base + 8 * (T.from[j] - 1)
    local delta = sub(arg, start, start + 7)
    if there then
      local old = sub(state, at + 8 * j - 4, at + 8 * j + 3)
      delta = (T.max[j] and max8 or add8)(old, delta)
    end
    words[j + 1] = delta
  end
  return concat(words)
end

local function joined(T, a, b)
  if a == b then return a end
  local x, y, exact = {read(T.format, a)}, {read(T.format, b)}, true
  for j = 2, T.slots + 1 do
    if y[j] > x[j] then x[j] = y[j] end
    if x[j] >= EXACT then exact = false end
  end
  if exact then return pack(T.format, spread(x, 1, T.slots + 1)) end
  local words = {sub(a, 1, 4)}
  for j = 1, T.slots do
    words[j + 1] = max8(sub(a, 8 * j - 3, 8 * j + 4), sub(b, 8 * j - 3, 8 * j + 4))
  end
  return concat(words)
end

-- Remembered values (mark, last seen), ordered by (last seen, mark): `entries` with one more.
local function remembered(entries, mark, last)
  local at = find(entries, mark, 1, true)
  while at and at % 16 ~= 1 do at = find(entries, mark, at + 1, true) end
  if at and read("<I8", entries, at + 8) >= last then return entries end
  local to = #entries + 1
  while to > 1 do
    local other, seen = read("<c8I8", entries, to - 16)
    if seen < last or (seen == last and max8(other, mark) == mark) then break end
    to = to - 16
  end
  local entry = mark .. pack("<I8", last)
  if not at then return sub(entries, 1, to - 1) .. entry .. sub(entries, to) end
  return sub(entries, 1, at - 1) .. sub(entries, at + 16, to - 1) .. entry .. sub(entries, to)
end

-- The most recent `bound` entries that are not older than `oldest`.
local function recent(entries, bound, oldest)
  local at = #entries - 16 * bound + 1
  if at < 1 then at = 1 end
  while at < #entries and read("<I8", entries, at + 8) < oldest do at = at + 16 end
  return at > 1 and sub(entries, at) or entries
end

-- State.observe for each entity (features/observer.py).
@OBSERVERS@

-- Rows of a merge by section; the newest event time they imply; the number of rows.
local function sorted(L, rows, newest)
  local groups, at, n = {}, 1, 0
  while at <= #rows do
    local code = byte(rows, at)
    local size, tile = L.sizes[code], 0
    if not size or at + size > #rows + 1 then error("no row of this layout at byte " .. at) end
    if code < 3 then
      tile = read("<I4", rows, at + 1)
      if tile * L[code + 1].length > newest then newest = tile * L[code + 1].length end
    elseif code < 3 + L.maps then
      local last = read("<I8", rows, at + 9)
      if last > newest then newest = last end
    end
    local group = groups[code] or {}
    group[#group + 1] = {tile, sub(rows, at + 1, at + size - 1)}
    groups[code] = group
    at = at + size
    n = n + 1
  end
  return groups, newest, n
end

local function by_tile(a, b)
  return a[1] < b[1]
end

-- Joins rows into the tiles of [at, stop); the number of tiles then.
local function join_tiles(T, state, at, stop, group, oldest)
  local start = expire(state, at, stop, T.size, oldest)
  if start > at then splice(state, at, nil, start) end
  local held = (stop - start) / T.size
  if not group then return held end
  if #group > 1 then sort(group, by_tile) end
  local k = 1
  while k <= #group do
    local tile, record = group[k][1], group[k][2]
    while group[k + 1] and group[k + 1][1] == tile do
      k = k + 1
      record = joined(T, record, group[k][2])
    end
    k = k + 1
    if tile >= oldest then
      local where, there = locate(state, start, stop, T.size, tile)
      if there then
        local old = sub(state, where, where + T.size - 1)
        record = joined(T, old, record)
        if record ~= old then splice(state, where, record, where + T.size) end
      else
        splice(state, where, record, where)
        held = held + 1
      end
    end
  end
  return held
end

-- State.merge of any rows: the new bytes and the number of rows.
local function merge(L, state, rows)
  local h = open(L, state)
  local groups, newest, n = sorted(L, rows, h[3])
  h[3] = newest
  for i = 1, L.heads do
    for _, row in ipairs(groups[2 + L.maps + i] or {}) do
      if L.places[i] then
        h[7 + i] = max8(h[7 + i], row[2])
      else
        local value = read("<I8", row[2])
        if value > h[7 + i] then h[7 + i] = value end
      end
    end
  end
  local at, c = L.body, 7 + L.heads
  for i = 1, 3 do
    local T = L[i]
    c = c + 1
    local stop = at + h[c] * T.size
    local oldest = (newest - T.keep) / T.length
    h[c] = join_tiles(T, state, at, stop, groups[i - 1], oldest > 0 and floor(oldest) or 0)
    at = stop
  end
  for j = 1, L.maps do
    c = c + 1
    local stop = at + 16 * h[c]
    local old = sub(state, at, stop - 1)
    local entries = old
    for _, row in ipairs(groups[2 + j] or {}) do
      local mark, last = read("<c8I8", row[2])
      entries = remembered(entries, mark, last)
    end
    entries = recent(entries, L.seen[j].bound, newest - L.seen[j].horizon)
    if entries ~= old then splice(state, at, entries, stop) end
    h[c] = #entries / 16
    at = stop
  end
  return close(L, state, h), n
end

-- Where a remembered value's entry is in [from, stop); nil if there is none.
local function entry(state, from, stop, mark)
  if stop > from and sub(state, stop - 16, stop - 9) == mark then return stop - 16 end
  local at = find(state, mark, from, true)
  while at and at < stop and (at - from) % 16 ~= 0 do at = find(state, mark, at + 1, true) end
  if at and at < stop then return at end
end

-- State.merge for each entity (features/merger.py).
@MERGERS@

-- One function per entity, registered below.
local function merge_one(number, keys, args)
  if not sub then bind() end
  local before, empty = redis.call("GET", keys[1]), LAYOUTS[number].empty
  local after, n = MERGERS[number](before or empty, args[1])
  after = after or before or empty
  if after ~= before then redis.call("SET", keys[1], after) end
  return n
end

-- Whether an arrival with this claim may go on (its status), or the whole reply.
local function judged(held, claim, now, takeover)
  if not held then return NEW end
  local state, known, _, claimed = read(CLAIM, held)
  if known ~= sub(claim, 2, 17) then return nil, {CONFLICT} end
  if state == 2 then return nil, {REPLAY, sub(held, 42)} end
  if now - claimed < takeover then return nil, {PENDING} end
  return RECOVERED
end

local function arrive(keys, args)
  if not sub then bind() end
  local arg, claim = args[1], args[2]
  local now, deadline, takeover, life, observes, targets, at = read("<I8I8I4I4BB", arg)
  if late(deadline) then return {EXPIRED} end
  local values = redis.call("MGET", spread(keys))
  local status, refusal = judged(values[1], claim, now, takeover)
  if not status then return refusal end
  local reply, writes, fresh, n = {status}, {}, {}, 0
  for i = 1, targets do
    local kind, key = byte(arg, at), keys[i + 1]
    local before = fresh[key] or values[i + 1]
    local number = 0
    if observes == 1 then
      local after
      after, number = OBSERVERS[kind](before or LAYOUTS[kind].empty, arg, at + 1)
      if after then
        fresh[key] = after
        writes[n + 1], writes[n + 2] = key, after
        n = n + 2
      else
        number = -number
      end
    end
    reply[2 * i], reply[2 * i + 1] = number, before
    at = at + LAYOUTS[kind].target
  end
  redis.call("SET", keys[1], claim, "EX", life)
  if n > 0 then redis.call("MSET", spread(writes, 1, n)) end
  return reply
end

-- One entity of a claimed event, on a cluster; nil if the deadline passed.
local function observe_one(keys, args)
  if not sub then bind() end
  local arg = args[1]
  local deadline, observes, number = read("<I8BB", arg)
  if late(deadline) then return false end
  local before = redis.call("GET", keys[1])
  if observes == 0 then return {0, before} end
  local after, n = OBSERVERS[number](before or LAYOUTS[number].empty, arg, 11)
  if not after then return {-n, before} end
  redis.call("SET", keys[1], after)
  return {n, before}
end

-- A claim that was packed without knowing the held one takes its content and time.
local function complete(keys, args)
  if not sub then bind() end
  local claim, known = args[2], redis.call("GETRANGE", keys[1], 1, 40)
  if known ~= sub(claim, 2, 41) then
    if known == "" or sub(known, 17, 32) ~= sub(claim, 18, 33) then return 0 end
    claim = "\002" .. known .. sub(claim, 42)
  end
  redis.call("SET", keys[1], claim, "EX", args[1])
  return 1
end

-- Gives up an own claim that was not answered.
local function release(keys, args)
  if not sub then bind() end
  local held = redis.call("GETRANGE", keys[1], 0, 32)
  if byte(held) ~= 1 or sub(held, 18, 33) ~= args[1] then return 0 end
  return redis.call("DEL", keys[1])
end

-- Removes members of a sorted set whose score is still the one given: member, score, member, score...
local function unindex(keys, args)
  local removed = 0
  for i = 1, #args, 2 do
    local score = redis.call("ZSCORE", keys[1], args[i])
    if score and tonumber(score) == tonumber(args[i + 1]) then
      removed = removed + redis.call("ZREM", keys[1], args[i])
    end
  end
  return removed
end

redis.register_function("@NAME@_arrive", arrive)
redis.register_function("@NAME@_claim", arrive)
redis.register_function("@NAME@_observe", observe_one)
redis.register_function("@NAME@_complete", complete)
redis.register_function("@NAME@_release", release)
redis.register_function("@NAME@_unindex", unindex)
@MERGES@
