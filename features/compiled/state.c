/* See state.h, and features/state.py for what the bytes mean. All numbers are little endian. */

#include "state.h"

#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "states are little endian: use the functions in Lua"
#endif

enum { AT_NUMBER = 4, AT_NEWEST = 12, AT_RING = 20, AT_HEADS = AT_RING + 8 * RING };

static uint32_t u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

static void put64(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof value); }

/* ---- layouts ------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at, *end;
    int short_of;
} reader_t;

static uint64_t next(reader_t *reader, size_t size)
{
    uint64_t value = 0;
    if ((size_t)(reader->end - reader->at) < size) {
        reader->short_of = 1;
        return 0;
    }
    memcpy(&value, reader->at, size);
    reader->at += size;
    return value;
}

static int read_layout(reader_t *reader, layout_t *layout)
{
    layout->measures = (unsigned)next(reader, 2);
    layout->heads = (unsigned)next(reader, 1);
    layout->maps = (unsigned)next(reader, 1);
    if (layout->measures > MEASURES_MAX || layout->heads > HEADS_MAX || layout->maps > MAPS_MAX)
        return 0;
    layout->header = AT_HEADS + 8 * layout->heads + 4 * (TIERS + layout->maps);
    layout->target = 8 * (2 + layout->measures + layout->heads + layout->maps);
    for (unsigned i = 0; i < TIERS; i++) {
        tier_t *tier = &layout->tiers[i];
        tier->length_ms = next(reader, 8);
        tier->keep_ms = next(reader, 8);
        tier->slots = (unsigned)next(reader, 2);
        tier->size = 4 + 8 * tier->slots;
        if (tier->length_ms == 0 || tier->slots > SLOTS_MAX)
            return 0;
        for (unsigned s = 0; s < tier->slots; s++) {
            tier->measure[s] = (uint16_t)next(reader, 2);
            tier->largest[s] = (uint8_t)next(reader, 1);
            if (tier->measure[s] >= layout->measures)
                return 0;
        }
    }
    for (unsigned j = 0; j < layout->maps; j++) {
        layout->seen[j].bound = (uint32_t)next(reader, 4);
        layout->seen[j].horizon_ms = next(reader, 8);
    }
    return !reader->short_of;
}

unsigned cordon_layouts(const uint8_t *packed, size_t length, layout_t **layouts)
{
    reader_t reader = {packed, packed + length, 0};
    unsigned count = (unsigned)next(&reader, 1);
    *layouts = calloc(count ? count : 1, sizeof **layouts);
    if (*layouts == NULL)
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (!read_layout(&reader, *layouts + i))
            count = 0;
    if (count == 0 || reader.at != reader.end) {
        free(*layouts);
        *layouts = NULL;
        return 0;
    }
    return count;
}

/* ---- sections of a state ------------------------------------------------------------------------------- */

static void fail(state_t *state, const char *fault)
{
    if (state->fault == NULL)
        state->fault = fault;
}

static void reserve(state_t *state, size_t length)
{
    if (length > state->room) {
        size_t room = 2 * length + 4096;
        uint8_t *bytes = realloc(state->bytes, room);
        if (bytes == NULL)
            abort(); /* as the server does when there is no memory */
        state->bytes = bytes;
        state->room = room;
    }
}

/* Where the number of records of a section is noted: the tiers' first, then the maps'. */
static uint8_t *noted(const state_t *state, unsigned section)
{
    return state->bytes + AT_HEADS + 8 * state->layout->heads + 4 * section;
}

static size_t record_size(const layout_t *layout, unsigned section)
{
    return section < TIERS ? layout->tiers[section].size : ENTRY;
}

static uint64_t measured(const state_t *state)
{
    uint64_t length = state->layout->header;
    for (unsigned section = 0; section < TIERS + state->layout->maps; section++)
        length += (uint64_t)u32(noted(state, section)) * record_size(state->layout, section);
    return length;
}

static size_t begin_of(const state_t *state, unsigned section)
{
    size_t at = state->layout->header;
    for (unsigned before = 0; before < section; before++)
        at += u32(noted(state, before)) * record_size(state->layout, before);
    return at;
}

/* Makes room for a record at `at`, whose content is not set. */
static uint8_t *insert(state_t *state, unsigned section, size_t at)
{
    size_t size = record_size(state->layout, section);
    reserve(state, state->length + size);
    memmove(state->bytes + at + size, state->bytes + at, state->length - at);
    state->length += size;
    put32(noted(state, section), u32(noted(state, section)) + 1);
    return state->bytes + at;
}

