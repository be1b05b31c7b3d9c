/* Pseudonyms of a transaction's fields, and its keyed content: see features/event.py (identify),
 * features/pseudonym.py and api/work.py. */
#include "intake.h"

#include "blake2b.h"

#include <math.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    PyObject *tables;
    PyObject *entities;  /* ((name, fields, hash's beginning), ...) */
    PyObject *marks;     /* ((name, hash's beginning), ...) */
    PyObject *latitude;  /* None where there is none */
    PyObject *longitude;
    PyObject *place;     /* the name of its mark */
    PyObject *hidden;    /* ((name, entity or None, hash's beginning), ...) */
    PyObject *sorted;    /* ((name, '["name",'), ...) */
    PyObject *sealed;    /* ((name, '"name":'), ...) of the hidden ones */
    PyObject *encode;    /* JSON of a float */
    PyObject *identity;  /* types of what is made */
    PyObject *made;
    blake_start entity;
    blake_start mark;
    blake_start event;
    blake_start content;
} Identifier;

static int add_bytes(blake *hash, PyObject *bytes)
{
    blake_add(hash, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    return 0;
}

static int add_utf8(blake *hash, PyObject *text)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) {
        return -1;
    }
    blake_add(hash, utf8, (size_t)size);
    return 0;
}

/* A value as text: a string itself, a number as it is written. */
static int add_text(blake *hash, PyObject *value)
{
    if (PyUnicode_CheckExact(value)) {
        return add_utf8(hash, value);
    }
    if (!PyLong_CheckExact(value) && !PyFloat_CheckExact(value) && !PyBool_Check(value)) {
        return -1;
    }
    PyObject *text = PyObject_Repr(value);
    int failed = text == NULL ? -1 : add_utf8(hash, text);
    Py_XDECREF(text);
    return failed;
}

static PyObject *hexadecimal(const uint8_t *bytes, int size, int reversed)
{
    static const char DIGITS[] = "0123456789abcdef";
    PyObject *text = PyUnicode_New(2 * size, 127);
    if (text != NULL) {
        Py_UCS1 *to = PyUnicode_1BYTE_DATA(text);
        for (int i = 0; i < size; i++) {
            uint8_t byte = bytes[reversed ? size - 1 - i : i];
            to[2 * i] = (Py_UCS1)DIGITS[byte >> 4];
            to[2 * i + 1] = (Py_UCS1)DIGITS[byte & 15];
        }
    }
    return text;
}

static uint64_t number_of(blake *hash)
{
    uint8_t digest[16];
    uint64_t found = 0;
    blake_end(hash, digest);
    for (int i = 7; i >= 0; i--) {
        found = found << 8 | digest[i];
    }
    return found >> 1 | 1;
}

/* Takes the reference to `value`, which may be NULL. */
static int put(PyObject *into, PyObject *name, PyObject *value)
{
    int failed = value == NULL ? -1 : PyDict_SetItem(into, name, value);
    Py_XDECREF(value);
    return failed;
}

/* The field's value, borrowed; NULL where it is absent or None. */
static PyObject *present(PyObject *values, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(values, name);
    return value == Py_None ? NULL : value;
}

static int put_entities(const Identifier *self, PyObject *values, PyObject *entities)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->entities); i++) {
        PyObject *entity = PyTuple_GET_ITEM(self->entities, i), *fields = PyTuple_GET_ITEM(entity, 1);
        Py_ssize_t part = 0, parts = PyTuple_GET_SIZE(fields);
        blake hash;
        blake_begin(&hash, &self->entity);
        add_bytes(&hash, PyTuple_GET_ITEM(entity, 2));
        for (; part < parts; part++) {
            PyObject *value = present(values, PyTuple_GET_ITEM(fields, part));
            if (value == NULL) {
                if (PyErr_Occurred()) {
                    return -1;
                }
                break;
            }
            blake_add(&hash, "\x1f", 1);
            if (add_text(&hash, value) < 0) {
                return -1;
            }
        }
        if (part < parts) {
            continue;
        }
        uint8_t digest[16];
        blake_end(&hash, digest);
        if (put(entities, PyTuple_GET_ITEM(entity, 0), hexadecimal(digest, 16, 0)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The mark of a value under its field's name; 0 if it cannot be hashed. */
static uint64_t mark_of(const Identifier *self, PyObject *beginning, PyObject *value)
{
    blake hash;
    blake_begin(&hash, &self->mark);
    add_bytes(&hash, beginning);
    return add_text(&hash, value) < 0 ? 0 : number_of(&hash);
}

/* 1 with the coordinate, 0 where there is none, -1 for what Python is to look at. */
static int coordinate(PyObject *values, PyObject *name, double *found)
{
    PyObject *value = present(values, name);
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!PyFloat_CheckExact(value)) {
        return PyUnicode_CheckExact(value) ? 0 : -1;
    }
    *found = PyFloat_AS_DOUBLE(value);
    return isfinite(*found) ? 1 : -1;
}

static long cell(double degrees, long most)
{
    double place = degrees * 100.0 + 0.5;
    return place < 1 ? 0 : place >= (double)most ? most : (long)place;
}

static int put_place(const Identifier *self, PyObject *values, PyObject *marks)
{
    double latitude, longitude;
    if (self->latitude == Py_None || self->longitude == Py_None) {
        return 0;
    }
    int found = coordinate(values, self->latitude, &latitude);
    if (found == 1) {
        found = coordinate(values, self->longitude, &longitude);
    }
    if (found != 1) {
        return found;
    }
    long place = cell(latitude + 90.0, 18000) * 36001 + cell(longitude + 180.0, 36000) + 1;
    return put(marks, self->place, PyLong_FromLong(place));
}

static int put_marks(const Identifier *self, PyObject *values, PyObject *marks)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->marks); i++) {
        PyObject *name = PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->marks, i), 0);
        PyObject *value = present(values, name);
        if (value == NULL) {
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        uint64_t mark = mark_of(self, PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->marks, i), 1), value);
        if (mark == 0 || put(marks, name, PyLong_FromUnsignedLongLong(mark)) < 0) {
            return -1;
        }
    }
    return put_place(self, values, marks);
}

