/* A batch's vectors from what the store and the door gave: `features/evaluate.py` again, without making arrays
 * of a row first. Names and structure follow that file, which says what everything means; a test holds both to
 * the same bits. Python's objects are read through the stable ABI, see abi.h; whatever is not as it
 * usually is (another type, a number that does not fit) is left to the file above. The interpreter lock is
 * held: a row takes a few microseconds, and nothing here runs Python's own code.
 *
 * A record holds the vector as JSON, which is written here too: making 80 numbers for Python, having them
 * encoded and letting go of them took longer than the vector. Nearly all are whole; the encoder is asked for the
 * others, since it knows the shortest digits. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"

extern object_t _Py_NoneStruct;
#define NONE (&_Py_NoneStruct)

object_t *PyTuple_GetItem(object_t *tuple, ptrdiff_t place);
ptrdiff_t PyTuple_Size(object_t *tuple);
object_t *PyList_GetItem(object_t *list, ptrdiff_t place);
ptrdiff_t PyList_Size(object_t *list);
object_t *PyList_New(ptrdiff_t length);
int PyList_SetItem(object_t *list, ptrdiff_t place, object_t *item);
int PyList_Append(object_t *list, object_t *item);
object_t *PyDict_GetItemWithError(object_t *dict, object_t *key);
int PySequence_Contains(object_t *container, object_t *value);
int PyObject_IsTrue(object_t *object);
int PyObject_RichCompareBool(object_t *left, object_t *right, int operator);
object_t *PyObject_Str(object_t *object);
long long PyLong_AsLongLong(object_t *number);
double PyFloat_AsDouble(object_t *number);
object_t *PyFloat_FromDouble(double number);
object_t *PyObject_CallFunctionObjArgs(object_t *callable, ...);
object_t *PyBytes_FromStringAndSize(const char *start, ptrdiff_t length);
int PyBytes_AsStringAndSize(object_t *bytes, char **start, ptrdiff_t *length);
object_t *PyErr_Occurred(void);
void PyErr_Clear(void);
void Py_IncRef(object_t *object);
void Py_DecRef(object_t *object);

enum { DONE = 0, LEFT = 1 };
enum { MINUTE = 60000, HOUR = 3600000, DAY = 86400000 };
enum { NOT_EQUAL = 3 };
/* Columns of the tables of `Plan`. */
enum { SHAPE = 5, WINDOW = 5, TILE = 9, HEAD = 4, SEEN = 6 };
enum { OF_HOUR, OF_WEEKDAY, OF_TIME_OF_DAY, OF_PRESENT, OF_MISMATCH, OF_REFERENCE, OF_CATEGORY, OF_NUMBER };
enum { ROW_TIME, ROW_VALUES, ROW_IDENTITY, ROW_STATES, ROW_REPEATED };
/* A `Sight` begins as a row does. */
enum { SIGHT_TARGETS = 3, SIGHT_STATES, SIGHT_REPEATED, SIGHT };

/* One of `Plan.readers`. `table`: a dictionary from texts or categories to numbers. */
typedef struct {
    int64_t kind;
    int64_t offset_ms;
    object_t *field;
    object_t *other;
    object_t *table;
} reader_t;

/* `Plan` and `Program`; the rest is room for one row. */
typedef struct {
    int64_t entities, numbers, filters, marks, windows, heads, seen, readers, nodes, outputs;
    int64_t header, ring_format, places_width;
    object_t **entity_names, **number_names, **filter_fields, **filter_values, **mark_names;
    object_t *place_name;
    const reader_t *reader;
    const int64_t *shape, *window, *tile, *where, *head, *seen_terms, *own, *code, *operand, *output;
    const double *scale;
    const unsigned char **state;
    int64_t *length, *kind, *place, *number, *filter, *mark;
    double *value;
} plan_t;

size_t cordon_vectors_size(void) { return sizeof(plan_t); }

