"""The Lua text of `State.observe` for one entity: straight-line code, one local variable per slot.

Tables made for each call are most of what such a function costs; here only strings are made. What is
rare (slots beyond 2^53, entries out of order) is left to the functions of `library.lua`.
"""

from typing import Final

from features.layout import Layout
from features.schema import SchemaError
from features.state import FORMAT, RING
from features.tier import TIERS

# Lua 5.1 allows 250 registers to a function: its local variables and the arguments of its widest call.
REGISTERS_MAX: Final = 240


def header_format(layout: Layout) -> str:
    """What precedes the records of a state, for `struct`: places and ring as 8 bytes, the rest as numbers."""
    return "<I4I8I8" + "c8" * RING + _heads(layout) + "I4" * (len(TIERS) + len(layout.maps))


def header_size(layout: Layout) -> int:
    """Bytes before the first record."""
    return 20 + 8 * RING + 8 * len(layout.heads) + 4 * (len(TIERS) + len(layout.maps))


def _heads(layout: Layout) -> str:
    return "".join("c8" if head.kind == "place" else "I8" for head in layout.heads)


def observer(layout: Layout, number: int) -> str:
    """`local function observe_<number>(state, arg, at)`: new state (nil if the ring has the event) and
    running number; `at` is the target's first byte after its entity. Raises `SchemaError` for an entity
    with too many measures.
    """
    deltas = [f"d{m}" for m in range(len(layout.measures))]
    heads = range(len(layout.heads))
    maps = range(len(layout.maps))
    target = "<I8c8" + "I8" * len(deltas) + _heads(layout) + "c8" * len(layout.maps)
    values = ["time", "event", *deltas, *(f"v{h}" for h in heads), *(f"k{j}" for j in maps)]
    ring = [f"r{i}" for i in range(RING)]
    counted = [*(f"h{h}" for h in heads), *(f"c{i}" for i in range(len(TIERS))), *(f"m{j}" for j in maps)]
    pieces = [f"{p}{i}" for i in range(len(TIERS)) for p in "tax"] + [f"{p}{j}" for j in maps for p in "bzy"]
    widest = max(map(len, layout.tiers))
    check_registers(layout, len(values) + len(ring) + len(counted) + len(pieces) + 16 + 2 * widest)
    parts = [
        *(_head(h, layout.heads[h].kind == "place") for h in heads),
        *(_tier(layout, tier, number) for tier in range(len(TIERS)) if layout.tiers[tier]),
        *(_map(layout, j) for j in maps),
    ]
    body = "\n".join(parts)
    return f"""local function observe_{number}(state, arg, at)
  local {", ".join(values)} = read("{target}", arg, at)
  local format, n, newest, {", ".join([*ring, *counted])} = read("{header_format(layout)}", state)
  if format ~= {FORMAT} then error("damaged state: format " .. format) end
  if {" or ".join(f"event == {r}" for r in ring)} then return nil, n end
  n = n + 1
  local moved = time > newest
  if moved then newest = time end
  local from, copied = {header_size(layout) + 1}, {header_size(layout) + 1}
  local {", ".join(pieces)} = {", ".join(['""'] * len(pieces))}
{body}
  return pack("{header_format(layout)}", {FORMAT}, n, newest, event, {", ".join([*ring[:-1], *counted])})
    .. {" .. ".join([*pieces, "sub(state, copied)"])}, n
end
"""


def check_registers(layout: Layout, needed: int) -> None:
    """Raises `SchemaError` where a function needs more registers than there are."""
    if needed > REGISTERS_MAX:
        raise SchemaError(
            f"{layout.entity}: {len(layout.measures)} measures, {len(layout.heads)} heads and"
            f" {len(layout.maps)} remembered fields need {needed} registers, there are {REGISTERS_MAX}:"
            " divide the features among more entities"
        )


def _head(index: int, is_place: bool) -> str:
    if is_place:
        return f"  if v{index} ~= ZERO then h{index} = max8(h{index}, v{index}) end"
    return f"  if v{index} > h{index} then h{index} = v{index} end"


