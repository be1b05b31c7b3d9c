#include "intake.h"

#include <string.h>

enum { BYTES_16 = 16, ORIGIN = 40, CLAIM = 41, HEAD = 26, TARGETS_MAX = 255 };
enum { OPEN = 1, ANSWERED = 2 };

/* `arrive` and `complete` of one catalogue and tenant, on the wire (features/command.py, features/library.py). */
typedef struct {
    PyObject_HEAD
    PyObject *tables;   /* a tuple: what follows points into it */
    PyObject *arrive, *complete, *before, *after; /* bytes: two functions; both ends of a claim's key */
    PyObject *ends;     /* entity -> (bytes, bytes): both ends of a state's key */
    long long takeover_ms, lifetime_s;
} Calls;

/* Bytes that grow; `failed` once there is no more memory. */
typedef struct {
    char *at, *end, *start;
    int failed;
} room_t;

static int reserve(room_t *room, size_t more)
{
    if (room->failed || (size_t)(room->end - room->at) >= more) {
        return !room->failed;
    }
    size_t used = (size_t)(room->at - room->start), size = 2 * (used + more);
    char *start = PyMem_Realloc(room->start, size);
    if (start == NULL) {
        room->failed = 1;
        return 0;
    }
    room->start = start;
    room->at = start + used;
    room->end = start + size;
    return 1;
}

/* `*n\r\n`: a command of so many words follows. */
static void words(room_t *room, unsigned long long count)
{
    if (reserve(room, DIGITS_MAX + 3)) {
        *room->at++ = '*';
        room->at = decimal(room->at, count);
        memcpy(room->at, "\r\n", 2);
        room->at += 2;
    }
}

/* `$n\r\n`, with room for the word and its end. */
static int word_of(room_t *room, size_t size)
{
    if (!reserve(room, size + DIGITS_MAX + 5)) {
        return 0;
    }
    *room->at++ = '$';
    room->at = decimal(room->at, size);
    memcpy(room->at, "\r\n", 2);
    room->at += 2;
    return 1;
}

static void put(room_t *room, const char *bytes, size_t size)
{
    memcpy(room->at, bytes, size);
    room->at += size;
}

static void put_bytes(room_t *room, PyObject *bytes)
{
    put(room, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static void put_number(room_t *room, unsigned long long number, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        *room->at++ = (char)(number >> 8 * i & 0xff);
    }
}

static void end_word(room_t *room)
{
    put(room, "\r\n", 2);
}

static void word(room_t *room, const char *bytes, size_t size)
{
    if (word_of(room, size)) {
        put(room, bytes, size);
        end_word(room);
    }
}

static void number_word(room_t *room, unsigned long long number)
{
    char text[DIGITS_MAX];
    word(room, text, (size_t)(decimal(text, number) - text));
}

/* A key: `text` between both ends; 0 where it is no text. */
static int key_word(room_t *room, PyObject *before, PyObject *text, PyObject *after)
{
    Py_ssize_t size;
    const char *middle = PyUnicode_CheckExact(text) ? PyUnicode_AsUTF8AndSize(text, &size) : NULL;
    if (middle == NULL) {
        return 0;
    }
    if (word_of(room, (size_t)(PyBytes_GET_SIZE(before) + size + PyBytes_GET_SIZE(after)))) {
        put_bytes(room, before);
        put(room, middle, (size_t)size);
        put_bytes(room, after);
        end_word(room);
    }
    return 1;
}

/* `FCALL function keys ...`, up to its keys. */
static void call(room_t *room, PyObject *function, unsigned long long keys, unsigned long long arguments)
{
    words(room, 3 + keys + arguments);
    word(room, "FCALL", 5);
    word(room, PyBytes_AS_STRING(function), (size_t)PyBytes_GET_SIZE(function));
    number_word(room, keys);
}

static int is_16(PyObject *value)
{
    return PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) == BYTES_16;
}