static void erase(state_t *state, unsigned section, size_t at, uint32_t records)
{
    size_t size = records * record_size(state->layout, section);
    memmove(state->bytes + at, state->bytes + at + size, state->length - at - size);
    state->length -= size;
    put32(noted(state, section), u32(noted(state, section)) - records);
}

void cordon_open(state_t *state, const layout_t *layout, const uint8_t *bytes, size_t length)
{
    state->layout = layout;
    state->fault = NULL;
    reserve(state, layout->header > length ? layout->header : length);
    if (bytes == NULL) {
        memset(state->bytes, 0, layout->header);
        put32(state->bytes, FORMAT);
        state->length = layout->header;
        return;
    }
    memcpy(state->bytes, bytes, length);
    state->length = length;
    if (length < layout->header || u32(state->bytes) != FORMAT || measured(state) != length)
        fail(state, "ERR damaged state");
}

uint64_t cordon_number(const state_t *state) { return u64(state->bytes + AT_NUMBER); }

/* ---- changes ------------------------------------------------------------------------------------------- */

static uint64_t newest_of(const state_t *state) { return u64(state->bytes + AT_NEWEST); }

static void saw(state_t *state, uint64_t time_ms)
{
    if (time_ms > newest_of(state))
        put64(state->bytes + AT_NEWEST, time_ms);
}

/* The first tile that is still kept. */
static uint64_t oldest_of(const state_t *state, unsigned tier)
{
    const tier_t *kept = &state->layout->tiers[tier];
    uint64_t newest = newest_of(state);
    return newest > kept->keep_ms ? (newest - kept->keep_ms) / kept->length_ms : 0;
}

/* The tile's record, made with slots of 0 if there is none. */
static uint8_t *tile_of(state_t *state, unsigned tier, uint32_t tile)
{
    size_t size = state->layout->tiers[tier].size, begin = begin_of(state, tier);
    uint32_t low = 0, high = u32(noted(state, tier));
    if (high && u32(state->bytes + begin + (high - 1) * size) < tile)
        low = high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (u32(state->bytes + begin + middle * size) < tile)
            low = middle + 1;
        else
            high = middle;
    }
    size_t at = begin + low * size;
    if (low < u32(noted(state, tier)) && u32(state->bytes + at) == tile)
        return state->bytes + at;
    uint8_t *record = insert(state, tier, at);
    put32(record, tile);
    memset(record + 4, 0, size - 4);
    return record;
}

static void enlarge(uint8_t *slot, uint64_t value)
{
    if (value > u64(slot))
        put64(slot, value);
}

static void add_to(state_t *state, uint8_t *slot, uint64_t value)
{
    uint64_t held = u64(slot);
    if (held + value < held)
        fail(state, "ERR a slot passed 2^64");
    put64(slot, held + value);
}

/* Whether (last, mark) of the entry comes before these. */
static int precedes(const uint8_t *entry, uint64_t mark, uint64_t last_ms)
{
    uint64_t last = u64(entry + 8);
    return last < last_ms || (last == last_ms && u64(entry) < mark);
}

/* A remembered value was seen: entries stay in the order of (last seen, mark). */
static void remember(state_t *state, unsigned map, uint64_t mark, uint64_t last_ms)
{
    unsigned section = TIERS + map;
    size_t begin = begin_of(state, section);
    uint32_t count = u32(noted(state, section));
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = state->bytes + begin + ENTRY * i;
        if (u64(entry) == mark) {
            if (u64(entry + 8) >= last_ms)
                return;
            erase(state, section, begin + ENTRY * i, 1);
            count--;
            break;
        }
    }
    while (count && !precedes(state->bytes + begin + ENTRY * (count - 1), mark, last_ms))
        count--;
    uint8_t *entry = insert(state, section, begin + ENTRY * count);
    put64(entry, mark);
    put64(entry + 8, last_ms);
}