static uint64_t u32(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

static uint64_t u64(const unsigned char *at) { return u32(at) | u32(at + 4) << 32; }

/* Python's // and %, for a divisor above 0. */
static int64_t floored(int64_t a, int64_t by)
{
    int64_t whole = a / by;
    return whole - (a % by < 0);
}

static int64_t modulo(int64_t a, int64_t by)
{
    int64_t rest = a % by;
    return rest < 0 ? rest + by : rest;
}

static int parse(const plan_t *plan, const unsigned char *state, int64_t length, const int64_t *shape,
                 int64_t *place)
{
    memset(place, 0, (size_t)plan->places_width * sizeof *place);
    if (length == 0) {
        return 1;
    }
    int64_t sections = 3 + shape[4];
    int64_t counts = plan->header + 8 * shape[0];
    int64_t begin = counts + 4 * sections;
    if (begin > length || (int64_t)u32(state) != plan->ring_format) {
        return 0;
    }
    place[0] = plan->header;
    for (int64_t section = 0; section < sections; section++) {
        int64_t count = (int64_t)u32(state + counts + 4 * section);
        place[1 + 2 * section] = begin;
        place[2 + 2 * section] = count;
        begin += count * (section < 3 ? 4 + 8 * shape[1 + section] : 16);
    }
    return begin == length;
}

static int64_t tile_at(const unsigned char *state, int64_t begin, int64_t count, int64_t stride, int64_t tile)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if ((int64_t)u32(state + begin + middle * stride) < tile) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return begin + low * stride;
}

static int64_t span(int64_t time_ms, int64_t window_ms, int64_t delay_ms, int64_t *pieces)
{
    static const int64_t LENGTHS[3] = {MINUTE, HOUR, DAY};
    int64_t at = time_ms - delay_ms;
    int own = window_ms >= 6 * (int64_t)DAY ? 2 : window_ms >= 6 * (int64_t)HOUR ? 1 : 0;
    int64_t start_ms = 0, begin = 0;
    for (int tier = 2; tier >= 0; tier--) {
        int64_t length = LENGTHS[tier];
        pieces[2 * tier] = pieces[2 * tier + 1] = 0;
        if (tier > own) {
            continue;
        }
        if (tier == own) {
            begin = start_ms = floored(at - window_ms, length) * length;
        }
        int64_t stop = floored(at, length) * length + (tier == 0 ? MINUTE : 0);
        if (stop > begin) {
            pieces[2 * tier] = floored(begin, length);
            pieces[2 * tier + 1] = floored(stop, length);
            begin = stop;
        }
    }
    return start_ms;
}

static void find(const unsigned char *state, const int64_t *shape, const int64_t *place, int64_t *pieces)
{
    for (int tier = 0; tier < 3; tier++) {
        int64_t begin = place[1 + 2 * tier], count = place[2 + 2 * tier], stride = 4 + 8 * shape[1 + tier];
        int64_t first = pieces[2 * tier], last = pieces[2 * tier + 1];
        if (count > 0 && last > first) {
            pieces[2 * tier] = tile_at(state, begin, count, stride, first);
            pieces[2 * tier + 1] = tile_at(state, begin, count, stride, last);
        } else {
            pieces[2 * tier] = pieces[2 * tier + 1] = 0;
        }
    }
}

static uint64_t delta(const plan_t *plan, const int64_t *tile)
{
    for (int64_t i = tile[6]; i < tile[7]; i++) {
        if (plan->filter[plan->where[i]] == 0) {
            return 0;
        }
    }
    if (tile[4] < 0) {
        return 1;
    }
    int64_t number = plan->number[tile[4]];
    if (number < 0) {
        return 0;
    }
    if (tile[5] == 2) {
        return (uint64_t)number * (uint64_t)number;
    }
    return (uint64_t)number + (tile[5] == 3);
}

static double total_of(const unsigned char *state, const int64_t *tile, const int64_t *shape,
                       const int64_t *pieces, uint64_t total)
{
    int largest = tile[5] == 3;
    for (int tier = 0; tier < 3; tier++) {
        int64_t slot = 4 + 8 * tile[1 + tier], stride = 4 + 8 * shape[1 + tier];
        for (int64_t at = pieces[2 * tier]; at < pieces[2 * tier + 1]; at += stride) {
            uint64_t number = u64(state + at + slot);
            total = !largest ? total + number : number > total ? number : total;
        }
    }
    if (!largest) {
        return (double)total;
    }
    return total > 0 ? (double)(total - 1) : NAN;
}

static double seen_term(const unsigned char *state, const int64_t *term, int64_t begin, int64_t count,
                        int64_t start_ms, int64_t own)
{
    int known = 0;
    int64_t total = 0;
    for (int64_t i = count - 1; i >= 0; i--) {
        const unsigned char *entry = state + begin + 16 * i;
        if ((int64_t)u64(entry + 8) < start_ms) {
            break;
        }
        total++;
        known = known || (int64_t)u64(entry) == own;
    }
    if (term[3] == 0) {
        return known ? 0.0 : 1.0;
    }
    return own != 0 && !known ? (double)(total + 1) : (double)total;
}

