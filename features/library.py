"""The generated Lua function library of the online store, its keys, and the packing of its arguments.

Only these functions change stored state. All numbers are little endian, nothing is padded.

Where the server has the module (features/compiled), it answers what decisions and jobs call all the time, and
`CORDON.LAYOUT <library name> <packed layouts>` tells it what it has to know; keys, arguments, replies and
bytes are the same.

Names. A function is called `cordon_<state fingerprint>_r<REVISION>_<function>`; `REVISION` counts up when
an argument or a reply changes, so that two versions of the code can share a store during an upgrade.

Merging (the Flink jobs' sink, in stream/java, above all)::

    FCALL <merge name of the entity> 1 <state key> <rows>

`rows` is any number of rows of that one entity, simply concatenated, in any order, the same tile or
slot more than once if need be; rows of one entity may as well come in separate calls. Each row says
what it is in its first byte, and all rows of one section have one size (`sections` lists them)::

    tile of tier i            u8 i          | u32 tile | S_i x u64 slots     5 + 8 * S_i bytes
    entry of remembered map j u8 3 + j      | u64 mark | u64 last seen ms    17 bytes
    head slot h               u8 3 + M + h  | u64 value                      9 bytes

`i` is 0 minute, 1 hour, 2 day; `tile` = event time ms // length of the tier; `S_i` and the order of the
slots are `layout.tiers[i]` (indices of `layout.measures`); `M` = number of maps of the layout; `j` and
`h` index `layout.maps` and `layout.heads`. Values are absolute and enter by maximum, so a repeated call
changes nothing. The reply is the number of rows. In numpy a section is a packed structured array::

    numpy.dtype([("section", "u1"), ("tile", "<u4"), ("slots", "<u8", (S_i,))])

If the reply is the error `Function not found`, send `FUNCTION LOAD REPLACE <library(catalogue)>` and the
call again: the store lost its functions (a restart without persistence).

Observing. One *target* of an arrival is `target_struct(layout)`::

    u8 entity | u64 event time ms | u64 event number | deltas x u64 | heads x u64 | marks x u64

and `arrive` (a single node) takes the keys `claim, state of target 1, ...` and two arguments::

    u64 now ms | u64 deadline ms | u32 takeover ms | u32 claim lifetime s | u8 observe | u8 targets | targets
    the open claim

Claims (features/claim.py) come packed as they are stored: Lua hashes each string that it makes, so it makes
none of them again. `complete` takes the key of a claim, the claim lifetime in seconds and the answered claim;
it replies 1 (done) or 0 (another owner's by now). A caller that does not know the content and time of its
claim leaves zeros there.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final, Literal

from features.catalogue import Catalogue
from features.claim import CLAIM_LIFETIME_S
from features.layout import Layout, Observation
from features.merger import merger
from features.observer import header_format, header_size, observer
from features.state import FORMAT, RING, Assertion, State
from features.store import Arrival, Status, Target
from features.tier import TIERS

# features/compiled/module.c answers this one only.
REVISION: Final = 3
EXACT: Final = 2**53
Function = Literal["arrive", "claim", "observe", "complete", "release", "unindex", "merge"]
STATUS: Final[Mapping[int, Status]] = {
    1: Status.NEW,
    2: Status.RECOVERED,
    3: Status.REPLAY,
    4: Status.CONFLICT,
    5: Status.PENDING,
    6: Status.EXPIRED,
}
_ARRIVE: Final = struct.Struct("<QQIIBB")


def library_name(catalogue: Catalogue) -> str:
    """Name of the function library."""
    return f"cordon_{catalogue.state_fingerprint}_r{REVISION}"


def function_name(catalogue: Catalogue, function: Function, entity: str | None = None) -> str:
    """Name for FCALL; `merge` has one function per entity. Raises `KeyError` for an unknown entity."""
    name = f"{library_name(catalogue)}_{function}"
    return name if entity is None else f"{name}_{entity_number(catalogue, entity)}"


def library(catalogue: Catalogue) -> str:
    """Source of the function library, for `FUNCTION LOAD REPLACE`.

    Raises `SchemaError` for an entity with more measures than a Lua function has registers for.
    """
    name = library_name(catalogue)
    layouts = catalogue.layouts.values()
    numbers = range(1, len(layouts) + 1)
    merge = (
        'redis.register_function("{0}_merge_{1}", function(keys, args) return merge_one({1}, keys, args) end)'
    )
    filled = {
        "@NAME@": name,
        "@FORMAT@": str(FORMAT),
        "@LAYOUTS@": "\n".join(map(_layout, layouts)),
        "@OBSERVERS@": "\n".join(map(observer, layouts, numbers))
        + f"local OBSERVERS = {_list(f'observe_{number}' for number in numbers)}",
        "@MERGERS@": "\n".join(map(merger, layouts, numbers))
        + f"local MERGERS = {_list(f'merge_{number}' for number in numbers)}",
        "@MERGES@": "\n".join(merge.format(name, number) for number in numbers),
    }
    source = files("features").joinpath("library.lua").read_text(encoding="utf-8")
    for mark, text in filled.items():
        source = source.replace(mark, text)
    return source


def packed_layouts(catalogue: Catalogue) -> bytes:
    """What the module has to know of a catalogue::

    u8 entities, each:
        u16 measures | u8 heads | u8 maps
        3 tiers: u64 length ms | u64 keep ms | u16 slots | slots x ( u16 measure | u8 largest, not sum )
        maps x ( u32 bound | u64 horizon ms )
    """
    parts = [struct.pack("<B", len(catalogue.layouts))]
    for layout in catalogue.layouts.values():
        parts.append(struct.pack("<HBB", len(layout.measures), len(layout.heads), len(layout.maps)))
        for tier, slots in enumerate(layout.tiers):
            parts.append(struct.pack("<QQH", TIERS[tier].length_ms, layout.keep_ms[tier], len(slots)))
            parts += [struct.pack("<HB", m, layout.measures[m].grows_by == "max") for m in slots]
        parts += [struct.pack("<IQ", spec.bound, spec.horizon_ms) for spec in layout.maps]
    return b"".join(parts)


def _layout(layout: Layout) -> str:
    """One entity's constants: the header's format, offsets from 1, sizes in bytes."""
    fields = 3 + RING + len(layout.heads) + len(TIERS) + len(layout.maps)
    places = _list("true" if head.kind == "place" else "false" for head in layout.heads)
    empty = "".join(f"\\{byte:03d}" for byte in State(layout).encode())
    seen = _list(f"{{bound = {m.bound}, horizon = {m.horizon_ms}}}" for m in layout.maps)
    return f"""  {{
    -- {layout.entity}
    header = "{header_format(layout)}", fields = {fields}, body = {header_size(layout) + 1},
    target = {target_struct(layout).size},
    empty = "{empty}",
    heads = {len(layout.heads)}, places = {places},
    maps = {len(layout.maps)}, seen = {seen},
    sizes = {{{", ".join(f"[{s.code}] = {s.size}" for s in sections(layout))}}},
{"".join(_tier(layout, tier) for tier in range(len(TIERS)))}  }},"""


def _tier(layout: Layout, tier: int) -> str:
    slots = layout.tiers[tier]
    largest = _list("true" if layout.measures[m].grows_by == "max" else "false" for m in slots)
    return f"""    {{
      length = {TIERS[tier].length_ms}, keep = {layout.keep_ms[tier]},
      slots = {len(slots)}, size = {4 + 8 * len(slots)}, format = "<I4{"I8" * len(slots)}",
      from = {_list(str(3 + m) for m in slots)}, max = {largest},
    }},
