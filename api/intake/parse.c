/* A transaction's decoded JSON: see features/event.py, parse_transaction. */
#include "intake.h"

#include <math.h>

enum { TEXT, CATEGORY, BOOLEAN, WHOLE, NUMBER };
enum { FIELDS_MAX = 256, CARD_MIN = 13, CARD_MAX = 19 };
static const double NUMBER_MAX = 1e15;

typedef struct {
    int kind;
    int required;
    Py_ssize_t length_max;
    PyObject *accepted; /* of a category */
    long long low;
    long long high;
    double least;
    double most;
} field_t;

typedef struct {
    PyObject_HEAD
    PyObject *tables;
    PyObject *id;
    PyObject *time;
    PyObject *ignored; /* set of names */
    PyObject *by_name; /* place among the fields, by name */
    PyObject *amount;  /* NULL where amounts are not converted */
    PyObject *currency;
    PyObject *ratios; /* (numerator, denominator) by currency */
    PyObject *made;
    Py_ssize_t id_length_max;
    long long time_max;
    long long amount_max;
    Py_ssize_t fields;
    field_t field[FIELDS_MAX];
} Parser;

static int luhn(const uint8_t *digits, int count)
{
    int sum = 0;
    for (int i = 0; i < count; i++) {
        int digit = digits[count - 1 - i] * (1 + (i & 1));
        sum += digit > 9 ? digit - 9 : digit;
    }
    return sum % 10 == 0;
}

/* Whether a card's number may be in it: every one that Python finds, and a few that it takes for none. */
static int may_hold_card(int kind, const void *data, Py_ssize_t length)
{
    uint8_t digits[CARD_MAX];
    int count = 0, parted = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c >= '0' && c <= '9') {
            if (count == CARD_MAX) {
                if (luhn(digits, count)) {
                    return 1;
                }
                count = 0;
            }
            digits[count++] = (uint8_t)(c - '0');
            parted = 0;
        } else if ((c == ' ' || c == '-') && count > 0 && !parted) {
            parted = 1;
        } else {
            if (count >= CARD_MIN && luhn(digits, count)) {
                return 1;
            }
            count = parted = 0;
        }
    }
    return count >= CARD_MIN && luhn(digits, count);
}

static int plain_text(PyObject *text, Py_ssize_t length_max)
{
    if (!PyUnicode_CheckExact(text)) {
        return 0;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    if (length < 1 || length > length_max) {
        return 0;
    }
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c < 0x20 || c == 0x7f || (c >= 0xd800 && c <= 0xdfff) || (c > 0x7f && Py_UNICODE_ISDECIMAL(c))) {
            return 0;
        }
    }
    return length < CARD_MIN || !may_hold_card(kind, data, length);
}

/* The value as it is kept, a new reference; NULL, with or without an error, where it is not plainly valid. */
static PyObject *kept(const field_t *field, PyObject *value)
{
    long long number;
    double real;
    switch (field->kind) {
    case TEXT:
        return plain_text(value, field->length_max) ? Py_NewRef(value) : NULL;
    case CATEGORY:
        return PyUnicode_CheckExact(value) && PySet_Contains(field->accepted, value) == 1 ? Py_NewRef(value)
                                                                                         : NULL;
    case BOOLEAN:
        return PyBool_Check(value) ? Py_NewRef(value) : NULL;
    case WHOLE:
        return whole(value, &number) && number >= field->low && number <= field->high ? Py_NewRef(value) : NULL;
    default:
        if (PyFloat_CheckExact(value)) {
            real = PyFloat_AS_DOUBLE(value);
        } else if (whole(value, &number) && number <= (long long)NUMBER_MAX && number >= -(long long)NUMBER_MAX) {
            real = (double)number;
        } else {
            return NULL;
        }
        if (!(fabs(real) <= NUMBER_MAX && real >= field->least && real <= field->most)) {
            return NULL;
        }
        return PyFloat_CheckExact(value) ? Py_NewRef(value) : PyFloat_FromDouble(real);
    }
}

/* Base minor units, rounded half to even; -1 where Python is to say. */
static long long converted(const Parser *self, PyObject *amount, PyObject *currency)
{
    long long units, numerator, denominator;
    PyObject *ratio = PyDict_GetItemWithError(self->ratios, currency);
    if (ratio == NULL || !whole(amount, &units) || units < 0 || !whole(PyTuple_GET_ITEM(ratio, 0), &numerator) ||
        !whole(PyTuple_GET_ITEM(ratio, 1), &denominator)) {
        return -1;
    }
    unsigned __int128 product = (unsigned __int128)units * (unsigned __int128)numerator;
    unsigned __int128 quotient = product / (unsigned __int128)denominator;
    unsigned __int128 twice = 2 * (product % (unsigned __int128)denominator);
    if (quotient > (unsigned __int128)self->amount_max) {
        return -1;
    }
    long long found = (long long)quotient;
    found += twice > (unsigned __int128)denominator || (twice == (unsigned __int128)denominator && (found & 1));
    return found <= self->amount_max ? found : -1;
}