/* Replaces what must not be readable: in place, so that the order of the fields stays. */
static int hide(const Identifier *self, PyObject *shown, PyObject *entities)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->hidden); i++) {
        PyObject *row = PyTuple_GET_ITEM(self->hidden, i);
        PyObject *name = PyTuple_GET_ITEM(row, 0), *entity = PyTuple_GET_ITEM(row, 1);
        PyObject *value = present(shown, name), *pseudonym;
        if (value == NULL) {
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        if (entity != Py_None) {
            pseudonym = Py_XNewRef(PyDict_GetItemWithError(entities, entity));
        } else {
            uint64_t mark = mark_of(self, PyTuple_GET_ITEM(row, 2), value);
            uint8_t bytes[8];
            for (int at = 0; at < 8; at++) {
                bytes[at] = (uint8_t)(mark >> (8 * at));
            }
            pseudonym = mark == 0 ? NULL : hexadecimal(bytes, 8, 1);
        }
        if (put(shown, name, pseudonym) < 0) {
            return -1;
        }
    }
    return 0;
}

/* JSON in the making; on the stack as long as it is short. */
typedef struct {
    char *at;
    size_t size;
    size_t room;
    char small[2048];
} text_t;

static void drop(text_t *text)
{
    if (text->at != text->small) {
        PyMem_Free(text->at);
    }
}