/* features/formula.py */
static double step(int64_t code, double a, double b, double c, double scale)
{
    switch (code) {
    case 1:
        return a > b ? a - b : a <= b ? 0.0 : NAN;
    case 2:
        return b != 0.0 ? a / b : NAN;
    case 3: {
        if (c == 0.0) {
            return NAN;
        }
        double mean = b / c;
        double variance = a / c - mean * mean;
        return variance > 0.0 ? sqrt(variance) : variance <= 0.0 ? 0.0 : NAN;
    }
    case 4:
        return b != 0.0 ? a / b * scale : NAN;
    case 5:
        return c != 0.0 ? (a - b) / c : NAN;
    }
    return a;
}

static double gap_seconds(int64_t time_ms, int64_t last_ms)
{
    return last_ms == 0 || last_ms > time_ms ? NAN : (double)(time_ms - last_ms) / 1000.0;
}

static double radians(int64_t cell, double middle)
{
    return ((double)cell / 100.0 - middle) * (3.141592653589793 / 180.0);
}

static double speed_kmh(int64_t time_ms, int64_t place, int64_t last)
{
    enum { COLUMNS = 36001 };
    int64_t seconds = floored(time_ms, 1000) - (last >> 31);
    if (place == 0 || last == 0 || seconds < 0) {
        return NAN;
    }
    int64_t here = place - 1, there = (last & 0x7FFFFFFF) - 1;
    double phi_a = radians(floored(there, COLUMNS), 90.0), phi_b = radians(floored(here, COLUMNS), 90.0);
    double lambda_a = radians(modulo(there, COLUMNS), 180.0), lambda_b = radians(modulo(here, COLUMNS), 180.0);
    double sine_phi = sin((phi_b - phi_a) / 2.0), sine_lambda = sin((lambda_b - lambda_a) / 2.0);
    double half = sine_phi * sine_phi + cos(phi_a) * cos(phi_b) * (sine_lambda * sine_lambda);
    double root = sqrt(half);
    double kilometres = 2.0 * 6371.0 * asin(root < 1.0 ? root : 1.0);
    return kilometres / ((double)(seconds > 1 ? seconds : 1) / 3600.0);
}

/* A value of a row's dictionary, `NONE` where there is none; NULL where there is no dictionary. */
static object_t *known(object_t *dict, object_t *name)
{
    object_t *found = PyDict_GetItemWithError(dict, name);
    return found != NULL ? found : PyErr_Occurred() != NULL ? NULL : NONE;
}

static int integer(object_t *number, int64_t absent, int64_t *found)
{
    if (number == NULL) {
        return 0;
    }
    if (number == NONE) {
        *found = absent;
        return 1;
    }
    *found = PyLong_AsLongLong(number);
    return *found != -1 || PyErr_Occurred() == NULL;
}

static int read_number(const reader_t *reader, object_t *values, int64_t time_ms, double *found)
{
    int64_t local_ms = time_ms + reader->offset_ms;
    switch (reader->kind) {
    case OF_HOUR:
        *found = (double)modulo(floored(local_ms, HOUR), 24);
        return 1;
    case OF_WEEKDAY:
        *found = (double)modulo(floored(local_ms, DAY) + 3, 7);
        return 1;
    case OF_TIME_OF_DAY:
        *found = (double)modulo(local_ms, DAY) / (double)HOUR;
        return 1;
    }
    object_t *value = known(values, reader->field);
    if (value == NULL) {
        return 0;
    }
    if (reader->kind == OF_PRESENT) {
        *found = value != NONE;
        return 1;
    }
    if (reader->kind == OF_MISMATCH) {
        object_t *other = known(values, reader->other);
        int differ = 0;
        if (other == NULL) {
            return 0;
        }
        *found = NAN;
        if (value != NONE && other != NONE) {
            differ = PyObject_RichCompareBool(value, other, NOT_EQUAL);
            *found = differ;
        }
        return differ >= 0;
    }
    if (reader->kind == OF_NUMBER) {
        *found = value == NONE ? NAN : PyFloat_AsDouble(value);
        return *found != -1.0 || PyErr_Occurred() == NULL;
    }
    object_t *text = reader->kind == OF_REFERENCE ? PyObject_Str(value) : value;
    if (text == NULL) {
        return 0;
    }
    object_t *number = known(reader->table, text);
    if (text != value || reader->kind == OF_REFERENCE) {
        Py_DecRef(text);
    }
    if (number == NULL) {
        return 0;
    }
    *found = number == NONE ? NAN : PyFloat_AsDouble(number);
    return 1;
}

