/* Changes states of any bytes by targets and rows of any bytes: fuzz_state <packed layouts> <changes>. Half of the
 * changes begin with what the change before left, so that states grow. */

#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252ull;

static uint64_t any(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Small numbers, times of a few days, and anything. */
static void fill(uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t kind = any() % 4, value = any();
        if (kind == 0)
            value %= 7;
        else if (kind == 1)
            value = 1710720000000ull + value % 864000000ull;
        else if (kind == 2)
            value >>= 8;
        memcpy(bytes + at, &value, length - at < 8 ? length - at : 8);
    }
}

int main(int argc, char **argv)
{
    static uint8_t packed[65536];
    FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL)
        return 2;
    size_t size = fread(packed, 1, sizeof packed, file);
    fclose(file);
    layout_t *layouts;
    unsigned count = cordon_layouts(packed, size, &layouts);
    if (count == 0)
        return 3;
    long changes = atol(argv[2]), refused = 0;
    state_t state = {0};
    uint8_t *kept = NULL;
    size_t kept_length = 0;
    const layout_t *kept_layout = NULL;
    for (long i = 0; i < changes; i++) {
        const layout_t *layout = &layouts[any() % count];
        if (any() % 16 == 0) {
            size_t length = any() % 400;
            uint8_t *bytes = malloc(length ? length : 1);
            fill(bytes, length);
            cordon_open(&state, layout, bytes, length);
            free(bytes);
        } else if (kept != NULL && any() % 8 != 0) {
            layout = kept_layout;
            cordon_open(&state, layout, kept, kept_length);
        } else {
            cordon_open(&state, layout, NULL, 0);
        }
        if (any() % 2) {
            uint8_t *target = malloc(layout->target);
            fill(target, layout->target);
            cordon_observe(&state, target);
            free(target);
        } else {
            size_t length = any() % 300;
            uint8_t *rows = malloc(length ? length : 1);
            fill(rows, length);
            if (length)
                rows[0] = (uint8_t)(any() % 8);
            uint64_t joined;
            cordon_merge(&state, rows, length, &joined);
            free(rows);
        }
        if (state.fault != NULL) {
            refused++;
            continue;
        }
        free(kept);
        kept = malloc(state.length);
        memcpy(kept, state.bytes, state.length);
        kept_length = state.length;
        kept_layout = layout;
    }
    printf("%ld changes, %ld refused\n", changes, refused);
    free(kept);
    free(layouts);
    free(state.bytes);
    return 0;
}
