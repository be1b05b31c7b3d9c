/* FIPS 180-4; the instructions as Intel describes its SHA extensions. */
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
#define SHA __attribute__((target("sha,sse4.1,ssse3")))

/* The state as the instructions want it: the words ABEF and CDGH, highest first */
typedef struct {
    __m128i abef;
    __m128i cdgh;
} state_t;

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 29))
        return 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1);
}

SHA static inline state_t packed(const uint32_t state[8])
{
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    state_t found = {_mm_alignr_epi8(low, high, 8), _mm_blend_epi16(high, low, 0xf0)};
    return found;
}

SHA static inline void unpack(state_t from, uint32_t state[8])
{
    __m128i low = _mm_shuffle_epi32(from.abef, 0x1b), high = _mm_shuffle_epi32(from.cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

SHA static inline void load(__m128i w[4], const uint8_t *block)
{
    const __m128i bytes = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    for (int i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), bytes);
}

/* One step of four rounds; w holds the message schedule */
#define STEP(i, w, abef, cdgh)                                                                                   \
    if (i >= 4) {                                                                                                \
        __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[(i) & 3], w[((i) + 1) & 3]),                           \
                                    _mm_alignr_epi8(w[((i) + 3) & 3], w[((i) + 2) & 3], 4));                      \
        w[(i) & 3] = _mm_sha256msg2_epu32(sum, w[((i) + 3) & 3]);                                                 \
    }                                                                                                            \
    {                                                                                                            \
        __m128i key = _mm_add_epi32(w[(i) & 3], _mm_loadu_si128((const __m128i *)(K + 4 * (i))));                 \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, key);                                                           \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(key, 0x0e));                                  \
    }

SHA static void compress_instructed(uint32_t state[8], const uint8_t *from, size_t blocks)
{
    if (blocks == 0)
        return;
    state_t s = packed(state);
    for (; blocks > 0; blocks--, from += BLOCK_BYTES) {
        __m128i abef = s.abef, cdgh = s.cdgh, w[4];
        load(w, from);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            STEP(i, w, abef, cdgh)
        }
        s.abef = _mm_add_epi32(s.abef, abef);
        s.cdgh = _mm_add_epi32(s.cdgh, cdgh);
    }
    unpack(s, state);
}

/* Each instruction waits for the one before, so that one message leaves half the time unused. */
SHA static void compress_both(uint32_t first[8], const uint8_t *a, uint32_t second[8], const uint8_t *b,
                              size_t blocks)
{
    if (blocks == 0)
        return;
    state_t one = packed(first), two = packed(second);
    for (; blocks > 0; blocks--, a += BLOCK_BYTES, b += BLOCK_BYTES) {
        __m128i abef = one.abef, cdgh = one.cdgh, w[4];
        __m128i ABEF = two.abef, CDGH = two.cdgh, W[4];
        load(w, a);
        load(W, b);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            STEP(i, w, abef, cdgh)
            STEP(i, W, ABEF, CDGH)
        }
        one.abef = _mm_add_epi32(one.abef, abef);
        one.cdgh = _mm_add_epi32(one.cdgh, cdgh);
        two.abef = _mm_add_epi32(two.abef, ABEF);
        two.cdgh = _mm_add_epi32(two.cdgh, CDGH);
    }
    unpack(one, first);
    unpack(two, second);
}
#endif

static compressor *compress = compress_plain;

int sha256_choose(int plain)
{
    compress = compress_plain;
#ifdef HAS_INSTRUCTIONS
    if (!plain && has_instructions())
        compress = compress_instructed;
#endif
    return compress != compress_plain;
}

/* SHA-256(before | body) under way: a first block, if the body fills it, whole blocks of the body, one or two last */
typedef struct {
    uint32_t state[8];
    const uint8_t *body;
    size_t firsts, blocks, lasts;
    uint8_t first[BLOCK_BYTES];
    uint8_t end[2 * BLOCK_BYTES];
} message_t;

static void begin(message_t *m, const uint8_t *before, const uint8_t *body, size_t size)
{
    uint64_t bits = 8 * ((uint64_t)size + SHA256_BYTES);
    size_t taken = size < BLOCK_BYTES - SHA256_BYTES ? size : BLOCK_BYTES - SHA256_BYTES, held;
    memcpy(m->state, START, sizeof m->state);
    memcpy(m->first, before, SHA256_BYTES);
    memcpy(m->first + SHA256_BYTES, body, taken);
    m->firsts = taken == BLOCK_BYTES - SHA256_BYTES;
    m->body = body + taken;
    m->blocks = (size - taken) / BLOCK_BYTES;
    if (m->firsts) {
        held = (size - taken) % BLOCK_BYTES;
        memcpy(m->end, m->body + m->blocks * BLOCK_BYTES, held);
    } else {
        held = SHA256_BYTES + taken;
        memcpy(m->end, m->first, held);
    }
    m->end[held++] = 0x80;
    m->lasts = held + 8 <= BLOCK_BYTES ? 1 : 2;
    memset(m->end + held, 0, m->lasts * BLOCK_BYTES - held);
    for (int i = 0; i < 8; i++)
        m->end[m->lasts * BLOCK_BYTES - 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
}

static void finish(const message_t *m, uint8_t *hash)
{
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++)
            hash[4 * i + j] = (uint8_t)(m->state[i] >> (24 - 8 * j));
}

void sha256_chain(const uint8_t *before, const uint8_t *body, size_t size, uint8_t *hash)
{
    message_t m;
    begin(&m, before, body, size);
    compress(m.state, m.first, m.firsts);
    compress(m.state, m.body, m.blocks);
    compress(m.state, m.end, m.lasts);
    finish(&m, hash);
}

#ifdef HAS_INSTRUCTIONS
static void add_both(message_t *one, const uint8_t *a, size_t of_a, message_t *two, const uint8_t *b, size_t of_b)
{
    size_t both = of_a < of_b ? of_a : of_b;
    compress_both(one->state, a, two->state, b, both);
    compress(one->state, a + both * BLOCK_BYTES, of_a - both);
    compress(two->state, b + both * BLOCK_BYTES, of_b - both);
}
#endif

void sha256_chain_two(const uint8_t *before_a, const uint8_t *a, size_t size_a, uint8_t *hash_a,
                      const uint8_t *before_b, const uint8_t *b, size_t size_b, uint8_t *hash_b)
{
#ifdef HAS_INSTRUCTIONS
    if (compress == compress_instructed) {
        message_t one, two;
        begin(&one, before_a, a, size_a);
        begin(&two, before_b, b, size_b);
        add_both(&one, one.first, one.firsts, &two, two.first, two.firsts);
        add_both(&one, one.body, one.blocks, &two, two.body, two.blocks);
        add_both(&one, one.end, one.lasts, &two, two.end, two.lasts);
        finish(&one, hash_a);
        finish(&two, hash_b);
        return;
    }
#endif
    sha256_chain(before_a, a, size_a, hash_a);
    sha256_chain(before_b, b, size_b, hash_b);
}
