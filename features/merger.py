"""The Lua text of `State.merge` for one entity: straight-line code, as of `features.observer`.

Where the decision path observes, nearly all that the jobs assert is in the state already. So the rows are
first compared with it, and only what is new is put in. More than one new row for a section is rare and
left to `merge` in `library.lua`, and so are slots beyond 2^53.
"""

from features.layout import Layout
from features.observer import check_registers, header_format, header_size
from features.state import FORMAT, RING
from features.tier import TIERS


def merger(layout: Layout, number: int) -> str:
    """`local function merge_<number>(state, rows)`: new state (nil if it holds all of it already) and the
    number of rows. Raises `SchemaError` for an entity with too many measures.
    """
    heads, maps = range(len(layout.heads)), range(len(layout.maps))
    tiers = [tier for tier in range(len(TIERS)) if layout.tiers[tier]]
    counted = [*(f"h{h}" for h in heads), *(f"c{i}" for i in range(len(TIERS))), *(f"m{j}" for j in maps)]
    found = [*(f"x{i}" for i in tiers), *(f"q{j}" for j in maps), *(f"v{h}" for h in heads)]
    places = [f"{p}{i}" for i in tiers for p in "wek"]
    starts = [f"f{i}" for i in range(len(TIERS) + len(layout.maps))]
    pieces = [f"{p}{i}" for i in tiers for p in "ta"] + [f"{p}{j}" for j in maps for p in "bzy"]
    joint = [f"{p}{i}" for i in tiers for p in "tax"] + [f"{p}{j}" for j in maps for p in "bzy"]
    widest = max(map(len, layout.tiers))
    held = [*counted, *found, *places, *starts, *pieces]
    check_registers(layout, 10 + len(held) + 16 + 3 * widest)
    form = _header_format(layout)
    size = header_size(layout) + 1
    rows = [*(_tile_row(layout, i, number) for i in tiers), *(_map_row(layout, j) for j in maps)]
    rows += [_head_row(layout, h) for h in heads]
    parts = [
        *(f"  if v{h} then h{h} = v{h} end" for h in heads),
        *(_tier(layout, i) for i in tiers),
        *(_map(layout, j) for j in maps),
    ]
    body = "\n".join(parts)
    return f"""local function merge_{number}(state, rows)
  local format, n, newest, ring, {", ".join(counted)} = read("{form}", state)
  if format ~= {FORMAT} then error("damaged state: format " .. format) end
  local moved, many, count, at, last, sizes = newest, false, 0, 1, #rows, LAYOUTS[{number}].sizes
  local {", ".join(starts)} = {size}
{_starts(layout)}
  local {", ".join([*found, *places])}
  while at <= last do
    local code = byte(rows, at)
    local size = sizes[code]
    if not size or at + size > last + 1 then error("no row of this layout at byte " .. at) end
{"".join(rows)}    end
    at, count = at + size, count + 1
  end
  if many then return merge(LAYOUTS[{number}], state, rows), count end
  if not ({" or ".join(found)}) then return nil, count end
  moved, newest = moved > newest, moved
  local copied = {size}
  local {", ".join(pieces)} = {", ".join(['""'] * len(pieces))}
{body}
  return pack("{form}", {FORMAT}, n, newest, ring, {", ".join(counted)})
    .. {" .. ".join([*joint, "sub(state, copied)"])}, count
end
"""


def _header_format(layout: Layout) -> str:
    return header_format(layout).replace("c8" * RING, f"c{8 * RING}", 1)


def _starts(layout: Layout) -> str:
    """Where each section of the state begins: `f<i>` for tiers, then for maps."""
    sizes = [f"{4 + 8 * len(slots)} * c{i}" for i, slots in enumerate(layout.tiers)]
    sizes += [f"16 * m{j}" for j in range(len(layout.maps))]
    return "\n".join(f"  f{i + 1} = f{i} + {size}" for i, size in enumerate(sizes[:-1]))


def _stop(layout: Layout, section: int) -> str:
    """Where a section of the state ends."""
    if section + 1 < len(TIERS) + len(layout.maps):
        return f"f{section + 1}"
    if section < len(TIERS):
        return f"f{section} + {4 + 8 * len(layout.tiers[section])} * c{section}"
    return f"f{section} + 16 * m{section - len(TIERS)}"


def _keyword(first: bool) -> str:
    return "if" if first else "elseif"