/* Drops what retention does not keep. */
static void trim(state_t *state)
{
    const layout_t *layout = state->layout;
    uint64_t newest = newest_of(state);
    size_t begin = layout->header;
    for (unsigned tier = 0; tier < TIERS; tier++) {
        uint64_t oldest = oldest_of(state, tier);
        uint32_t count = u32(noted(state, tier)), dropped = 0;
        while (dropped < count && u32(state->bytes + begin + dropped * layout->tiers[tier].size) < oldest)
            dropped++;
        if (dropped)
            erase(state, tier, begin, dropped);
        begin += (count - dropped) * layout->tiers[tier].size;
    }
    for (unsigned map = 0; map < layout->maps; map++) {
        const map_t *seen = &layout->seen[map];
        uint64_t oldest = newest > seen->horizon_ms ? newest - seen->horizon_ms : 0;
        uint32_t count = u32(noted(state, TIERS + map));
        uint32_t dropped = count > seen->bound ? count - seen->bound : 0;
        while (dropped < count && u64(state->bytes + begin + ENTRY * dropped + 8) < oldest)
            dropped++;
        if (dropped)
            erase(state, TIERS + map, begin, dropped);
        begin += ENTRY * (count - dropped);
    }
}

/* Adds the target's deltas to its tile of one tier. */
static void count_in(state_t *state, unsigned tier, uint64_t time_ms, const uint8_t *deltas)
{
    const tier_t *kept = &state->layout->tiers[tier];
    uint64_t any = 0, tile = time_ms / kept->length_ms;
    for (unsigned s = 0; s < kept->slots; s++)
        any |= u64(deltas + 8 * kept->measure[s]);
    if (!any || tile < oldest_of(state, tier))
        return;
    if (tile > UINT32_MAX) {
        fail(state, "ERR a time after the last tile");
        return;
    }
    uint8_t *slots = tile_of(state, tier, (uint32_t)tile) + 4;
    for (unsigned s = 0; s < kept->slots; s++) {
        uint64_t delta = u64(deltas + 8 * kept->measure[s]);
        if (kept->largest[s])
            enlarge(slots + 8 * s, delta);
        else
            add_to(state, slots + 8 * s, delta);
    }
}

int cordon_observe(state_t *state, const uint8_t *target)
{
    const layout_t *layout = state->layout;
    if (state->fault)
        return 0;
    uint64_t time_ms = u64(target), event = u64(target + 8);
    const uint8_t *deltas = target + 16, *heads = deltas + 8 * layout->measures;
    const uint8_t *marks = heads + 8 * layout->heads;
    for (unsigned i = 0; i < RING; i++)
        if (u64(state->bytes + AT_RING + 8 * i) == event)
            return 0;
    put64(state->bytes + AT_NUMBER, cordon_number(state) + 1);
    memmove(state->bytes + AT_RING + 8, state->bytes + AT_RING, 8 * (RING - 1));
    put64(state->bytes + AT_RING, event);
    saw(state, time_ms);
    for (unsigned h = 0; h < layout->heads; h++)
        enlarge(state->bytes + AT_HEADS + 8 * h, u64(heads + 8 * h));
    for (unsigned tier = 0; tier < TIERS; tier++)
        count_in(state, tier, time_ms, deltas);
    for (unsigned map = 0; map < layout->maps; map++)
        if (u64(marks + 8 * map))
            remember(state, map, u64(marks + 8 * map), time_ms);
    trim(state);
    return 1;
}

static void join_tile(state_t *state, unsigned tier, const uint8_t *row)
{
    const tier_t *kept = &state->layout->tiers[tier];
    uint32_t tile = u32(row);
    uint8_t *slots = tile_of(state, tier, tile) + 4;
    for (unsigned s = 0; s < kept->slots; s++)
        enlarge(slots + 8 * s, u64(row + 4 + 8 * s));
    saw(state, tile * kept->length_ms);
}

void cordon_merge(state_t *state, const uint8_t *rows, size_t length, uint64_t *count)
{
    const layout_t *layout = state->layout;
    size_t at = 0;
    *count = 0;
    if (state->fault)
        return;
    for (; at < length; ++*count) {
        unsigned code = rows[at++];
        int is_tile = code < TIERS && layout->tiers[code].slots;
        int is_seen = code >= TIERS && code < TIERS + layout->maps;
        int is_head = code >= TIERS + layout->maps && code < TIERS + layout->maps + layout->heads;
        size_t size = is_tile ? layout->tiers[code].size : is_seen ? ENTRY : is_head ? 8 : length + 1;
        if (size > length - at) {
            fail(state, "ERR no row of this layout");
            return;
        }
        if (is_tile) {
            join_tile(state, code, rows + at);
        } else if (is_seen) {
            remember(state, code - TIERS, u64(rows + at), u64(rows + at + 8));
            saw(state, u64(rows + at + 8));
        } else {
            enlarge(state->bytes + AT_HEADS + 8 * (code - TIERS - layout->maps), u64(rows + at));
        }
        at += size;
    }
    trim(state);
}