/* Targets' keys, and in `*packed` how many bytes their observations have; 0 where something is not regular. */
static int targets(const Calls *self, room_t *room, PyObject *all, size_t *packed)
{
    *packed = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all); i++) {
        PyObject *target = PyTuple_GET_ITEM(all, i);
        if (!PyTuple_Check(target) || PyTuple_GET_SIZE(target) != 3 ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(target, 2))) {
            return 0;
        }
        PyObject *ends = PyDict_GetItemWithError(self->ends, PyTuple_GET_ITEM(target, 0));
        if (ends == NULL || !key_word(room, PyTuple_GET_ITEM(ends, 0), PyTuple_GET_ITEM(target, 1),
                                      PyTuple_GET_ITEM(ends, 1))) {
            return 0;
        }
        *packed += (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(target, 2));
    }
    return 1;
}

/* The command of one arrival, and its origin among `origins`; 0 where something is not regular. */
static int arrive(const Calls *self, room_t *room, PyObject *arrival, unsigned long long now_ms,
                  unsigned long long deadline_ms, PyObject *origins)
{
    size_t packed;
    if (!PyTuple_Check(arrival) || PyTuple_GET_SIZE(arrival) != 6) {
        return 0;
    }
    PyObject *key = PyTuple_GET_ITEM(arrival, 0), *content = PyTuple_GET_ITEM(arrival, 1);
    PyObject *owner = PyTuple_GET_ITEM(arrival, 2), *payload = PyTuple_GET_ITEM(arrival, 3);
    PyObject *all = PyTuple_GET_ITEM(arrival, 4), *observe = PyTuple_GET_ITEM(arrival, 5);
    if (!is_16(content) || !is_16(owner) || !PyBytes_CheckExact(payload) || !PyTuple_CheckExact(all) ||
        PyTuple_GET_SIZE(all) > TARGETS_MAX || !PyBool_Check(observe)) {
        return 0;
    }
    call(room, self->arrive, 1 + (unsigned long long)PyTuple_GET_SIZE(all), 2);
    if (!key_word(room, self->before, key, self->after) || !targets(self, room, all, &packed)) {
        return 0;
    }
    if (word_of(room, HEAD + packed)) {
        put_number(room, now_ms, 8);
        put_number(room, deadline_ms, 8);
        put_number(room, (unsigned long long)self->takeover_ms, 4);
        put_number(room, (unsigned long long)self->lifetime_s, 4);
        put_number(room, observe == Py_True, 1);
        put_number(room, packed ? (unsigned long long)PyTuple_GET_SIZE(all) : 0, 1);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all); i++) {
            put_bytes(room, PyTuple_GET_ITEM(PyTuple_GET_ITEM(all, i), 2));
        }
        end_word(room);
    }
    if (!word_of(room, CLAIM + (size_t)PyBytes_GET_SIZE(payload))) {
        return 0;
    }
    put_number(room, OPEN, 1);
    char *origin = room->at;
    put_bytes(room, content);
    put_bytes(room, owner);
    put_number(room, now_ms, 8);
    PyObject *kept = PyBytes_FromStringAndSize(origin, ORIGIN);
    int known = kept != NULL && PyDict_SetItem(origins, key, kept) == 0;
    Py_XDECREF(kept);
    put_bytes(room, payload);
    end_word(room);
    return known;
}

/* The command that answers one claim; its origin is taken out of `origins`. */
static int complete(const Calls *self, room_t *room, PyObject *answer, PyObject *origins)
{
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 3) {
        return 0;
    }
    PyObject *key = PyTuple_GET_ITEM(answer, 0), *owner = PyTuple_GET_ITEM(answer, 1);
    PyObject *said = PyTuple_GET_ITEM(answer, 2), *origin = PyDict_GetItemWithError(origins, key);
    if (!is_16(owner) || !PyBytes_CheckExact(said) || (origin == NULL && PyErr_Occurred())) {
        return 0;
    }
    call(room, self->complete, 1, 2);
    if (!key_word(room, self->before, key, self->after)) {
        return 0;
    }
    number_word(room, (unsigned long long)self->lifetime_s);
    if (!word_of(room, CLAIM + (size_t)PyBytes_GET_SIZE(said))) {
        return 0;
    }
    put_number(room, ANSWERED, 1);
    if (origin != NULL && PyBytes_CheckExact(origin) && PyBytes_GET_SIZE(origin) == ORIGIN &&
        memcmp(PyBytes_AS_STRING(origin) + BYTES_16, PyBytes_AS_STRING(owner), BYTES_16) == 0) {
        put_bytes(room, origin);
    } else {
        memset(room->at, 0, ORIGIN);
        memcpy(room->at + BYTES_16, PyBytes_AS_STRING(owner), BYTES_16);
        room->at += ORIGIN;
    }
    put_bytes(room, said);
    end_word(room);
    return origin == NULL || PyDict_DelItem(origins, key) == 0;
}