def _tile_row(layout: Layout, tier: int, number: int) -> str:
    """A tile is in the state already where no slot is greater, and old news where it expired. A new one is
    kept as `x` (the record), `w` and `e` (where it begins and what it replaces ends), `k` (the tile).
    """
    slots = len(layout.tiers[tier])
    size, length = 4 + 8 * slots, TIERS[tier].length_ms
    olds, news = (", ".join(f"{p}{i}" for i in range(slots)) for p in "sd")
    form = f"<I4{'I8' * slots}"
    total = " + ".join(f"s{i}" for i in range(slots))
    greatest = "; ".join(f"if d{i} > s{i} then s{i} = d{i} end" for i in range(slots))
    first = tier == next(i for i, kept in enumerate(layout.tiers) if kept)
    return f"""    {_keyword(first)} code == {tier} then
      local tile, from, stop = read("<I4", rows, at + 1), f{tier}, {_stop(layout, tier)}
      if tile + 1 > (newest - {layout.keep_ms[tier]}) / {length} then
        local where, there = locate(state, from, stop, {size}, tile)
        local new = sub(rows, at + 1, at + {size})
        if there then
          local old = sub(state, where, where + {size - 1})
          if old ~= new then
            local _, {olds} = read("{form}", old)
            local _, {news} = read("{form}", new)
            if {total} >= EXACT then
              new = joined(LAYOUTS[{number}][{tier + 1}], old, new)
            elseif {" or ".join(f"d{i} > s{i}" for i in range(slots))} then
              {greatest}
              if {total} < EXACT then
                new = pack("{form}", tile, {olds})
              else
                new = joined(LAYOUTS[{number}][{tier + 1}], old, new)
              end
            else
              new = old
            end
          end
          if new == old then new = nil end
        end
        if new then
          if x{tier} then many = true end
          x{tier}, w{tier}, e{tier}, k{tier} = new, where, there and where + {size} or where, tile
          if tile * {length} > moved then moved = tile * {length} end
        end
      end
"""


def _map_row(layout: Layout, index: int) -> str:
    section = len(TIERS) + index
    first = index == 0 and not any(layout.tiers)
    return f"""    {_keyword(first)} code == {3 + index} then
      local mark, time = read("<c8I8", rows, at + 1)
      if time >= newest - {layout.maps[index].horizon_ms} then
        local held = entry(state, f{section}, {_stop(layout, section)}, mark)
        if not held or read("<I8", state, held + 8) < time then
          if q{index} then many = true end
          q{index} = at + 1
          if time > moved then moved = time end
        end
      end
"""


def _head_row(layout: Layout, index: int) -> str:
    first = index == 0 and not any(layout.tiers) and not layout.maps
    is_place = layout.heads[index].kind == "place"
    kind = "c8" if is_place else "I8"
    new = f"max8(v{index} or h{index}, value) == value" if is_place else f"value > (v{index} or h{index})"
    return f"""    {_keyword(first)} code == {3 + len(layout.maps) + index} then
      local value = read("<{kind}", rows, at + 1)
      if value ~= h{index} and {new} then v{index} = value end
"""


def _tier(layout: Layout, tier: int) -> str:
    """Expire old tiles, then put in the new one."""
    size, length = 4 + 8 * len(layout.tiers[tier]), TIERS[tier].length_ms
    return f"""  do
    local from, stop, bound = f{tier}, {_stop(layout, tier)}, (newest - {layout.keep_ms[tier]}) / {length}
    if moved and c{tier} > 0 and read("<I4", state, from) + 1 <= bound then
      local kept = expire(state, from, stop, {size}, floor(bound))
      t{tier} = sub(state, copied, from - 1)
      c{tier}, copied = (stop - kept) / {size}, kept
    end
    if x{tier} and k{tier} + 1 > bound then
      a{tier}, copied = sub(state, copied, w{tier} - 1), e{tier}
      if w{tier} == e{tier} then c{tier} = c{tier} + 1 end
    else
      x{tier} = ""
    end
  end"""


def _map(layout: Layout, index: int) -> str:
    """Put the value last, where it nearly always belongs; drop what is too old."""
    spec, j, section = layout.maps[index], index, len(TIERS) + index
    return f"""  if q{j} or moved then
    local from, stop, oldest = f{section}, {_stop(layout, section)}, newest - {spec.horizon_ms}
    local mark, time = nil, -1
    if q{j} then mark, time = read("<c8I8", rows, q{j}) end
    local first, last = time, -1
    if m{j} > 0 then first, last = read("<I8", state, from + 8), read("<I8", state, stop - 8) end
    if mark and time > last and first >= oldest then
      local held = entry(state, from, stop, mark)
      if not held then
        if m{j} == {spec.bound} then held = from else m{j} = m{j} + 1 end
      end
      if held then
        b{j}, z{j} = sub(state, copied, held - 1), sub(state, held + 16, stop - 1)
      else
        b{j} = sub(state, copied, stop - 1)
      end
      y{j} = sub(rows, q{j}, q{j} + 15)
      copied = stop
    elseif mark or m{j} > 0 and first < oldest then
      local entries = sub(state, from, stop - 1)
      if mark then entries = remembered(entries, mark, time) end
      b{j}, y{j} = sub(state, copied, from - 1), recent(entries, {spec.bound}, oldest)
      m{j}, copied = #y{j} / 16, stop
    end
  end"""
