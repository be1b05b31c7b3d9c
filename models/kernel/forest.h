/* Depth-limited boosted trees as flat tables, and what the four C files share.
 *
 * A tree of depth D is a complete binary tree in heap order: inner nodes 1 .. 2^D - 1 (number 0 is unused),
 * leaves 2^D .. 2^(D+1) - 1 of which `leaves` holds the values. Where the model's tree is shallower, it is
 * padded: every copy of the leaf has its value, so prediction needs no test for the end of a path.
 *
 * A row's values are compared as integers in the order of the floats (see `order_key`). Each feature has two
 * slots: `f` answers "absent" with the largest integer (the absent value goes right), `features + f` with
 * the smallest (it goes left). A node names the slot of its own default direction, so that one integer
 * comparison decides, whatever the value.
 *
 * All memory belongs to the caller. Nothing here allocates, keeps state between calls or writes to a forest.
 */
#ifndef CORDON_FOREST_H
#define CORDON_FOREST_H

#include <stddef.h>
#include <stdint.h>

enum {
    DEPTH_MAX = 6,
    GROUPS_MAX = 16,    /* 2^(DEPTH_MAX - 2) */
    FEATURES_MAX = 512, /* bounds the row buffers on the stack */
    LANES = 8,          /* rows explained at a time, and floats in a row of a contribution table */
    CHAINS = 8          /* trees walked side by side for one row; trees are padded to a multiple of it */
};

enum { PATH_PORTABLE = 0, PATH_AVX2 = 1 };

typedef struct {
    int32_t key;  /* threshold as an order key: a row goes left if its value is smaller */
    int32_t slot; /* 0 .. 2 * features - 1 */
} node_t;

typedef struct {
    int32_t trees;           /* of the model */
    int32_t depth;           /* 2 .. DEPTH_MAX */
    const node_t *nodes;     /* [padded trees][2^depth] */
    const float *leaves;     /* [padded trees][2^depth] */
    const uint64_t *groups;  /* [trees][2^(depth-2)] nodes whose direction selects the row of the table */
    const uint32_t *starts;  /* [trees][2^(depth-2)] first row of the group */
    const float *table;      /* [rows][LANES] contributions */
    const uint32_t *ends;    /* [trees] end of the tree's entries in `cells` and `features` */
    const uint8_t *cells;    /* where the sum of an inner node stands, see explain.c */
    const uint16_t *features; /* of the inner nodes: which feature it splits on */
    double base_value;       /* expectation of the margin: last column of the contributions */
    double weight;           /* share in the blend */
    float base_margin;       /* what the sum of the leaves starts from */
} member_t;

typedef struct {
    int32_t features;
    int32_t members;
    int32_t path; /* PATH_PORTABLE or PATH_AVX2 */
    const member_t *member;
} forest_t;

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CORDON_AVX2 1
#define AVX2_TARGET __attribute__((target("avx2,bmi,bmi2")))
#else
#define CORDON_AVX2 0
#endif
#define INLINE static inline __attribute__((always_inline))

/* Integer with the order of the floats: -0.0 equals 0.0, infinities stand at the ends. Not for NaN. */
INLINE int32_t order_key(uint32_t bits)
{
    int32_t key = (int32_t)bits;
    int32_t negative = key >> 31;
    return (key ^ (negative & 0x7fffffff)) - negative; /* -0.0 -> 0, all other negatives move up by one */
}

INLINE uint32_t float_bits(float value)
{
    union {
        float value;
        uint32_t bits;
    } both;
    both.value = value;
    return both.bits;
}

/* Fills both slots of every feature: slot s of the row stands at x[s * stride]. */
INLINE void row_keys(const float *row, int32_t features, int32_t *x, int32_t stride)
{
    for (int32_t f = 0; f < features; f++) {
        uint32_t bits = float_bits(row[f]);
        int32_t key = order_key(bits);
        int32_t absent = (bits & 0x7fffffffu) > 0x7f800000u;
        x[(ptrdiff_t)f * stride] = absent ? INT32_MAX : key;
        x[(ptrdiff_t)(features + f) * stride] = absent ? INT32_MIN : key;
    }
}

/* score.c: margins of `rows` rows of one member, float32, summed as XGBoost sums them. */
void member_margins(const member_t *member, int32_t features, int path, const float *matrix, ptrdiff_t rows,
                    ptrdiff_t stride, float *out);

/* explain.c: adds weight * contributions of `rows` rows to `out`, [rows][features + 1]. */
void member_contributions(const member_t *member, int32_t features, int path, const float *matrix,
                          ptrdiff_t rows, double *out);

#endif
