/* Checks the records of one batch of a journal: each one's SHA-256 over the hash before it and its body. Worth it by
 * the processor's SHA instructions only; where there are none, cordon_chain_usable says so and Python checks. */
#include "../sha256.h"

#include <string.h>

enum { HASH = SHA256_BYTES, LENGTH = 4 };
enum { WHOLE = 0, BROKEN = 1 };

int cordon_chain_usable(void)
{
    return sha256_choose(0);
}

/* The record at `place`: its body's length; where there is no room for it before `end`, SIZE_MAX */
static size_t length_at(const uint8_t *data, size_t place, size_t end)
{
    if (end - place < LENGTH + HASH) {
        return SIZE_MAX;
    }
    const uint8_t *at = data + place;
    size_t length = (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
    return length > end - place - LENGTH - HASH ? SIZE_MAX : length;
}

/* The `records` of a batch that lie in data[place:end] and continue `before`; `hashes` receives theirs. WHOLE if
 * every one is right and they fill the batch. Each is checked against the hash that is stored before it, two at
 * once: where that one is wrong itself, its own record is found so. */
int cordon_chain(const uint8_t *data, size_t place, size_t end, uint32_t records, const uint8_t *before,
                 uint8_t *hashes)
{
    while (records > 0) {
        size_t length = length_at(data, place, end), next = SIZE_MAX, after = 0;
        if (length == SIZE_MAX) {
            return BROKEN;
        }
        const uint8_t *body = data + place + LENGTH, *stored = body + length;
        place += LENGTH + length + HASH;
        if (records > 1) {
            next = length_at(data, place, end);
            after = place + LENGTH;
        }
        if (next != SIZE_MAX) {
            sha256_chain_two(before, body, length, hashes, stored, data + after, next, hashes + HASH);
            if (memcmp(hashes, stored, HASH) != 0 || memcmp(hashes + HASH, data + after + next, HASH) != 0) {
                return BROKEN;
            }
            place = after + next + HASH;
            hashes += 2 * HASH, records -= 2;
        } else {
            sha256_chain(before, body, length, hashes);
            if (memcmp(hashes, stored, HASH) != 0) {
                return BROKEN;
            }
            hashes += HASH, records -= 1;
        }
        before = hashes - HASH;
    }
    return place == end ? WHOLE : BROKEN;
}