"""


def _list(items: Iterable[str]) -> str:
    return f"{{{', '.join(items)}}}"


def entity_number(catalogue: Catalogue, entity: str) -> int:
    """The entity's number in arguments: its place among the entities that keep state, from 1."""
    if entity not in catalogue.layouts:
        raise KeyError(entity)
    return catalogue.entities.index(entity) + 1


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of one kind in a merge: `code` is their first byte, `size` their length in bytes.

    `index`: the tier, map or head. `slots`: number of u64 slots of a tile, else 0.
    """

    kind: Literal["tile", "seen", "head"]
    code: int
    index: int
    slots: int
    size: int


def sections(layout: Layout) -> tuple[Section, ...]:
    """Every kind of row that `merge` takes for this entity, by code."""
    maps = len(layout.maps)
    kept = [(i, len(slots)) for i, slots in enumerate(layout.tiers) if slots]
    tiles = [Section("tile", i, i, slots, 5 + 8 * slots) for i, slots in kept]
    seen = [Section("seen", 3 + j, j, 0, 17) for j in range(maps)]
    heads = [Section("head", 3 + maps + h, h, 0, 9) for h in range(len(layout.heads))]
    return (*tiles, *seen, *heads)


def pack_assertion(layout: Layout, asserted: Assertion) -> bytes:
    """Rows of a merge. Raises `ValueError` for a time of 2**53 ms or more, or a number outside u64."""
    maps = len(layout.maps)
    rows = []
    try:
        for tier, tile, slots in asserted.tiles:
            if not slots:
                raise ValueError(f"{layout.entity}: not an assertion of this layout: no tier {tier}")
            rows.append(struct.pack(f"<BI{len(layout.tiers[tier])}Q", tier, tile, *slots))
        for index, mark, last_ms in asserted.seen:
            _check_time(last_ms)
            rows.append(struct.pack("<BQQ", 3 + index, mark, last_ms))
        for index, value in enumerate(asserted.heads):
            if layout.heads[index].kind == "time":
                _check_time(value)
            if value:
                rows.append(struct.pack("<BQ", 3 + maps + index, value))
    except struct.error as error:
        raise ValueError(f"{layout.entity}: not an assertion of this layout: {error}") from error
    return b"".join(rows)


def _check_time(time_ms: int) -> None:
    if time_ms >= EXACT:
        raise ValueError(f"{time_ms} ms is no time")


def target_struct(layout: Layout) -> struct.Struct:
    """Packs `(entity number, time, event, *deltas, *heads, *marks)` of one target."""
    return struct.Struct(f"<B{2 + len(layout.measures) + len(layout.heads) + len(layout.maps)}Q")


def pack_arrival(arrival: Arrival, targets: bytes, now_ms: int, deadline_ms: int, takeover_ms: int) -> bytes:
    """The first argument of `arrive` and `claim` (there with `targets` empty)."""
    count = len(arrival.targets) if targets else 0
    return _ARRIVE.pack(now_ms, deadline_ms, takeover_ms, CLAIM_LIFETIME_S, arrival.observe, count) + targets


class Packing:
    """Targets of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._packers = {
            name: (target_struct(layout).pack, entity_number(catalogue, name))
            for name, layout in catalogue.layouts.items()
        }

    def target(self, entity: str, pseudonym: str, seen: Observation) -> Target:
        """A target of an arrival. Raises `KeyError` for an entity without state, `struct.error` for a number
        outside u64 or an observation of another layout."""
        pack, number = self._packers[entity]
        packed = pack(number, seen.time_ms, seen.event, *seen.deltas, *seen.heads, *seen.marks)
        return Target(entity, pseudonym, packed)


