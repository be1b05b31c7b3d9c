/* Exact contributions (path-dependent TreeSHAP) by tables.
 *
 * What a leaf contributes to each feature depends only on which conditions of its path the row meets: with at
 * most 6 of them there are at most 64 answers, all computed when the model is loaded (tabulate.c). The four
 * leaves below a node two levels above the leaves share all but the last conditions, so they are one group
 * with one table: its row is selected by the directions of 7 nodes (4 ancestors, the local root and its two
 * children), and holds the sum over the four leaves.
 *
 *     depth 0 .. D-3    ancestors          lane = depth          (D - 2 of them)
 *     depth D-2         local root         lane = D - 2
 *     depth D-1         its children       lane = D - 1, D
 *
 * The tables' rows are summed upwards; then the sum for an inner node at depth d stands in lane d of its own
 * vector, and is added to its feature. Groups without leaves of their own point to one row of zeros.
 */
#include "forest.h"

/* Bit n of a mask: the row goes left at inner node n. */
typedef uint64_t directions_t;

INLINE directions_t directions_portable(const node_t *nodes, const int32_t *x,
                                        const int width)
{
    directions_t left = 0;
    for (int node = 1; node < width; node++) {
        left |= (directions_t)(x[nodes[node].slot] < nodes[node].key) << node;
    }
    return left;
}

/* The bits of `value` at the set bits of `mask`, packed. */
INLINE uint32_t extract_portable(directions_t value, directions_t mask)
{
    uint32_t packed = 0;
    for (int bit = 0; mask; bit++) {
        directions_t lowest = mask & (0 - mask);
        packed |= (uint32_t)((value & lowest) != 0) << bit;
        mask ^= lowest;
    }
    return packed;
}

/* Adds the sum of each inner node to its feature. */
INLINE void add_nodes(const member_t *m, int32_t tree, const float *sums, double *phi)
{
    uint32_t end = m->ends[tree];
    for (uint32_t entry = tree ? m->ends[tree - 1] : 0; entry < end; entry++) {
        phi[m->features[entry]] += (double)sums[m->cells[entry]];
    }
}

INLINE void explain_portable(const member_t *m, const int32_t *x, const int depth, double *phi)
{
    const int width = 1 << depth, groups = width / 4;
    for (int32_t tree = 0; tree < m->trees; tree++) {
        ptrdiff_t first = (ptrdiff_t)tree * width;
        directions_t left = directions_portable(m->nodes + first, x, width);
        float sums[2 * GROUPS_MAX][LANES];
        for (int group = 0; group < groups; group++) {
            ptrdiff_t at = (ptrdiff_t)tree * groups + group;
            size_t row = m->starts[at] + (size_t)extract_portable(left, m->groups[at]);
            for (int lane = 0; lane < LANES; lane++) {
                sums[groups + group][lane] = m->table[row * LANES + lane];
            }
        }
        for (int node = groups - 1; node >= 1; node--) {
            for (int lane = 0; lane < LANES; lane++) {
                sums[node][lane] = sums[2 * node][lane] + sums[2 * node + 1][lane];
            }
        }
        add_nodes(m, tree, &sums[0][0], phi);
    }
}

static void explain_row_portable(const member_t *m, const int32_t *x, double *phi)
{
    switch (m->depth) {
    case 2: explain_portable(m, x, 2, phi); break;
    case 3: explain_portable(m, x, 3, phi); break;
    case 4: explain_portable(m, x, 4, phi); break;
    case 5: explain_portable(m, x, 5, phi); break;
    default: explain_portable(m, x, 6, phi); break;
    }
}

#if CORDON_AVX2
#include <immintrin.h>