/* What `room` holds becomes the last of `commands`; it is empty afterwards. */
static int append(PyObject *commands, room_t *room)
{
    if (room->failed) {
        PyErr_NoMemory();
        return 0;
    }
    PyObject *command = PyBytes_FromStringAndSize(room->start, room->at - room->start);
    int done = command != NULL && PyList_Append(commands, command) == 0;
    Py_XDECREF(command);
    room->at = room->start;
    return done;
}

static PyObject *Calls_arrive(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Calls *self = (const Calls *)object;
    long long now_ms, deadline_ms;
    room_t room = {0};
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "arrive takes arrivals, now_ms, deadline_ms and origins");
        return NULL;
    }
    if (!PyList_CheckExact(args[0]) || !whole(args[1], &now_ms) || now_ms < 0 || !whole(args[2], &deadline_ms) ||
        deadline_ms < 0 || !PyDict_CheckExact(args[3]) || self->takeover_ms < 0 ||
        self->takeover_ms > UINT32_MAX) {
        return irregular(NULL);
    }
    PyObject *commands = PyList_New(0);
    for (Py_ssize_t i = 0; commands != NULL && i < PyList_GET_SIZE(args[0]); i++) {
        if (!arrive(self, &room, PyList_GET_ITEM(args[0], i), (unsigned long long)now_ms,
                    (unsigned long long)deadline_ms, args[3]) ||
            !append(commands, &room)) {
            PyMem_Free(room.start);
            return irregular(commands);
        }
    }
    PyMem_Free(room.start);
    return commands;
}

static PyObject *Calls_complete(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    room_t room = {0};
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "complete takes answers and origins");
        return NULL;
    }
    if (!PyList_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
        return irregular(NULL);
    }
    PyObject *commands = PyList_New(0);
    for (Py_ssize_t i = 0; commands != NULL && i < PyList_GET_SIZE(args[0]); i++) {
        if (!complete((const Calls *)object, &room, PyList_GET_ITEM(args[0], i), args[1]) ||
            !append(commands, &room)) {
            PyMem_Free(room.start);
            return irregular(commands);
        }
    }
    PyMem_Free(room.start);
    return commands;
}

static int check_ends(PyObject *ends)
{
    PyObject *both;
    Py_ssize_t at = 0;
    while (PyDict_Next(ends, &at, NULL, &both)) {
        if (!PyTuple_CheckExact(both) || PyTuple_GET_SIZE(both) != 2 ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(both, 0)) || !PyBytes_CheckExact(PyTuple_GET_ITEM(both, 1))) {
            PyErr_SetString(PyExc_TypeError, "both ends of a key are bytes");
            return -1;
        }
    }
    return 0;
}

static PyObject *Calls_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Calls *self = (Calls *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->tables = Py_NewRef(args);
    if (!PyArg_ParseTuple(args, "SSSSO!LL", &self->arrive, &self->complete, &self->before, &self->after, &PyDict_Type,
                          &self->ends, &self->takeover_ms, &self->lifetime_s) ||
        check_ends(self->ends) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void Calls_dealloc(PyObject *object)
{
    Py_XDECREF(((Calls *)object)->tables);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef METHODS[] = {
    {"arrive", (PyCFunction)(void (*)(void))Calls_arrive, METH_FASTCALL, "The commands of arrivals, or None."},
    {"complete", (PyCFunction)(void (*)(void))Calls_complete, METH_FASTCALL,
     "The commands that answer claims, or None."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Calls_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cordon_intake.Calls",
    .tp_basicsize = sizeof(Calls),
    .tp_dealloc = Calls_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = METHODS,
    .tp_new = Calls_new,
};
