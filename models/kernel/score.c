/* Margins. XGBoost starts from the base margin and adds the leaves in the order of the trees, in float32;
 * so do both ways here, one row at a time and WIDE rows at a time, which makes all of them bit-equal. */
#include "forest.h"

enum {
    WIDE = 16,      /* rows scored at once ... */
    WIDE_WORTH = 8  /* ... from this many on: idle lanes included, that beats one by one */
};

/* One row: CHAINS trees walk down side by side, since a single walk waits for memory at every level. */
INLINE float walk(const member_t *m, const int32_t *x, const int depth)
{
    const int width = 1 << depth;
    float sum = m->base_margin;
    for (int32_t tree = 0; tree < m->trees; tree += CHAINS) {
        const node_t *nodes = m->nodes + (ptrdiff_t)tree * width;
        const float *leaves = m->leaves + (ptrdiff_t)tree * width;
        int32_t at[CHAINS];
        for (int c = 0; c < CHAINS; c++) {
            at[c] = c * width + 1;
        }
        for (int level = 0; level < depth; level++) {
            for (int c = 0; c < CHAINS; c++) {
                /* child of heap node n is 2n or 2n + 1; `at` counts from the first of the CHAINS trees */
                at[c] = 2 * at[c] - c * width + (x[nodes[at[c]].slot] >= nodes[at[c]].key);
            }
        }
        int32_t here = m->trees - tree < CHAINS ? m->trees - tree : CHAINS;
        if (here == CHAINS) {
            for (int c = 0; c < CHAINS; c++) {
                sum += leaves[at[c] - width];
            }
        } else {
            for (int c = 0; c < here; c++) {
                sum += leaves[at[c] - width];
            }
        }
    }
    return sum;
}

static float row_margin(const member_t *m, const int32_t *x)
{
    switch (m->depth) {
    case 2: return walk(m, x, 2);
    case 3: return walk(m, x, 3);
    case 4: return walk(m, x, 4);
    case 5: return walk(m, x, 5);
    default: return walk(m, x, 6);
    }
}

#if CORDON_AVX2
#include <immintrin.h>

/* WIDE rows: every node of the tree is compared for all rows at once, then the leaves are folded upwards:
 * no walk, no gather, nothing that depends on the values. `x` is [slots][WIDE]. */
typedef struct {
    const node_t *nodes;
    const float *leaves;
    const int32_t *x;
    int width;
} tree_t;

/* Two registers side by side: a node is read once for both. */
typedef struct {
    __m256 low;
    __m256 high;
} pair_t;

#define FOLD AVX2_TARGET static inline __attribute__((always_inline)) pair_t

FOLD fold0(const tree_t t, const int node)
{
    __m256 leaf = _mm256_broadcast_ss(t.leaves + (node - t.width));
    return (pair_t){leaf, leaf};
}

#define FOLD_LEVEL(N, BELOW)                                                                                 \
    FOLD fold##N(const tree_t t, const int node)                                                             \
    {                                                                                                        \
        pair_t left = fold##BELOW(t, 2 * node);                                                              \
        pair_t right = fold##BELOW(t, 2 * node + 1);                                                         \
        const __m256i *value = (const __m256i *)(t.x + (ptrdiff_t)t.nodes[node].slot * WIDE);                \
        __m256i key = _mm256_set1_epi32(t.nodes[node].key);                                                  \
        __m256i low = _mm256_cmpgt_epi32(key, _mm256_loadu_si256(value));                                    \
        __m256i high = _mm256_cmpgt_epi32(key, _mm256_loadu_si256(value + 1));                               \
        return (pair_t){_mm256_blendv_ps(right.low, left.low, _mm256_castsi256_ps(low)),                     \
                        _mm256_blendv_ps(right.high, left.high, _mm256_castsi256_ps(high))};                 \
    }
FOLD_LEVEL(1, 0)
FOLD_LEVEL(2, 1)
FOLD_LEVEL(3, 2)
FOLD_LEVEL(4, 3)
FOLD_LEVEL(5, 4)
FOLD_LEVEL(6, 5)

#define FOLD_DEPTH(N)                                                                                        \
    AVX2_TARGET static void lanes_margin##N(const member_t *m, const int32_t *x, float *out)                 \
    {                                                                                                        \
        const int width = 1 << N;                                                                            \
        pair_t sum = {_mm256_set1_ps(m->base_margin), _mm256_set1_ps(m->base_margin)};                       \
        for (int32_t tree = 0; tree < m->trees; tree++) {                                                    \
            ptrdiff_t first = (ptrdiff_t)tree * width;                                                       \
            const tree_t t = {m->nodes + first, m->leaves + first, x, width};                                \
            pair_t leaf = fold##N(t, 1);                                                                     \
            sum.low = _mm256_add_ps(sum.low, leaf.low);                                                      \
            sum.high = _mm256_add_ps(sum.high, leaf.high);                                                   \
        }                                                                                                    \
        _mm256_storeu_ps(out, sum.low);                                                                      \
        _mm256_storeu_ps(out + WIDE / 2, sum.high);                                                          \
    }
FOLD_DEPTH(2)
FOLD_DEPTH(3)
FOLD_DEPTH(4)
FOLD_DEPTH(5)
FOLD_DEPTH(6)

static void lanes_margin(const member_t *m, const int32_t *x, float *out)
{
    switch (m->depth) {
    case 2: lanes_margin2(m, x, out); break;
    case 3: lanes_margin3(m, x, out); break;
    case 4: lanes_margin4(m, x, out); break;
    case 5: lanes_margin5(m, x, out); break;
    default: lanes_margin6(m, x, out); break;
    }
}
#endif

void member_margins(const member_t *m, int32_t features, int path, const float *matrix, ptrdiff_t rows,
                    ptrdiff_t stride, float *out)
{
    int32_t x[2 * FEATURES_MAX * WIDE];
    ptrdiff_t row = 0;
#if CORDON_AVX2
    while (path == PATH_AVX2 && rows - row >= WIDE_WORTH) {
        float margins[WIDE];
        ptrdiff_t here = rows - row < WIDE ? rows - row : WIDE;
        for (int lane = 0; lane < WIDE; lane++) {
            ptrdiff_t source = row + (lane < here ? lane : 0);
            row_keys(matrix + source * features, features, x + lane, WIDE);
        }
        lanes_margin(m, x, margins);
        for (ptrdiff_t lane = 0; lane < here; lane++) {
            out[(row + lane) * stride] = margins[lane];
        }
        row += here;
    }
#else
    (void)path;
#endif
    for (; row < rows; row++) {
        row_keys(matrix + row * features, features, x, 1);
        out[row * stride] = row_margin(m, x);
    }
}