/* One row: eight nodes at a time, their values gathered. */
AVX2_TARGET INLINE void directions_row(const node_t *nodes, const int32_t *x,
                                       const int width, directions_t *left)
{
    if (width < 8) {
        *left = directions_portable(nodes, x, width);
        return;
    }
    *left = 0;
    for (int node = 0; node < width; node += 8) {
        __m256 low = _mm256_loadu_ps((const float *)(nodes + node));
        __m256 high = _mm256_loadu_ps((const float *)(nodes + node + 4));
        /* nodes 0 1 4 5 2 3 6 7: both halves of a register are shuffled apart */
        __m256i key = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88));
        __m256i slot = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xdd));
        __m256i goes_left = _mm256_cmpgt_epi32(key, _mm256_i32gather_epi32((const int *)x, slot, 4));
        goes_left = _mm256_permute4x64_epi64(goes_left, 0xd8);
        *left |= (directions_t)(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(goes_left)) << node;
    }
}

enum { AHEAD = 4 }; /* at most LANES */

/* Byte r of the result: bit r of every byte of `square`. */
INLINE uint64_t transpose_bits(uint64_t square)
{
    uint64_t swap = (square ^ (square >> 7)) & 0x00aa00aa00aa00aaull;
    square ^= swap ^ (swap << 7);
    swap = (square ^ (square >> 14)) & 0x0000cccc0000ccccull;
    square ^= swap ^ (swap << 14);
    swap = (square ^ (square >> 28)) & 0x00000000f0f0f0f0ull;
    return square ^ swap ^ (swap << 28);
}

/* LANES rows, `x` is [slots][LANES]: one node at a time for all rows, then bits of rows become bits of nodes. */
AVX2_TARGET INLINE void directions_lanes(const node_t *nodes, const int32_t *x,
                                         const int width, directions_t *left)
{
    uint8_t bytes[LANES][8];
    const int step = width < 8 ? width : 8;
    for (int first = 0; first < width; first += step) {
        uint64_t square = 0;
        for (int node = first; node < first + step; node++) {
            __m256i value = _mm256_loadu_si256((const __m256i *)(x + (ptrdiff_t)nodes[node].slot * LANES));
            __m256i goes_left = _mm256_cmpgt_epi32(_mm256_set1_epi32(nodes[node].key), value);
            uint32_t rows = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(goes_left));
            square |= (uint64_t)rows << (8 * (node - first));
        }
        square = transpose_bits(square);
        for (int row = 0; row < LANES; row++) {
            bytes[row][first / 8] = (uint8_t)(square >> (8 * row));
        }
    }
    for (int row = 0; row < LANES; row++) {
        left[row] = 0;
        for (int byte = 0; byte < (width + 7) / 8; byte++) {
            left[row] |= (directions_t)bytes[row][byte] << (8 * byte);
        }
    }
}

/* The rows of the table that a tree's directions select, on their way into the cache. */
AVX2_TARGET INLINE void select_rows(const member_t *m, int32_t tree, directions_t left, const int groups,
                                    const float **selected)
{
    const uint64_t *masks = m->groups + (ptrdiff_t)tree * groups;
    const uint32_t *starts = m->starts + (ptrdiff_t)tree * groups;
    for (int group = 0; group < groups; group++) {
        selected[group] = m->table + (starts[group] + (size_t)_pext_u64(left, masks[group])) * LANES;
        _mm_prefetch((const char *)selected[group], _MM_HINT_T0);
    }
}

AVX2_TARGET INLINE void add_selected(const member_t *m, int32_t tree, const float **selected, const int groups,
                                     double *phi)
{
    float sums[2 * GROUPS_MAX][LANES];
    __m256 sum[GROUPS_MAX];
    /* unrolled, so that the sums stay in registers on their way up */
#pragma GCC unroll 16
    for (int group = 0; group < groups; group++) {
        sum[group] = _mm256_loadu_ps(selected[group]);
        _mm256_storeu_ps(sums[groups + group], sum[group]);
    }
#pragma GCC unroll 4
    for (int level = groups / 2; level >= 1; level /= 2) {
#pragma GCC unroll 8
        for (int node = 0; node < level; node++) {
            sum[node] = _mm256_add_ps(sum[2 * node], sum[2 * node + 1]);
            _mm256_storeu_ps(sums[level + node], sum[node]);
        }
    }
    add_nodes(m, tree, &sums[0][0], phi);
}

