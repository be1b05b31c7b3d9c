/* Checks the records of one batch of a journal: each one's SHA-256 over the hash before it and its body. Uses the
 * processor's SHA instructions; where there are none, cordon_chain_usable says so and Python checks.
 * SHA-256: FIPS 180-4. Instructions: Intel's description of the SHA extensions. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { HASH = 32, BLOCK = 64, LENGTH = 4 };
enum { WHOLE = 0, BROKEN = 1, NOT_USABLE = 2 };

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

typedef struct {
    __m128i abef;
    __m128i cdgh;
} state_t;

#define SHA __attribute__((target("sha,sse4.1,ssse3")))

int cordon_chain_usable(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & (1u << 29))) {
        return 0;
    }
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 19)) && (c & (1u << 9));
}

/* a b c d | e f g h, lowest word first, as the instructions want them */
SHA static state_t first_state(void)
{
    state_t s;
    s.abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    s.cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    return s;
}

/* One step of four rounds; w holds the message schedule */
#define STEP(i, w, abef, cdgh)                                                                                   \
    if (i >= 4) {                                                                                                \
        __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[(i) & 3], w[((i) + 1) & 3]),                           \
                                    _mm_alignr_epi8(w[((i) + 3) & 3], w[((i) + 2) & 3], 4));                      \
        w[(i) & 3] = _mm_sha256msg2_epu32(sum, w[((i) + 3) & 3]);                                                 \
    }                                                                                                            \
    {                                                                                                            \
        __m128i key = _mm_add_epi32(w[(i) & 3], _mm_loadu_si128((const __m128i *)(ROUND + 4 * (i))));             \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, key);                                                           \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(key, 0x0e));                                  \
    }

SHA static inline void load(__m128i w[4], const uint8_t *block)
{
    const __m128i bytes = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    for (int i = 0; i < 4; i++) {
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), bytes);
    }
}

SHA static void add_blocks(state_t *state, const uint8_t *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += BLOCK) {
        __m128i abef = state->abef, cdgh = state->cdgh, w[4];
        load(w, data);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            STEP(i, w, abef, cdgh)
        }
        state->abef = _mm_add_epi32(state->abef, abef);
        state->cdgh = _mm_add_epi32(state->cdgh, cdgh);
    }
}

/* Two messages at once: each instruction waits for the one before, so one message leaves half the time unused. */
SHA static void add_both(state_t *one, const uint8_t *a, state_t *two, const uint8_t *b, size_t blocks)
{
    for (; blocks > 0; blocks--, a += BLOCK, b += BLOCK) {
        __m128i abef = one->abef, cdgh = one->cdgh, w[4];
        __m128i ABEF = two->abef, CDGH = two->cdgh, W[4];
        load(w, a);
        load(W, b);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            STEP(i, w, abef, cdgh)
            STEP(i, W, ABEF, CDGH)
        }
        one->abef = _mm_add_epi32(one->abef, abef);
        one->cdgh = _mm_add_epi32(one->cdgh, cdgh);
        two->abef = _mm_add_epi32(two->abef, ABEF);
        two->cdgh = _mm_add_epi32(two->cdgh, CDGH);
    }
}

static void store(uint8_t *out, uint32_t word)
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(word >> (24 - 8 * i));
    }
}

SHA static void finish(const state_t *state, uint8_t *out)
{
    uint32_t abef[4], cdgh[4];
    _mm_storeu_si128((__m128i *)abef, state->abef);
    _mm_storeu_si128((__m128i *)cdgh, state->cdgh);
    store(out, abef[3]), store(out + 4, abef[2]), store(out + 8, cdgh[3]), store(out + 12, cdgh[2]);
    store(out + 16, abef[1]), store(out + 20, abef[0]), store(out + 24, cdgh[1]), store(out + 28, cdgh[0]);
}