static int append(text_t *text, const char *from, size_t size)
{
    if (size > text->room - text->size) {
        size_t room = 2 * (text->size + size);
        char *at = PyMem_Malloc(room);
        if (at == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(at, text->at, text->size);
        drop(text);
        text->at = at;
        text->room = room;
    }
    memcpy(text->at + text->size, from, size);
    text->size += size;
    return 0;
}

static int write_bytes(text_t *text, PyObject *bytes)
{
    return append(text, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int write_string(text_t *text, PyObject *value)
{
    Py_ssize_t size, from = 0;
    const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size);
    if (utf8 == NULL || append(text, "\"", 1) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)utf8[i];
        if (c < 0x20 || c == 0x7f) {
            return -1;
        }
        if (c == '"' || c == '\\') {
            if (append(text, utf8 + from, (size_t)(i - from)) < 0 || append(text, "\\", 1) < 0) {
                return -1;
            }
            from = i;
        }
    }
    return append(text, utf8 + from, (size_t)(size - from)) < 0 ? -1 : append(text, "\"", 1);
}

static int write_value(const Identifier *self, text_t *text, PyObject *value)
{
    if (PyUnicode_CheckExact(value)) {
        return write_string(text, value);
    }
    if (PyBool_Check(value)) {
        return value == Py_True ? append(text, "true", 4) : append(text, "false", 5);
    }
    long long number;
    if (whole(value, &number)) {
        char digits[24];
        return append(text, digits, (size_t)snprintf(digits, sizeof digits, "%lld", number));
    }
    if (!PyFloat_CheckExact(value)) {
        return -1;
    }
    PyObject *bytes = PyObject_CallOneArg(self->encode, value);
    int failed = bytes == NULL || !PyBytes_CheckExact(bytes) ? -1 : write_bytes(text, bytes);
    Py_XDECREF(bytes);
    return failed;
}

/* Those of the fields that there are, each with `after` behind its value; how many, or -1. */
static Py_ssize_t write_fields(const Identifier *self, text_t *text, PyObject *fields, PyObject *values,
                               const char *after)
{
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        PyObject *row = PyTuple_GET_ITEM(fields, i);
        PyObject *value = PyDict_GetItemWithError(values, PyTuple_GET_ITEM(row, 0));
        if (value == NULL) {
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        if ((found > 0 && append(text, ",", 1) < 0) || write_bytes(text, PyTuple_GET_ITEM(row, 1)) < 0 ||
            write_value(self, text, value) < 0 || append(text, after, strlen(after)) < 0) {
            return -1;
        }
        found++;
    }
    return found;
}

/* Digest of `[time_ms,original,[["name",value],...]]`, the names sorted. */
static PyObject *content_of(const Identifier *self, PyObject *time_ms, PyObject *original, PyObject *values)
{
    text_t text = {.at = text.small, .room = sizeof text.small};
    PyObject *found = NULL;
    if (append(&text, "[", 1) == 0 && write_value(self, &text, time_ms) == 0 && append(&text, ",", 1) == 0 &&
        (original == Py_None ? append(&text, "null", 4) : write_value(self, &text, original)) == 0 &&
        append(&text, ",[", 2) == 0 &&
        write_fields(self, &text, self->sorted, values, "]") == PyDict_GET_SIZE(values) &&
        append(&text, "]]", 2) == 0) {
        blake hash;
        uint8_t digest[16];
        blake_begin(&hash, &self->content);
        blake_add(&hash, text.at, text.size);
        blake_end(&hash, digest);
        found = PyBytes_FromStringAndSize((const char *)digest, 16);
    }
    drop(&text);
    return found;
}

/* `{"name":value,...}` of the hidden fields, in the schema's order. */
static PyObject *plain_of(const Identifier *self, PyObject *values)
{
    text_t text = {.at = text.small, .room = sizeof text.small};
    PyObject *found = NULL;
    if (append(&text, "{", 1) == 0 && write_fields(self, &text, self->sealed, values, "") >= 0 &&
        append(&text, "}", 1) == 0) {
        found = PyBytes_FromStringAndSize(text.at, (Py_ssize_t)text.size);
    }
    drop(&text);
    return found;
}

static PyObject *Identifier_identify(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Identifier *self = (const Identifier *)object;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "identify takes time_ms, original_amount and values");
        return NULL;
    }
    PyObject *values = args[2], *content = NULL, *plain = NULL, *shown = NULL, *identity = NULL, *found = NULL;
    if (!PyDict_CheckExact(values)) {
        return irregular(NULL);
    }
    PyObject *entities = PyDict_New(), *marks = PyDict_New();
    if (entities != NULL && marks != NULL && put_entities(self, values, entities) == 0 &&
        put_marks(self, values, marks) == 0) {
        content = content_of(self, args[0], args[1], values);
        plain = content == NULL ? NULL : plain_of(self, values);
        shown = plain == NULL ? NULL : PyDict_Copy(values);
        if (shown != NULL && hide(self, shown, entities) == 0) {
            identity = named(self->identity, PyTuple_Pack(2, entities, marks));
            found = identity == NULL ? NULL : named(self->made, PyTuple_Pack(4, identity, shown, content, plain));
        }
    }
    Py_XDECREF(identity);
    Py_XDECREF(plain);
    Py_XDECREF(entities);
    Py_XDECREF(marks);
    Py_XDECREF(shown);
    Py_XDECREF(content);
    return found == NULL ? irregular(NULL) : found;
}

static PyObject *Identifier_event(PyObject *object, PyObject *text)
{
    blake hash;
    if (!PyUnicode_CheckExact(text)) {
        return irregular(NULL);
    }
    blake_begin(&hash, &((const Identifier *)object)->event);
    return add_utf8(&hash, text) < 0 ? irregular(NULL) : PyLong_FromUnsignedLongLong(number_of(&hash));
}

static PyObject *Identifier_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    const char *secret;
    Py_ssize_t size;
    Identifier *self = (Identifier *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->tables = Py_NewRef(args);
    if (!PyArg_ParseTuple(args, "O!O!OOO!O!O!O!y#OOO", &PyTuple_Type, &self->entities, &PyTuple_Type, &self->marks,
                          &self->latitude, &self->longitude, &PyUnicode_Type, &self->place, &PyTuple_Type,
                          &self->hidden, &PyTuple_Type, &self->sorted, &PyTuple_Type, &self->sealed, &secret,
                          &size, &self->encode, &self->identity, &self->made)) {
        Py_DECREF(self);
        return NULL;
    }
    if (size < 1 || size > BLAKE_KEY_MAX) {
        PyErr_SetString(PyExc_ValueError, "a secret has 1 to 64 bytes");
        Py_DECREF(self);
        return NULL;
    }
    blake_prepare(&self->entity, 16, (const uint8_t *)secret, (size_t)size, "entity");
    blake_prepare(&self->mark, 8, (const uint8_t *)secret, (size_t)size, "mark");
    blake_prepare(&self->event, 8, (const uint8_t *)secret, (size_t)size, "event");
    blake_prepare(&self->content, 16, (const uint8_t *)secret, (size_t)size, "content");
    return (PyObject *)self;
}

static void Identifier_dealloc(PyObject *object)
{
    Py_XDECREF(((Identifier *)object)->tables);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef METHODS[] = {
    {"identify", (PyCFunction)(void (*)(void))Identifier_identify, METH_FASTCALL,
     "What a transaction is beyond the door, or None."},
    {"event", Identifier_event, METH_O, "Keyed number of an event's key, or None."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Identifier_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cordon_intake.Identifier",
    .tp_basicsize = sizeof(Identifier),
    .tp_dealloc = Identifier_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = METHODS,
    .tp_new = Identifier_new,
};
