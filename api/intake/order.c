#include "intake.h"

#include <string.h>

enum { ROOM = 4096 };

/* order(targets, numbers, known): an object as JSON that has, of each entity that was observed, `known[entity]`, its
 * number and a closing bracket (api/phrases.py). */
PyObject *order(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char room[ROOM], *at = room;
    if (count != 3 || !PyTuple_CheckExact(args[0]) || !PyTuple_CheckExact(args[1]) ||
        !PyDict_CheckExact(args[2]) || PyTuple_GET_SIZE(args[0]) != PyTuple_GET_SIZE(args[1])) {
        return irregular(NULL);
    }
    *at++ = '{';
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); i++) {
        PyObject *target = PyTuple_GET_ITEM(args[0], i);
        long long number;
        if (!PyTuple_Check(target) || PyTuple_GET_SIZE(target) < 1 ||
            !whole(PyTuple_GET_ITEM(args[1], i), &number) || number < 0) {
            return irregular(NULL);
        }
        if (number == 0) {
            continue;
        }
        PyObject *before = PyDict_GetItemWithError(args[2], PyTuple_GET_ITEM(target, 0));
        if (before == NULL || !PyBytes_CheckExact(before)) {
            return irregular(NULL);
        }
        size_t size = (size_t)PyBytes_GET_SIZE(before);
        if (size + DIGITS_MAX + 3 > (size_t)(room + ROOM - at)) {
            return irregular(NULL);
        }
        if (at != room + 1) {
            *at++ = ',';
        }
        memcpy(at, PyBytes_AS_STRING(before), size);
        at = decimal(at + size, (unsigned long long)number);
        *at++ = ']';
    }
    *at++ = '}';
    return PyBytes_FromStringAndSize(room, at - room);
}