def _tier(layout: Layout, tier: int, number: int) -> str:
    """Expire old tiles, then add to the event's own: nearly always the last one, or a new last one."""
    slots = layout.tiers[tier]
    size, length = 4 + 8 * len(slots), TIERS[tier].length_ms
    names = ", ".join(f"s{i}" for i in range(len(slots)))
    added = "; ".join(
        f"if d{m} > s{i} then s{i} = d{m} end"
        if layout.measures[m].grows_by == "max"
        else f"s{i} = s{i} + d{m}"
        for i, m in enumerate(slots)
    )
    fresh = ", ".join(f"d{m}" for m in slots)
    layout_tier = f"LAYOUTS[{number}][{tier + 1}]"
    return f"""  do
    local stop, bound = from + {size} * c{tier}, (newest - {layout.keep_ms[tier]}) / {length}
    if moved and c{tier} > 0 and read("<I4", state, from) + 1 <= bound then
      local kept = expire(state, from, stop, {size}, floor(bound))
      t{tier} = sub(state, copied, from - 1)
      c{tier}, from, copied = (stop - kept) / {size}, kept, kept
    end
    local tile = (time - time % {length}) / {length}
    if tile + 1 > bound and ({" or ".join(f"d{m} ~= 0" for m in slots)}) then
      local where, last, {names} = stop - {size}
      if c{tier} > 0 then last, {names} = read("<I4{"I8" * len(slots)}", state, where) end
      if last ~= tile then
        if last and last > tile then
          where, last = locate(state, from, stop, {size}, tile)
          if last then last, {names} = read("<I4{"I8" * len(slots)}", state, where) end
        else
          where, last = stop, nil
        end
      end
      if last then
        {added}
        if {" + ".join(f"s{i}" for i in range(len(slots)))} < EXACT then
          x{tier} = pack("<I4{"I8" * len(slots)}", tile, {names})
        else
          x{tier} = grown({layout_tier}, state, where, true, tile, arg, at)
        end
        a{tier} = sub(state, copied, where - 1)
        copied = where + {size}
      else
        if {" + ".join(f"d{m}" for m in slots)} < EXACT then
          x{tier} = pack("<I4{"I8" * len(slots)}", tile, {fresh})
        else
          x{tier} = grown({layout_tier}, state, where, false, tile, arg, at)
        end
        a{tier} = sub(state, copied, where - 1)
        copied = where
        c{tier} = c{tier} + 1
      end
    end
    from = stop
  end"""


def _map(layout: Layout, index: int) -> str:
    """Put the event's value last, where it belongs unless the event is late; drop what is too old."""
    spec = layout.maps[index]
    j = index
    return f"""  do
    local stop, oldest = from + 16 * m{j}, newest - {spec.horizon_ms}
    local first, last = time, -1
    if m{j} > 0 then first, last = read("<I8", state, from + 8), read("<I8", state, stop - 8) end
    if k{j} ~= ZERO and time > last and first >= oldest then
      local held = find(state, k{j}, from, true)
      while held and held < stop and (held - from) % 16 ~= 0 do held = find(state, k{j}, held + 1, true) end
      if not held or held >= stop then
        held = nil
        if m{j} == {spec.bound} then held = from else m{j} = m{j} + 1 end
      end
      if held then
        b{j}, z{j} = sub(state, copied, held - 1), sub(state, held + 16, stop - 1)
      else
        b{j} = sub(state, copied, stop - 1)
      end
      y{j} = k{j} .. pack("<I8", time)
      copied = stop
    elseif k{j} ~= ZERO or first < oldest then
      local entries = sub(state, from, stop - 1)
      if k{j} ~= ZERO then entries = remembered(entries, k{j}, time) end
      b{j}, y{j} = sub(state, copied, from - 1), recent(entries, {spec.bound}, oldest)
      m{j}, copied = #y{j} / 16, stop
    end
    from = stop
  end"""