def unpack_target(layout: Layout, packed: bytes) -> Observation:
    """What `Packing` packed."""
    _, time_ms, event, *rest = target_struct(layout).unpack(packed)
    deltas, heads = len(layout.measures), len(layout.measures) + len(layout.heads)
    return Observation(event, time_ms, tuple(rest[:deltas]), tuple(rest[deltas:heads]), tuple(rest[heads:]))


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one tenant and one state fingerprint; every key is one hash tag of its own.

    Raises `ValueError` for a tenant that would break out of the tag.
    """

    tenant: str
    fingerprint: str

    def __post_init__(self) -> None:
        if not self.tenant or set(self.tenant) & set("{}:\r\n "):
            raise ValueError(f"tenant {self.tenant!r}: no braces, colons or spaces")

    def state(self, entity: str, pseudonym: str) -> str:
        """State of one entity."""
        return f"{{{self.tenant}:{entity}:{pseudonym}}}:s:{self.fingerprint}"

    def claim(self, key: str) -> str:
        """Claim of `tx:<id>`, `label:<id>` or `event:<id>`."""
        return f"{{{self.tenant}:{key}}}"

    @property
    def generation(self) -> str:
        """Token of the store's life."""
        return f"{{{self.tenant}:meta}}:generation"

    @property
    def rebuilding(self) -> str:
        """Present while state is missing; holds the generation and the wall clock of its detection."""
        return f"{{{self.tenant}:meta}}:rebuilding"

    @property
    def watermark(self) -> str:
        """Hash of the Flink jobs' positions."""
        return f"{{{self.tenant}:meta}}:watermark"

    @property
    def lanes(self) -> str:
        """Hash of the positions of single grouping subtasks, of which the watermark is the least."""
        return f"{{{self.tenant}:meta}}:lanes"

    @property
    def open_claims(self) -> str:
        """Sorted set of claims that may be open, by the time they were taken."""
        return f"{{{self.tenant}:meta}}:open"


def generation(token: str, *run_ids: str) -> str:
    """The store's generation, from the value under `Keys.generation` and each primary's `run_id`
    (`INFO server`): 12 hexadecimal digits, another one when a server was started anew or the token is gone.
    """
    return sha256(" ".join((token, *sorted(run_ids))).encode()).hexdigest()[:12]


def watermark_field(topic: str, partition: int) -> str:
    """Field of the watermark hash."""
    return f"{topic}:{partition}"


def watermark_value(life: str, next_offset: int, event_time_ms: int, wall_ms: int) -> str:
    """Value of the watermark hash; `life` is the generation."""
    return f"{life} {next_offset} {event_time_ms} {wall_ms}"


def parse_watermark(fields: Mapping[bytes, bytes]) -> dict[tuple[str, int], tuple[str, int, int, int]]:
    """The watermark hash as `(topic, partition) -> (generation, next offset, event time ms, wall ms)`."""
    found = {}
    for name, value in fields.items():
        topic, _, partition = name.decode().rpartition(":")
        life, offset, event_time_ms, wall_ms = value.decode().split(" ")
        found[topic, int(partition)] = (life, int(offset), int(event_time_ms), int(wall_ms))
    return found
