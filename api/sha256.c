#include "sha256.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define HAS_INSTRUCTIONS 1
#endif

enum { BLOCK_BYTES = 64 };

static const uint32_t START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

typedef void compressor(uint32_t state[8], const uint8_t *from, size_t blocks);

static uint32_t turned(uint32_t value, int bits)
{
    return value >> bits | value << (32 - bits);
}

static uint32_t big_endian(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void compress_plain(uint32_t state[8], const uint8_t *from, size_t blocks)
{
    for (; blocks > 0; blocks--, from += BLOCK_BYTES) {
        uint32_t w[64], t[8];
        for (int i = 0; i < 16; i++)
            w[i] = big_endian(from + 4 * i);
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        memcpy(t, state, sizeof t);
        for (int i = 0; i < 64; i += 8) {
            /* Instead of moving the words on, the next round takes them from one place before. */
            for (int j = 0; j < 8; j++) {
                uint32_t a = t[-j & 7], b = t[(1 - j) & 7], c = t[(2 - j) & 7];
                uint32_t e = t[(4 - j) & 7], f = t[(5 - j) & 7], g = t[(6 - j) & 7];
                uint32_t s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
                uint32_t one = t[(7 - j) & 7] + s1 + ((e & f) ^ (~e & g)) + K[i + j] + w[i + j];
                uint32_t s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
                t[(3 - j) & 7] += one;
                t[(7 - j) & 7] = one + s0 + ((a & b) ^ (a & c) ^ (b & c));
            }
        }
        for (int i = 0; i < 8; i++)
            state[i] += t[i];
    }
}

#ifdef HAS_INSTRUCTIONS
/* The instructions keep the state as two vectors of the words ABEF and CDGH, highest first; one does two rounds. */
__attribute__((target("sha,ssse3,sse4.1")))
static void compress_instructed(uint32_t state[8], const uint8_t *from, size_t blocks)
{
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8);
    __m128i cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks > 0; blocks--, from += BLOCK_BYTES) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(from + 16 * i)), order);
        for (int i = 0; i < 16; i++) {
            __m128i given = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, given);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(given, 0x0E));
            if (i < 12) {
                __m128i next = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}
#endif

static compressor *compress = compress_plain;

int sha256_choose(int plain)
{
    compress = compress_plain;
#ifdef HAS_INSTRUCTIONS
    if (!plain && has_instructions()) {
        compress = compress_instructed;
        return 1;
    }
#endif
    (void)plain;
    return 0;
}

void sha256_chain(uint8_t chain[SHA256_BYTES], const uint8_t *body, size_t size)
{
    uint32_t state[8];
    uint8_t block[2 * BLOCK_BYTES];
    uint64_t bits = (uint64_t)(SHA256_BYTES + size) * 8;
    size_t first = size < BLOCK_BYTES - SHA256_BYTES ? size : BLOCK_BYTES - SHA256_BYTES, filled, end;

    memcpy(state, START, sizeof state);
    memcpy(block, chain, SHA256_BYTES);
    memcpy(block + SHA256_BYTES, body, first);
    filled = SHA256_BYTES + first;
    if (filled == BLOCK_BYTES) {
        size_t whole = (size - first) / BLOCK_BYTES;
        compress(state, block, 1);
        compress(state, body + first, whole);
        first += whole * BLOCK_BYTES;
        filled = size - first;
        memcpy(block, body + first, filled);
    }
    block[filled++] = 0x80;
    end = filled <= BLOCK_BYTES - 8 ? BLOCK_BYTES : 2 * BLOCK_BYTES;
    memset(block + filled, 0, end - 8 - filled);
    for (int i = 0; i < 8; i++)
        block[end - 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
    compress(state, block, end / BLOCK_BYTES);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++)
            chain[4 * i + j] = (uint8_t)(state[i] >> (24 - 8 * j));
}
