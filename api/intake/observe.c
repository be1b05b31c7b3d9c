/* What an event does to each state, packed as the store's functions read it: see api/observer.py and
 * features/library.py. */
#include "intake.h"

#include <string.h>

enum { COUNT, SUM, SUMSQ, MAX };
enum { TIME, PLACE };
enum { SLOTS_MAX = 255, NUMBERS_MAX = 3 * SLOTS_MAX };
static const long long SQUARE_MAX = 3037000499;        /* its square is below 2**63 */
static const long long PLACED_MS_MAX = 1000LL << 32;   /* seconds that leave 31 bits for a place */

typedef struct {
    PyObject_HEAD
    PyObject *tables;
    PyObject *wheres;   /* ((field, values), ...) */
    PyObject *measures; /* ((aggregate, field or None, places of wheres), ...) */
    PyObject *heads;    /* ((kind, places of wheres), ...) */
    PyObject *layouts;  /* ((entity, number, places of measures, places of heads, fields of marks), ...) */
    PyObject *made;
    PyObject *place;    /* the name of its mark */
    int all;            /* those without a trace too */
} Observer;

typedef struct {
    uint64_t delta[SLOTS_MAX + 1]; /* 0 holds 0: what another source fills */
    uint64_t head[SLOTS_MAX + 1];
    uint8_t holds[SLOTS_MAX];
} found_t;

static int integer(PyObject *tuple, Py_ssize_t at)
{
    return (int)PyLong_AsLong(PyTuple_GET_ITEM(tuple, at));
}

static int all_hold(const found_t *found, PyObject *wheres)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(wheres); i++) {
        if (!found->holds[integer(wheres, i)]) {
            return 0;
        }
    }
    return 1;
}

static int check_wheres(const Observer *self, PyObject *values, found_t *found)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->wheres); i++) {
        PyObject *where = PyTuple_GET_ITEM(self->wheres, i);
        PyObject *value = PyDict_GetItemWithError(values, PyTuple_GET_ITEM(where, 0));
        if (value == NULL && PyErr_Occurred()) {
            return -1;
        }
        int held = value == NULL ? 0 : PySet_Contains(PyTuple_GET_ITEM(where, 1), value);
        if (held < 0) {
            return -1;
        }
        found->holds[i] = (uint8_t)held;
    }
    return 0;
}

static int measure(const Observer *self, PyObject *values, found_t *found)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->measures); i++) {
        PyObject *row = PyTuple_GET_ITEM(self->measures, i);
        int aggregate = integer(row, 0);
        long long number;
        found->delta[i + 1] = 0;
        if (!all_hold(found, PyTuple_GET_ITEM(row, 2))) {
            continue;
        }
        if (aggregate == COUNT) {
            found->delta[i + 1] = 1;
            continue;
        }
        PyObject *value = PyDict_GetItemWithError(values, PyTuple_GET_ITEM(row, 1));
        if (value == NULL || value == Py_None) {
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        if (!whole(value, &number) || number < 0 || number > SQUARE_MAX) {
            return -1;
        }
        uint64_t amount = (uint64_t)number;
        found->delta[i + 1] = aggregate == SUM ? amount : aggregate == SUMSQ ? amount * amount : amount + 1;
    }
    return 0;
}

static int head(const Observer *self, long long time_ms, PyObject *marks, found_t *found)
{
    long long place = 0;
    PyObject *known = PyDict_GetItemWithError(marks, self->place);
    if (known == NULL ? PyErr_Occurred() != NULL : !whole(known, &place) || place < 0 || place >= 1LL << 31) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->heads); i++) {
        PyObject *row = PyTuple_GET_ITEM(self->heads, i);
        uint64_t *to = &found->head[i + 1];
        if (!all_hold(found, PyTuple_GET_ITEM(row, 1))) {
            *to = 0;
        } else if (integer(row, 0) == TIME) {
            *to = (uint64_t)time_ms;
        } else if (place == 0) {
            *to = 0;
        } else if (time_ms < PLACED_MS_MAX) {
            *to = (uint64_t)(time_ms / 1000) << 31 | (uint64_t)place;
        } else {
            return -1;
        }
    }
    return 0;
}

static int mark(PyObject *marks, PyObject *field, uint64_t *to)
{
    long long number = 0;
    PyObject *known = PyDict_GetItemWithError(marks, field);
    if (known == NULL ? PyErr_Occurred() != NULL : !whole(known, &number) || number < 0) {
        return -1;
    }
    *to = (uint64_t)number;
    return 0;
}