/* An entity's state, or None, is there; `holds`: it holds the transaction already. 0 where it is no state. */
static int hold(const plan_t *plan, int64_t e, object_t *state, int holds)
{
    if (holds < 0) {
        return 0;
    }
    plan->kind[e] = holds ? 2 : 1;
    if (state != NONE) {
        char *start;
        ptrdiff_t length;
        if (PyBytes_AsStringAndSize(state, &start, &length) != 0) {
            return 0;
        }
        plan->state[e] = (const unsigned char *)start;
        plan->length[e] = length;
    }
    return 1;
}

/* The states of a row. */
static int take_states(const plan_t *plan, object_t *row, object_t *entities)
{
    object_t *states = PyTuple_GetItem(row, ROW_STATES), *repeated = PyTuple_GetItem(row, ROW_REPEATED);
    for (int64_t e = 0; states != NULL && repeated != NULL && e < plan->entities; e++) {
        object_t *name = plan->entity_names[e];
        object_t *present = PyDict_GetItemWithError(entities, name);
        object_t *state = PyDict_GetItemWithError(states, name);
        if (present == NULL || state == NULL) {
            if (PyErr_Occurred() != NULL) {
                return 0;
            }
            continue;
        }
        object_t *again = known(repeated, name);
        if (!hold(plan, e, state, again == NULL ? -1 : PyObject_IsTrue(again))) {
            return 0;
        }
    }
    return states != NULL && repeated != NULL;
}

/* The states of a `Sight`: those of its targets, which come in the plan's order, by the plan's own names. */
static int take_seen(const plan_t *plan, object_t *sight)
{
    object_t *targets = PyTuple_GetItem(sight, SIGHT_TARGETS), *states = PyTuple_GetItem(sight, SIGHT_STATES);
    object_t *repeated = PyTuple_GetItem(sight, SIGHT_REPEATED);
    ptrdiff_t count = targets == NULL ? -1 : PyTuple_Size(targets), t = 0;
    for (int64_t e = 0; t < count && e < plan->entities; e++) {
        object_t *target = PyTuple_GetItem(targets, t);
        if (target == NULL || PyTuple_GetItem(target, 0) != plan->entity_names[e]) {
            continue;
        }
        object_t *state = PyTuple_GetItem(states, t), *again = PyTuple_GetItem(repeated, t);
        if (state == NULL || again == NULL || !hold(plan, e, state, PyObject_IsTrue(again))) {
            return 0;
        }
        t++;
    }
    return t == count;
}

/* What `Evaluator._pack` makes of a row, into the plan's room; 0 where something is not usual. */
static int take(const plan_t *plan, object_t *row, int64_t *time_ms, int64_t *at_place)
{
    object_t *values = PyTuple_GetItem(row, ROW_VALUES), *identity = PyTuple_GetItem(row, ROW_IDENTITY);
    if (values == NULL || identity == NULL) {
        return 0;
    }
    object_t *entities = PyTuple_GetItem(identity, 0), *marks = PyTuple_GetItem(identity, 1);
    if (entities == NULL || marks == NULL || !integer(PyTuple_GetItem(row, ROW_TIME), 0, time_ms)
        || !integer(known(marks, plan->place_name), 0, at_place)) {
        return 0;
    }
    for (int64_t e = 0; e < plan->entities; e++) {
        plan->kind[e] = plan->length[e] = 0;
        plan->state[e] = NULL;
    }
    if (!(PyTuple_Size(row) == SIGHT ? take_seen(plan, row) : take_states(plan, row, entities))) {
        return 0;
    }
    for (int64_t i = 0; i < plan->numbers; i++) {
        if (!integer(known(values, plan->number_names[i]), -1, &plan->number[i])) {
            return 0;
        }
    }
    for (int64_t i = 0; i < plan->filters; i++) {
        object_t *value = known(values, plan->filter_fields[i]);
        int among = value == NULL ? -1 : PySequence_Contains(plan->filter_values[i], value);
        if (among < 0) {
            return 0;
        }
        plan->filter[i] = among;
    }
    for (int64_t i = 0; i < plan->marks; i++) {
        if (!integer(known(marks, plan->mark_names[i]), 0, &plan->mark[i])) {
            return 0;
        }
    }
    for (int64_t i = 0; i < plan->readers; i++) {
        if (!read_number(&plan->reader[i], values, *time_ms, &plan->value[plan->own[i]])) {
            return 0;
        }
    }
    return 1;
}

