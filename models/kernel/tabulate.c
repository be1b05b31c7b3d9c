/* The tables of explain.c, computed once when a model is loaded. */
#include "forest.h"

enum { PATH_MAX_FEATURES = DEPTH_MAX, PATTERNS_MAX = 1 << DEPTH_MAX, GROUP_NODES_MAX = DEPTH_MAX + 1 };

/* What of the tree the tables are made of, heap order, number 0 unused. */
typedef struct {
    const int32_t *features; /* [2^depth] of inner nodes */
    const uint8_t *real;     /* [2^(depth+1)] 0: padding; of the copies of a leaf the leftmost is real */
    const double *cover;     /* [2^(depth+1)] sum of the hessians */
    const float *leaves;     /* [2^depth] */
} source_t;

/* The conditions of a path on one feature, merged: all of them hold, or the feature does not. */
typedef struct {
    int32_t feature;
    int lane;        /* of the uppermost node with this feature */
    double share;    /* of the cover that goes the path's way, product over its nodes */
    uint32_t nodes;  /* bits of the group's index that it looks at ... */
    uint32_t wanted; /* ... and what they must be */
} condition_t;

/* |T|! (k - 1 - |T|)! / k! */
static double shapley_weight(int size, int count)
{
    double weight = 1.0 / count;
    for (int i = 1; i <= size; i++) {
        weight *= (double)i / (count - i);
    }
    return weight;
}

/* Shapley values of the game "the leaf's value if all conditions in T that are known hold, times the shares
 * of the unknown ones", for each pattern of conditions that the row meets:
 *
 *     phi_i = leaf * (met_i - share_i) * sum over T of the met conditions without i of
 *             |T|! (k-1-|T|)! / k! * product of share_j over j not in T, j != i
 *
 * The sum is read off the polynomial prod (x + share_j) over the met j, prod share_j over the others. */
static void leaf_patterns(const condition_t *conditions, int count, double leaf,
                          double phi[PATTERNS_MAX][PATH_MAX_FEATURES])
{
    double weights[PATH_MAX_FEATURES];
    for (int size = 0; size < count; size++) {
        weights[size] = shapley_weight(size, count);
    }
    for (int player = 0; player < count; player++) {
        double share = conditions[player].share;
        for (int pattern = 0; pattern < 1 << count; pattern++) {
            if (pattern >> player & 1) {
                continue;
            }
            double polynomial[PATH_MAX_FEATURES] = {leaf};
            int degree = 0;
            for (int other = 0; other < count; other++) {
                if (other == player) {
                    continue;
                }
                double factor = conditions[other].share;
                int met = pattern >> other & 1;
                if (met) {
                    polynomial[degree + 1] = polynomial[degree];
                    for (int power = degree; power > 0; power--) {
                        polynomial[power] = polynomial[power] * factor + polynomial[power - 1];
                    }
                    degree++;
                    polynomial[0] *= factor;
                } else {
                    for (int power = 0; power <= degree; power++) {
                        polynomial[power] *= factor;
                    }
                }
            }
            double sum = 0.0;
            for (int power = 0; power <= degree; power++) {
                sum += polynomial[power] * weights[power];
            }
            phi[pattern][player] = -share * sum;
            phi[pattern | 1 << player][player] = (1.0 - share) * sum;
        }
    }
}

/* Merged conditions of the path to heap leaf `leaf`; `index_of[node]` is the node's bit in the group's index.
 * Returns how many there are. */
static int leaf_conditions(const source_t *s, int depth, int leaf, const int8_t *index_of,
                           condition_t *conditions)
{
    int count = 0;
    for (int level = 0; level < depth; level++) {
        int node = leaf >> (depth - level), child = leaf >> (depth - level - 1);
        if (!s->real[node]) {
            break;
        }
        int which = 0;
        while (which < count && conditions[which].feature != s->features[node]) {
            which++;
        }
        if (which == count) {
            int lane = level < depth - 1 ? level : depth - 1 + (node & 1);
            conditions[count++] = (condition_t){s->features[node], lane, 1.0, 0, 0};
        }
        uint32_t bit = 1u << index_of[node];
        conditions[which].share *= s->cover[child] / s->cover[node];
        conditions[which].nodes |= bit;
        conditions[which].wanted |= child & 1 ? 0 : bit; /* left children are even; a set bit means left */
    }
    return count;
}

