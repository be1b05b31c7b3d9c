-- Publishes positions; with several lanes the least of them. Never backwards within one life of the store.
local life, wall, lanes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local function publish(field, offset, time)
  local known = redis.call('HGET', KEYS[1], field)
  if known then
    local at, reached = string.match(known, '^(%S+) (%d+)')
    if at == life and tonumber(reached) > tonumber(offset) then return end
  end
  redis.call('HSET', KEYS[1], field, table.concat({life, offset, time, wall}, ' '))
end
for i = 4, #ARGV, 4 do
  local field, lane, offset, time = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if lanes == 1 then
    publish(field, offset, time)
  else
    redis.call('HSET', KEYS[2], field .. '/' .. lane, table.concat({life, lanes, offset, time}, ' '))
    local least, its_time = nil, nil
    for j = 0, lanes - 1 do
      local known = redis.call('HGET', KEYS[2], field .. '/' .. j)
      local at, of, reached, when
      if known then at, of, reached, when = string.match(known, '^(%S+) (%d+) (%d+) (%d+)$') end
      if at ~= life or tonumber(of) ~= lanes then least = nil break end
      if not least or tonumber(reached) < tonumber(least) then least, its_time = reached, when end
    end
    if least then publish(field, least, its_time) end
  end
end
return (#ARGV - 3) / 4