static void store(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

/* One target's bytes; Py_None for one without a trace; NULL for what Python is to look at. */
static PyObject *packed(PyObject *layout, const found_t *found, PyObject *marks, uint64_t event, uint64_t time_ms,
                        int all)
{
    uint8_t bytes[1 + 8 * (2 + NUMBERS_MAX)], *to = bytes + 17;
    PyObject *slots = PyTuple_GET_ITEM(layout, 2), *tops = PyTuple_GET_ITEM(layout, 3);
    PyObject *fields = PyTuple_GET_ITEM(layout, 4);
    uint64_t number, trace = 0;
    bytes[0] = (uint8_t)integer(layout, 1);
    store(bytes + 1, time_ms);
    store(bytes + 9, event);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(slots); i++, to += 8) {
        number = found->delta[integer(slots, i)];
        store(to, number);
        trace |= number;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tops); i++, to += 8) {
        number = found->head[integer(tops, i)];
        store(to, number);
        trace |= number;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++, to += 8) {
        if (mark(marks, PyTuple_GET_ITEM(fields, i), &number) < 0) {
            return NULL;
        }
        store(to, number);
        trace |= number;
    }
    return trace || all ? PyBytes_FromStringAndSize((const char *)bytes, to - bytes) : Py_NewRef(Py_None);
}

/* Appends `(entity, pseudonym, bytes)` of each entity that the event has. */
static int append(const Observer *self, PyObject *targets, const found_t *found, PyObject *entities, PyObject *marks,
                  uint64_t event, uint64_t time_ms)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->layouts); i++) {
        PyObject *layout = PyTuple_GET_ITEM(self->layouts, i), *entity = PyTuple_GET_ITEM(layout, 0);
        PyObject *pseudonym = PyDict_GetItemWithError(entities, entity);
        if (pseudonym == NULL) {
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        PyObject *bytes = packed(layout, found, marks, event, time_ms, self->all);
        if (bytes == Py_None) {
            Py_DECREF(bytes);
            continue;
        }
        PyObject *target = bytes == NULL ? NULL : named(self->made, PyTuple_Pack(3, entity, pseudonym, bytes));
        Py_XDECREF(bytes);
        int failed = target == NULL ? -1 : PyList_Append(targets, target);
        Py_XDECREF(target);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static PyObject *Observer_targets(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Observer *self = (const Observer *)object;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "targets takes event, time_ms, values, entities and marks");
        return NULL;
    }
    PyObject *values = args[2], *entities = args[3], *marks = args[4];
    long long event, time_ms;
    found_t found;
    found.delta[0] = found.head[0] = 0;
    if (!whole(args[0], &event) || event < 0 || !whole(args[1], &time_ms) || time_ms < 0 ||
        !PyDict_CheckExact(values) || !PyDict_CheckExact(entities) || !PyDict_CheckExact(marks) ||
        check_wheres(self, values, &found) < 0 || measure(self, values, &found) < 0 ||
        head(self, time_ms, marks, &found) < 0) {
        return irregular(NULL);
    }
    PyObject *targets = PyList_New(0);
    if (targets == NULL || append(self, targets, &found, entities, marks, (uint64_t)event, (uint64_t)time_ms) < 0) {
        return irregular(targets);
    }
    PyObject *all = PyList_AsTuple(targets);
    Py_DECREF(targets);
    return all;
}

static int check_sizes(const Observer *self)
{
    int fits = PyTuple_GET_SIZE(self->wheres) <= SLOTS_MAX && PyTuple_GET_SIZE(self->measures) <= SLOTS_MAX &&
               PyTuple_GET_SIZE(self->heads) <= SLOTS_MAX;
    for (Py_ssize_t i = 0; fits && i < PyTuple_GET_SIZE(self->layouts); i++) {
        PyObject *layout = PyTuple_GET_ITEM(self->layouts, i);
        for (int part = 2; part < 5; part++) {
            fits = fits && PyTuple_GET_SIZE(PyTuple_GET_ITEM(layout, part)) <= SLOTS_MAX;
        }
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "too many slots");
    }
    return fits ? 0 : -1;
}

static PyObject *Observer_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Observer *self = (Observer *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->tables = Py_NewRef(args);
    if (!PyArg_ParseTuple(args, "O!O!O!O!OO!p", &PyTuple_Type, &self->wheres, &PyTuple_Type, &self->measures,
                          &PyTuple_Type, &self->heads, &PyTuple_Type, &self->layouts, &self->made,
                          &PyUnicode_Type, &self->place, &self->all) ||
        check_sizes(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void Observer_dealloc(PyObject *object)
{
    Py_XDECREF(((Observer *)object)->tables);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef METHODS[] = {
    {"targets", (PyCFunction)(void (*)(void))Observer_targets, METH_FASTCALL,
     "The targets of one event, or None."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Observer_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cordon_intake.Observer",
    .tp_basicsize = sizeof(Observer),
    .tp_dealloc = Observer_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = METHODS,
    .tp_new = Observer_new,
};