/* `rows` rows: one, or up to LANES; phi is [rows][columns]. The table is larger than the caches that are near:
 * rows are asked for AHEAD trees before they are added. */
AVX2_TARGET INLINE void explain_avx2(const member_t *m, const int32_t *x, const int depth, const int rows,
                                     const int single, double *phi, int32_t columns)
{
    const int width = 1 << depth, groups = width / 4;
    const int ahead = single ? AHEAD : 1;
    const float *selected[LANES][GROUPS_MAX];
    for (int32_t tree = 0; tree < m->trees + ahead; tree++) {
        if (tree >= ahead) {
            for (int row = 0; row < rows; row++) {
                int slot = (tree % ahead) * rows + row;
                add_selected(m, tree - ahead, selected[slot], groups, phi + (ptrdiff_t)row * columns);
            }
        }
        if (tree < m->trees) {
            ptrdiff_t first = (ptrdiff_t)tree * width;
            directions_t left[LANES];
            if (single) {
                directions_row(m->nodes + first, x, width, left);
            } else {
                directions_lanes(m->nodes + first, x, width, left);
            }
            for (int row = 0; row < rows; row++) {
                select_rows(m, tree, left[row], groups, selected[(tree % ahead) * rows + row]);
            }
        }
    }
}

#define EXPLAIN_DEPTH(N)                                                                                     \
    AVX2_TARGET static void explain_avx2_##N(const member_t *m, const int32_t *x, int rows, double *phi,     \
                                             int32_t columns)                                                \
    {                                                                                                        \
        if (rows == 1) {                                                                                     \
            explain_avx2(m, x, N, 1, 1, phi, columns);                                                       \
        } else {                                                                                             \
            explain_avx2(m, x, N, rows, 0, phi, columns);                                                    \
        }                                                                                                    \
    }
EXPLAIN_DEPTH(2)
EXPLAIN_DEPTH(3)
EXPLAIN_DEPTH(4)
EXPLAIN_DEPTH(5)
EXPLAIN_DEPTH(6)

static void explain_rows_avx2(const member_t *m, const int32_t *x, int rows, double *phi, int32_t columns)
{
    switch (m->depth) {
    case 2: explain_avx2_2(m, x, rows, phi, columns); break;
    case 3: explain_avx2_3(m, x, rows, phi, columns); break;
    case 4: explain_avx2_4(m, x, rows, phi, columns); break;
    case 5: explain_avx2_5(m, x, rows, phi, columns); break;
    default: explain_avx2_6(m, x, rows, phi, columns); break;
    }
}
#endif

void member_contributions(const member_t *m, int32_t features, int path, const float *matrix, ptrdiff_t rows,
                          double *out)
{
    int32_t x[2 * FEATURES_MAX * LANES];
    double phi[LANES * (FEATURES_MAX + 1)];
    const int32_t columns = features + 1;
    for (ptrdiff_t row = 0; row < rows;) {
        ptrdiff_t here = path == PATH_PORTABLE ? 1 : rows - row < LANES ? rows - row : LANES;
        for (ptrdiff_t cell = 0; cell < here * columns; cell++) {
            phi[cell] = 0.0;
        }
        if (here == 1) {
            row_keys(matrix + row * features, features, x, 1);
        } else {
            for (int lane = 0; lane < LANES; lane++) {
                row_keys(matrix + (row + (lane < here ? lane : 0)) * features, features, x + lane, LANES);
            }
        }
#if CORDON_AVX2
        if (path == PATH_AVX2) {
            explain_rows_avx2(m, x, (int)here, phi, columns);
        } else {
            explain_row_portable(m, x, phi);
        }
#else
        explain_row_portable(m, x, phi);
#endif
        for (ptrdiff_t lane = 0; lane < here; lane++) {
            phi[lane * columns + features] = m->base_value;
        }
        double *target = out + row * columns;
        for (ptrdiff_t cell = 0; cell < here * columns; cell++) {
            target[cell] += m->weight * phi[cell];
        }
        row += here;
    }
}