/* SHA-256(before | body) under way: a first block, whole blocks of the body, one or two last ones */
typedef struct {
    state_t state;
    const uint8_t *body;
    size_t blocks;
    size_t last;
    uint8_t first[BLOCK];
    uint8_t end[2 * BLOCK];
} message_t;

SHA static void begin(message_t *m, const uint8_t *before, const uint8_t *body, size_t length)
{
    uint64_t bits = 8 * ((uint64_t)length + HASH);
    size_t taken = length < BLOCK - HASH ? length : BLOCK - HASH;
    m->state = first_state();
    memcpy(m->first, before, HASH);
    memcpy(m->first + HASH, body, taken);
    m->body = body + taken;
    m->blocks = (length - taken) / BLOCK;
    size_t held = (length - taken) % BLOCK;
    if (taken < BLOCK - HASH) {
        /* it ends within the first block, which is then among the last */
        memcpy(m->end, m->first, HASH + taken);
        held = HASH + taken;
    } else {
        memcpy(m->end, m->body + m->blocks * BLOCK, held);
    }
    m->end[held++] = 0x80;
    m->last = held + 8 <= BLOCK ? 1 : 2;
    memset(m->end + held, 0, m->last * BLOCK - held);
    store(m->end + m->last * BLOCK - 8, (uint32_t)(bits >> 32));
    store(m->end + m->last * BLOCK - 4, (uint32_t)bits);
}

SHA static void hash_one(const uint8_t *before, const uint8_t *body, size_t length, uint8_t *out)
{
    message_t m;
    begin(&m, before, body, length);
    add_blocks(&m.state, m.first, length >= BLOCK - HASH);
    add_blocks(&m.state, m.body, m.blocks);
    add_blocks(&m.state, m.end, m.last);
    finish(&m.state, out);
}

/* Both at least as long as what a first block takes */
SHA static void hash_two(const uint8_t *before_a, const uint8_t *a, size_t length_a, uint8_t *out_a,
                         const uint8_t *before_b, const uint8_t *b, size_t length_b, uint8_t *out_b)
{
    message_t one, two;
    begin(&one, before_a, a, length_a);
    begin(&two, before_b, b, length_b);
    add_both(&one.state, one.first, &two.state, two.first, 1);
    size_t both = one.blocks < two.blocks ? one.blocks : two.blocks;
    add_both(&one.state, one.body, &two.state, two.body, both);
    add_blocks(&one.state, one.body + both * BLOCK, one.blocks - both);
    add_blocks(&two.state, two.body + both * BLOCK, two.blocks - both);
    both = one.last < two.last ? one.last : two.last;
    add_both(&one.state, one.end, &two.state, two.end, both);
    add_blocks(&one.state, one.end + both * BLOCK, one.last - both);
    add_blocks(&two.state, two.end + both * BLOCK, two.last - both);
    finish(&one.state, out_a);
    finish(&two.state, out_b);
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
        if (records > 1 && length >= BLOCK - HASH) {
            next = length_at(data, place, end);
            after = place + LENGTH;
        }
        if (next != SIZE_MAX && next >= BLOCK - HASH) {
            hash_two(before, body, length, hashes, stored, data + after, next, hashes + HASH);
            if (memcmp(hashes, stored, HASH) != 0 || memcmp(hashes + HASH, data + after + next, HASH) != 0) {
                return BROKEN;
            }
            place = after + next + HASH;
            hashes += 2 * HASH, records -= 2;
        } else {
            hash_one(before, body, length, hashes);
            if (memcmp(hashes, stored, HASH) != 0) {
                return BROKEN;
            }
            hashes += HASH, records -= 1;
        }
        before = hashes - HASH;
    }
    return place == end ? WHOLE : BROKEN;
}

#else

int cordon_chain_usable(void)
{
    return 0;
}

int cordon_chain(const uint8_t *data, size_t place, size_t end, uint32_t records, const uint8_t *before,
                 uint8_t *hashes)
{
    (void)data, (void)place, (void)end, (void)records, (void)before, (void)hashes;
    return NOT_USABLE;
}

#endif
