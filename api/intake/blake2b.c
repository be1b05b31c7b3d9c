#include "blake2b.h"

#include <string.h>

static const uint64_t IV[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

static uint64_t word(const uint8_t *from)
{
    uint64_t found = 0;
    for (int i = 7; i >= 0; i--) {
        found = found << 8 | from[i];
    }
    return found;
}

static uint64_t turned(uint64_t value, int bits)
{
    return value >> bits | value << (64 - bits);
}

#define MIX(a, b, c, d, x, y)                                                                                  \
    do {                                                                                                       \
        v##a += v##b + m[x];                                                                                   \
        v##d = turned(v##d ^ v##a, 32);                                                                        \
        v##c += v##d;                                                                                          \
        v##b = turned(v##b ^ v##c, 24);                                                                        \
        v##a += v##b + m[y];                                                                                   \
        v##d = turned(v##d ^ v##a, 16);                                                                        \
        v##c += v##d;                                                                                          \
        v##b = turned(v##b ^ v##c, 63);                                                                        \
    } while (0)

/* One round; its arguments are a row of the RFC's table of permutations */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)                            \
    do {                                                                                                       \
        MIX(0, 4, 8, 12, s0, s1);                                                                              \
        MIX(1, 5, 9, 13, s2, s3);                                                                              \
        MIX(2, 6, 10, 14, s4, s5);                                                                             \
        MIX(3, 7, 11, 15, s6, s7);                                                                             \
        MIX(0, 5, 10, 15, s8, s9);                                                                             \
        MIX(1, 6, 11, 12, s10, s11);                                                                           \
        MIX(2, 7, 8, 13, s12, s13);                                                                            \
        MIX(3, 4, 9, 14, s14, s15);                                                                            \
    } while (0)

static void compress(uint64_t h[8], const uint8_t *block, uint64_t length, int last)
{
    uint64_t m[16];
    for (int i = 0; i < 16; i++) {
        m[i] = word(block + 8 * i);
    }
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = IV[0], v9 = IV[1], v10 = IV[2], v11 = IV[3];
    uint64_t v12 = IV[4] ^ length, v13 = IV[5], v14 = last ? ~IV[6] : IV[6], v15 = IV[7];
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    h[0] ^= v0 ^ v8;
    h[1] ^= v1 ^ v9;
    h[2] ^= v2 ^ v10;
    h[3] ^= v3 ^ v11;
    h[4] ^= v4 ^ v12;
    h[5] ^= v5 ^ v13;
    h[6] ^= v6 ^ v14;
    h[7] ^= v7 ^ v15;
}

void blake_prepare(blake_start *start, size_t size, const uint8_t *key, size_t key_size, const char *person)
{
    uint8_t padded[BLAKE_PERSON] = {0};
    size_t named = strlen(person);
    memcpy(padded, person, named < BLAKE_PERSON ? named : BLAKE_PERSON);
    memcpy(start->fresh, IV, sizeof IV);
    start->fresh[0] ^= 0x01010000u ^ (uint64_t)key_size << 8 ^ size;
    start->fresh[6] ^= word(padded);
    start->fresh[7] ^= word(padded + 8);
    memset(start->key, 0, sizeof start->key);
    memcpy(start->key, key, key_size);
    memcpy(start->keyed, start->fresh, sizeof start->keyed);
    compress(start->keyed, start->key, BLAKE_BLOCK, 0);
    start->size = size;
}

void blake_begin(blake *hash, const blake_start *start)
{
    memcpy(hash->h, start->keyed, sizeof hash->h);
    hash->length = BLAKE_BLOCK;
    hash->held = 0;
    hash->start = start;
}

void blake_add(blake *hash, const void *data, size_t size)
{
    const uint8_t *from = data;
    while (size > 0) {
        if (hash->held == BLAKE_BLOCK) {
            hash->length += BLAKE_BLOCK;
            compress(hash->h, hash->block, hash->length, 0);
            hash->held = 0;
        }
        size_t room = BLAKE_BLOCK - hash->held, piece = size < room ? size : room;
        memcpy(hash->block + hash->held, from, piece);
        hash->held += piece;
        from += piece;
        size -= piece;
    }
}

void blake_end(blake *hash, uint8_t digest[16])
{
    if (hash->held == 0) { /* a message without a byte */
        memcpy(hash->h, hash->start->fresh, sizeof hash->h);
        compress(hash->h, hash->start->key, BLAKE_BLOCK, 1);
    } else {
        memset(hash->block + hash->held, 0, BLAKE_BLOCK - hash->held);
        compress(hash->h, hash->block, hash->length + hash->held, 1);
    }
    for (int i = 0; i < 16; i++) {
        digest[i] = (uint8_t)(hash->h[i / 8] >> (8 * (i % 8)));
    }
}
