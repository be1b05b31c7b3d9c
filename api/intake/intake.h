/* The stages of the intake, each a type whose objects are tables made by api/intake/tables.py.
 *
 * A stage handles what is plainly regular. For anything else it returns None, and Python, which is the
 * reference, does the same and raises what is to be raised. Tables are tuples that a stage keeps; what it points
 * to in them is borrowed. No stage runs Python code while it walks a dictionary. */
#ifndef CORDON_INTAKE_H
#define CORDON_INTAKE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000 || defined(Py_GIL_DISABLED)
#error "made for CPython 3.12 and later, with its lock"
#endif

#include <stdint.h>

extern PyTypeObject Parser_Type;
extern PyTypeObject Identifier_Type;
extern PyTypeObject Observer_Type;
extern PyTypeObject Calls_Type;

/* None, for what is not plainly regular; out of memory is an error all the same. Drops `made`. */
PyObject *irregular(PyObject *made);

/* Whether it is an int (no bool) that fits. */
int whole(PyObject *value, long long *found);

enum { DIGITS_MAX = 20 };

/* Writes the number; behind its last digit. */
char *decimal(char *at, unsigned long long number);

/* An instance of a subclass of tuple; takes the reference to `plain`, an exact tuple or NULL. */
PyObject *named(PyObject *type, PyObject *plain);

PyObject *order(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