/* The row in the plan's room -> `out`; 0 where a state is damaged. */
static int evaluate(const plan_t *plan, int64_t time_ms, int64_t at_place, float *out)
{
    int64_t pieces[6] = {0};
    double *value = plan->value;
    for (int64_t e = 0; e < plan->entities; e++) {
        int64_t *place = plan->place + e * plan->places_width;
        if (!parse(plan, plan->state[e], plan->length[e], plan->shape + SHAPE * e, place)) {
            return 0;
        }
    }
    for (int64_t w = 0; w < plan->windows; w++) {
        const int64_t *window = plan->window + WINDOW * w;
        int64_t e = window[0], kind = plan->kind[e];
        const int64_t *shape = plan->shape + SHAPE * e;
        if (kind != 0) {
            span(time_ms, window[1], window[2], pieces);
            find(plan->state[e], shape, plan->place + e * plan->places_width, pieces);
        }
        int counted = kind == 1 && window[2] == 0;
        for (int64_t i = window[3]; i < window[4]; i++) {
            const int64_t *tile = plan->tile + TILE * i;
            uint64_t own = counted && tile[8] == 1 ? delta(plan, tile) : 0;
            value[tile[0]] = kind != 0 ? total_of(plan->state[e], tile, shape, pieces, own) : NAN;
        }
    }
    for (int64_t i = 0; i < plan->heads; i++) {
        const int64_t *head = plan->head + HEAD * i;
        int64_t e = head[1], from = plan->place[e * plan->places_width], last = 0;
        if (plan->kind[e] == 1 && from > 0) {
            last = (int64_t)u64(plan->state[e] + from + 8 * head[2]);
        }
        value[head[0]] = head[3] == 0 ? gap_seconds(time_ms, last) : speed_kmh(time_ms, at_place, last);
    }
    for (int64_t i = 0; i < plan->seen; i++) {
        const int64_t *term = plan->seen_terms + SEEN * i;
        int64_t e = term[1], own = plan->mark[term[4]], kind = plan->kind[e];
        if (kind == 0 || (term[3] == 0 && (kind == 2 || own == 0))) {
            value[term[0]] = NAN;
            continue;
        }
        int64_t start_ms = span(time_ms, term[5], 0, pieces);
        const int64_t *place = plan->place + e * plan->places_width + 7 + 2 * term[2];
        value[term[0]] = seen_term(plan->state[e], term, place[0], place[1], start_ms, own);
    }
    for (int64_t i = 0; i < plan->nodes; i++) {
        if (plan->code[i] != 0) {
            const int64_t *of = plan->operand + 3 * i;
            value[i] = step(plan->code[i], value[of[0]], value[of[1]], value[of[2]], plan->scale[i]);
        }
    }
    for (int64_t f = 0; f < plan->outputs; f++) {
        out[f] = (float)value[plan->output[f]];
    }
    return 1;
}

/* A value for Python, absent ones `None`; a new reference. */
static object_t *shown(float value)
{
    if (!isnan(value)) {
        return PyFloat_FromDouble((double)value);
    }
    Py_IncRef(NONE);
    return NONE;
}

/* The wanted columns of a vector, as a list at the end of `lists`. */
static int show(object_t *lists, const float *vector, const int64_t *wanted, int64_t count)
{
    object_t *list = PyList_New(count);
    int done = list != NULL;
    for (int64_t i = 0; done && i < count; i++) {
        object_t *value = shown(vector[wanted[i]]);
        done = value != NULL && PyList_SetItem(list, i, value) == 0;
    }
    done = done && PyList_Append(lists, list) == 0;
    if (list != NULL) {
        Py_DecRef(list);
    }
    return done;
}

/* How a record's JSON shows a value: as null, by digits that are written here, or as the encoder writes it. */
enum { ABSENT, DIGITS, ENCODED };
enum { WIDEST = 32 };

static int form(float value)
{
    if (!isfinite(value)) {
        return ABSENT;
    }
    if (fabsf(value) < 1e15f && value == (float)(int64_t)value && !(value == 0.0f && signbit(value))) {
        return DIGITS;
    }
    return ENCODED;
}

