/* The states of one kind of entity, as features/state.py defines them: their bytes, and what changes them. */

#ifndef CORDON_STATE_H
#define CORDON_STATE_H

#include <stddef.h>
#include <stdint.h>

enum { TIERS = 3, RING = 4, FORMAT = 1, ENTRY = 16 };
enum { MEASURES_MAX = 256, HEADS_MAX = 32, MAPS_MAX = 32, SLOTS_MAX = MEASURES_MAX };

typedef struct {
    uint64_t length_ms, keep_ms;
    unsigned slots;
    size_t size; /* bytes of one tile: its number, then its slots */
    uint16_t measure[SLOTS_MAX];
    uint8_t largest[SLOTS_MAX]; /* whether the slot keeps the largest value, not the sum */
} tier_t;

typedef struct {
    uint32_t bound;
    uint64_t horizon_ms;
} map_t;

typedef struct {
    unsigned measures, heads, maps;
    size_t header, target; /* bytes before the first tile; bytes of a target without its entity */
    tier_t tiers[TIERS];
    map_t seen[MAPS_MAX];
} layout_t;

/* A state that is being changed. `fault` stays NULL, or tells why the change is not to be kept. */
typedef struct {
    const layout_t *layout;
    uint8_t *bytes;
    size_t length, room;
    const char *fault;
} state_t;

/* Layouts as features/library.py packs them. Returns how many entities there are, 0 if the bytes are not such;
 * `layouts` is to be freed. */
unsigned cordon_layouts(const uint8_t *packed, size_t length, layout_t **layouts);

/* Begins with these bytes, or with the empty state. The buffer is used again. */
void cordon_open(state_t *state, const layout_t *layout, const uint8_t *bytes, size_t length);

/* Counts one target of `layout->target` bytes. Returns 0 if the ring shows that it was counted already. */
int cordon_observe(state_t *state, const uint8_t *target);

/* Joins rows by maximum; `count` is how many there are. */
void cordon_merge(state_t *state, const uint8_t *rows, size_t length, uint64_t *count);

/* The running number. */
uint64_t cordon_number(const state_t *state);

#endif