/* The nodes whose directions select a row for the leaves first .. first + 3, in heap order. */
static int group_nodes(const source_t *s, int depth, int first, int8_t *index_of, uint64_t *mask)
{
    int count = 0;
    *mask = 0;
    for (int level = 0; level < depth; level++) {
        int node = first >> (depth - level);
        for (int sibling = 0; sibling < (level == depth - 1 ? 2 : 1); sibling++) {
            if (s->real[node + sibling]) {
                index_of[node + sibling] = (int8_t)count++;
                *mask |= 1ull << (node + sibling);
            }
        }
    }
    return count;
}

/* Adds one leaf to its group's rows; returns the leaf's share of the expectation. */
static double add_leaf(const source_t *s, int depth, int leaf, const int8_t *index_of, int nodes,
                       double rows[1 << GROUP_NODES_MAX][LANES])
{
    condition_t conditions[PATH_MAX_FEATURES];
    double phi[PATTERNS_MAX][PATH_MAX_FEATURES];
    double value = s->leaves[leaf - (1 << depth)];
    int count = leaf_conditions(s, depth, leaf, index_of, conditions);
    double expected = value;
    for (int which = 0; which < count; which++) {
        expected *= conditions[which].share;
    }
    if (rows == NULL || count == 0) {
        return expected;
    }
    leaf_patterns(conditions, count, value, phi);
    for (uint32_t row = 0; row < 1u << nodes; row++) {
        int pattern = 0;
        for (int which = 0; which < count; which++) {
            pattern |= ((row & conditions[which].nodes) == conditions[which].wanted) << which;
        }
        for (int which = 0; which < count; which++) {
            rows[row][conditions[which].lane] += phi[pattern][which];
        }
    }
    return expected;
}

/* One tree: its groups' masks and first rows, its rows from `row` on (row 0 of the table is all zero), and
 * its expectation in `*base`. Returns the row after its last. With `table` NULL only counts. */
uint32_t cordon_tabulate(int32_t depth, const int32_t *features, const uint8_t *real, const double *cover,
                         const float *leaves, uint32_t row, uint64_t *masks, uint32_t *starts, float *table,
                         double *base)
{
    const source_t source = {features, real, cover, leaves};
    const int width = 1 << depth;
    *base = 0.0;
    for (int group = 0; group < width / 4; group++) {
        int8_t index_of[1 << DEPTH_MAX];
        double rows[1 << GROUP_NODES_MAX][LANES];
        int first = width + 4 * group;
        int nodes = group_nodes(&source, depth, first, index_of, &masks[group]);
        int any = real[first] || real[first + 1] || real[first + 2] || real[first + 3];
        if (!any || nodes == 0) {
            masks[group] = 0;
            starts[group] = 0;
            if (any) { /* a tree that is a single leaf */
                *base += leaves[first - width];
            }
            continue;
        }
        for (int index = 0; table != NULL && index < 1 << nodes; index++) {
            for (int lane = 0; lane < LANES; lane++) {
                rows[index][lane] = 0.0;
            }
        }
        for (int leaf = first; leaf < first + 4; leaf++) {
            if (real[leaf]) {
                *base += add_leaf(&source, depth, leaf, index_of, nodes, table == NULL ? NULL : rows);
            }
        }
        starts[group] = row;
        for (int index = 0; table != NULL && index < 1 << nodes; index++) {
            for (int lane = 0; lane < LANES; lane++) {
                table[((size_t)row + (size_t)index) * LANES + lane] = (float)rows[index][lane];
            }
        }
        row += 1u << nodes;
    }
    return row;
}