static char *digits(char *at, int64_t number)
{
    char reversed[WIDEST];
    int count = 0;
    if (number < 0) {
        *at++ = '-';
        number = -number;
    }
    do {
        reversed[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0) {
        *at++ = reversed[--count];
    }
    *at++ = '.';
    *at++ = '0';
    return at;
}

/* A vector as JSON's array at `at`. Its fractions stand at `*fractions`, as the encoder wrote them, and are
 * passed over. */
static char *write_text(char *at, const float *vector, int64_t width, const char **fractions)
{
    *at++ = '[';
    for (int64_t f = 0; f < width; f++) {
        if (f > 0) {
            *at++ = ',';
        }
        switch (form(vector[f])) {
        case ABSENT:
            memcpy(at, "null", 4);
            at += 4;
            break;
        case DIGITS:
            at = digits(at, (int64_t)vector[f]);
            break;
        case ENCODED:
            while (**fractions != ',' && **fractions != ']') {
                *at++ = *(*fractions)++;
            }
            ++*fractions;
        }
    }
    *at++ = ']';
    return at;
}

/* What `encode` makes of all fractions of the matrix, a JSON array as bytes; NULL where it fails. */
static object_t *encoded_fractions(const float *matrix, ptrdiff_t count, object_t *encode)
{
    object_t *fractions = PyList_New(0), *encoded = NULL;
    int done = fractions != NULL;
    for (ptrdiff_t i = 0; done && i < count; i++) {
        if (form(matrix[i]) == ENCODED) {
            object_t *fraction = shown(matrix[i]);
            done = fraction != NULL && PyList_Append(fractions, fraction) == 0;
            if (fraction != NULL) {
                Py_DecRef(fraction);
            }
        }
    }
    if (done) {
        encoded = PyObject_CallFunctionObjArgs(encode, fractions, NULL);
    }
    if (fractions != NULL) {
        Py_DecRef(fractions);
    }
    return encoded;
}

/* Every row as JSON, at the end of `texts`. */
static int write_texts(object_t *texts, const float *matrix, ptrdiff_t count, int64_t width, object_t *encode)
{
    char *room = malloc((size_t)(width * WIDEST + 2)), *fraction;
    object_t *encoded = encoded_fractions(matrix, count * width, encode);
    ptrdiff_t length;
    int done = room != NULL && encoded != NULL && PyBytes_AsStringAndSize(encoded, &fraction, &length) == 0;
    const char *next = done ? fraction + 1 : NULL;
    for (ptrdiff_t r = 0; done && r < count; r++) {
        char *end = write_text(room, matrix + r * width, width, &next);
        object_t *text = PyBytes_FromStringAndSize(room, end - room);
        done = text != NULL && PyList_Append(texts, text) == 0;
        if (text != NULL) {
            Py_DecRef(text);
        }
    }
    free(room);
    if (encoded != NULL) {
        Py_DecRef(encoded);
    }
    return done;
}

/* `rows`: a list of `Row` or `Sight`. `out`: float32 [n, features], filled. `lists` gets a list of each row's
 * `wanted` columns, `texts` each row as JSON; `encode` makes JSON of a list of numbers, and is asked once.
 * DONE, or LEFT where a row is damaged or not usual. */
int cordon_vectors(const plan_t *plan, object_t *rows, object_t *out, const int64_t *wanted, int64_t columns,
                   object_t *lists, object_t *texts, object_t *encode)
{
    buffer_t view;
    ptrdiff_t count = PyList_Size(rows);
    if (count < 0 || PyObject_GetBuffer(out, &view, CONTIGUOUS | FORMAT | WRITABLE) != 0) {
        PyErr_Clear();
        return LEFT;
    }
    int done = view.len == count * plan->outputs * (ptrdiff_t)sizeof(float) && view.format != NULL
               && strcmp(view.format, "f") == 0;
    for (ptrdiff_t r = 0; done && r < count; r++) {
        float *vector = (float *)view.buf + r * plan->outputs;
        int64_t time_ms, place;
        done = take(plan, PyList_GetItem(rows, r), &time_ms, &place) && evaluate(plan, time_ms, place, vector)
               && show(lists, vector, wanted, columns);
    }
    done = done && write_texts(texts, view.buf, count, plan->outputs, encode);
    PyBuffer_Release(&view);
    if (!done) {
        PyErr_Clear();
    }
    return done ? DONE : LEFT;
}