/* Puts the converted amount into the values; the original one, borrowed from `body`, or NULL for irregular. */
static PyObject *convert(const Parser *self, PyObject *values)
{
    PyObject *original = PyDict_GetItemWithError(values, self->amount);
    if (original == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *currency = PyDict_GetItemWithError(values, self->currency);
    long long base = currency == NULL ? -1 : converted(self, original, currency);
    PyObject *number = base < 0 ? NULL : PyLong_FromLongLong(base);
    if (number == NULL) {
        return NULL;
    }
    Py_INCREF(original);
    int failed = PyDict_SetItem(values, self->amount, number);
    Py_DECREF(number);
    if (failed) {
        Py_CLEAR(original);
    }
    return original;
}

/* 0, or -1 where it is not plainly valid. */
static int fill(const Parser *self, PyObject *body, PyObject *values)
{
    uint8_t seen[FIELDS_MAX] = {0};
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(body, &at, &key, &value)) {
        if (!PyUnicode_CheckExact(key)) {
            return -1;
        }
        PyObject *place = PyDict_GetItemWithError(self->by_name, key);
        if (place == NULL) {
            if (PyErr_Occurred() || PySet_Contains(self->ignored, key) != 1) {
                return -1;
            }
            continue;
        }
        if (value == Py_None) {
            continue;
        }
        long number = PyLong_AsLong(place);
        PyObject *found = kept(&self->field[number], value);
        if (found == NULL) {
            return -1;
        }
        int failed = PyDict_SetItem(values, key, found);
        Py_DECREF(found);
        if (failed) {
            return -1;
        }
        seen[number] = 1;
    }
    for (Py_ssize_t i = 0; i < self->fields; i++) {
        if (self->field[i].required && !seen[i]) {
            return -1;
        }
    }
    return 0;
}

static PyObject *Parser_parse(PyObject *object, PyObject *body)
{
    const Parser *self = (const Parser *)object;
    long long time_ms;
    if (!PyDict_CheckExact(body)) {
        return irregular(NULL);
    }
    PyObject *id = PyDict_GetItemWithError(body, self->id);
    PyObject *time = id == NULL ? NULL : PyDict_GetItemWithError(body, self->time);
    if (time == NULL || !plain_text(id, self->id_length_max) || !whole(time, &time_ms) || time_ms < 1 ||
        time_ms > self->time_max) {
        return irregular(NULL);
    }
    PyObject *values = PyDict_New();
    if (values == NULL || fill(self, body, values) < 0) {
        return irregular(values);
    }
    PyObject *original = self->amount == NULL ? Py_NewRef(Py_None) : convert(self, values);
    if (original == NULL) {
        return irregular(values);
    }
    PyObject *plain = PyTuple_Pack(4, id, time, values, original);
    Py_DECREF(values);
    Py_DECREF(original);
    return named(self->made, plain);
}

static int read_fields(Parser *self, PyObject *fields)
{
    self->fields = PyTuple_GET_SIZE(fields);
    if (self->fields > FIELDS_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many fields");
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->fields; i++) {
        field_t *field = &self->field[i];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(fields, i), "ipnO!LLdd", &field->kind, &field->required,
                              &field->length_max, &PyFrozenSet_Type, &field->accepted, &field->low, &field->high,
                              &field->least, &field->most)) {
            return -1;
        }
    }
    return 0;
}

static PyObject *Parser_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *fields, *amount, *currency;
    Parser *self = (Parser *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->tables = Py_NewRef(args);
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!OOO!OnLL", &PyUnicode_Type, &self->id, &PyUnicode_Type, &self->time,
                          &PyFrozenSet_Type, &self->ignored, &PyDict_Type, &self->by_name, &PyTuple_Type, &fields,
                          &amount, &currency, &PyDict_Type, &self->ratios, &self->made, &self->id_length_max,
                          &self->time_max, &self->amount_max) ||
        read_fields(self, fields) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->amount = amount == Py_None ? NULL : amount;
    self->currency = currency;
    return (PyObject *)self;
}

static void Parser_dealloc(PyObject *object)
{
    Py_XDECREF(((Parser *)object)->tables);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef METHODS[] = {
    {"parse", Parser_parse, METH_O, "A transaction, or None for what Python is to look at."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Parser_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cordon_intake.Parser",
    .tp_basicsize = sizeof(Parser),
    .tp_dealloc = Parser_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = METHODS,
    .tp_new = Parser_new,
};
