/* What Python calls. */
#include <math.h>

#include "abi.h"
#include "forest.h"

void *PyEval_SaveThread(void);
void PyEval_RestoreThread(void *state);

enum { OK = 0, FAILED = -1, BAD_MATRIX = 1, BAD_OUT = 2 };

/* A short call keeps the interpreter lock: handing it over can cost milliseconds to get it back. */
enum { SCORED_UNDER_LOCK = 64, EXPLAINED_UNDER_LOCK = 8 };

static int is_array(const buffer_t *view, char type, ptrdiff_t rows, ptrdiff_t columns)
{
    if (view->format == NULL || view->format[0] != type || view->format[1] != 0) {
        return 0;
    }
    if (view->ndim != (columns < 0 ? 1 : 2) || (rows >= 0 && view->shape[0] != rows)) {
        return 0;
    }
    return columns < 0 || view->shape[1] == columns;
}

/* Opens `matrix` (float32 [n, features]) and `out` ([n] or [n, columns] of `type`). */
static int open_both(const forest_t *forest, void *matrix, void *out, char type, ptrdiff_t columns,
                     buffer_t *in_view, buffer_t *out_view)
{
    if (PyObject_GetBuffer(matrix, in_view, CONTIGUOUS | FORMAT) != 0) {
        return FAILED;
    }
    if (!is_array(in_view, 'f', -1, forest->features)) {
        PyBuffer_Release(in_view);
        return BAD_MATRIX;
    }
    if (PyObject_GetBuffer(out, out_view, CONTIGUOUS | FORMAT | WRITABLE) != 0) {
        PyBuffer_Release(in_view);
        return FAILED;
    }
    if (!is_array(out_view, type, in_view->shape[0], columns)) {
        PyBuffer_Release(in_view);
        PyBuffer_Release(out_view);
        return BAD_OUT;
    }
    return OK;
}

/* `out`: float64 [n], the blend: members' margins times weights, summed in their order. */
int cordon_score(const forest_t *forest, void *matrix, void *out)
{
    buffer_t in_view, out_view;
    int problem = open_both(forest, matrix, out, 'd', -1, &in_view, &out_view);
    if (problem != OK) {
        return problem;
    }
    ptrdiff_t rows = in_view.shape[0];
    void *lock = rows > SCORED_UNDER_LOCK ? PyEval_SaveThread() : NULL;
    for (ptrdiff_t row = 0; row < rows; row += SCORED_UNDER_LOCK) {
        ptrdiff_t here = rows - row < SCORED_UNDER_LOCK ? rows - row : SCORED_UNDER_LOCK;
        const float *matrix_rows = (const float *)in_view.buf + row * forest->features;
        double *blend = (double *)out_view.buf + row;
        float margins[SCORED_UNDER_LOCK];
        for (int32_t number = 0; number < forest->members; number++) {
            const member_t *member = &forest->member[number];
            member_margins(member, forest->features, forest->path, matrix_rows, here, 1, margins);
            for (ptrdiff_t i = 0; i < here; i++) {
                double part = (double)margins[i] * member->weight;
                blend[i] = number == 0 ? part : blend[i] + part;
            }
        }
    }
    if (lock != NULL) {
        PyEval_RestoreThread(lock);
    }
    PyBuffer_Release(&in_view);
    PyBuffer_Release(&out_view);
    return OK;
}

/* `out`: float32 [n, members], the margin of every member. */
int cordon_margins(const forest_t *forest, void *matrix, void *out)
{
    buffer_t in_view, out_view;
    int problem = open_both(forest, matrix, out, 'f', forest->members, &in_view, &out_view);
    if (problem != OK) {
        return problem;
    }
    ptrdiff_t rows = in_view.shape[0];
    void *lock = rows > SCORED_UNDER_LOCK ? PyEval_SaveThread() : NULL;
    for (int32_t number = 0; number < forest->members; number++) {
        member_margins(&forest->member[number], forest->features, forest->path, in_view.buf, rows,
                       forest->members, (float *)out_view.buf + number);
    }
    if (lock != NULL) {
        PyEval_RestoreThread(lock);
    }
    PyBuffer_Release(&in_view);
    PyBuffer_Release(&out_view);
    return OK;
}

/* `out`: float64 [n, features + 1], the members' contributions times weights, base value last. */
int cordon_contributions(const forest_t *forest, void *matrix, void *out)
{
    buffer_t in_view, out_view;
    int problem = open_both(forest, matrix, out, 'd', forest->features + 1, &in_view, &out_view);
    if (problem != OK) {
        return problem;
    }
    ptrdiff_t rows = in_view.shape[0];
    double *cells = out_view.buf;
    void *lock = rows > EXPLAINED_UNDER_LOCK ? PyEval_SaveThread() : NULL;
    for (ptrdiff_t cell = 0; cell < rows * (forest->features + 1); cell++) {
        cells[cell] = 0.0;
    }
    for (int32_t number = 0; number < forest->members; number++) {
        member_contributions(&forest->member[number], forest->features, forest->path, in_view.buf, rows, cells);
    }
    if (lock != NULL) {
        PyEval_RestoreThread(lock);
    }
    PyBuffer_Release(&in_view);
    PyBuffer_Release(&out_view);
    return OK;
}

/* The best way for this processor. */
int cordon_best_path(void)
{
#if CORDON_AVX2
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? PATH_AVX2 : PATH_PORTABLE;
#else
    return PATH_PORTABLE;
#endif
}

/* Base margin of a logistic objective from its base score, in float32 as XGBoost computes it. */
float cordon_logit(float probability)
{
    return -logf(1.0f / probability - 1.0f);
}

/* To check that Python and C agree on the layout of both structures. */
size_t cordon_sizes(int which)
{
    return which == 0 ? sizeof(forest_t) : sizeof(member_t);
}
