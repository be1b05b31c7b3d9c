#include "intake.h"

PyObject *irregular(PyObject *made)
{
    Py_XDECREF(made);
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

int whole(PyObject *value, long long *found)
{
    int overflow;
    if (!PyLong_CheckExact(value)) {
        return 0;
    }
    *found = PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow;
}

char *decimal(char *at, unsigned long long number)
{
    char reversed[DIGITS_MAX];
    int count = 0;
    do {
        reversed[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0) {
        *at++ = reversed[--count];
    }
    return at;
}

PyObject *named(PyObject *type, PyObject *plain)
{
    PyObject *args = plain == NULL ? NULL : PyTuple_Pack(1, plain);
    Py_XDECREF(plain);
    if (args == NULL) {
        return NULL;
    }
    PyObject *made = PyTuple_Type.tp_new((PyTypeObject *)type, args, NULL);
    Py_DECREF(args);
    return made;
}

static PyMethodDef FUNCTIONS[] = {
    {"order", (PyCFunction)(void (*)(void))order, METH_FASTCALL, "Running numbers, as JSON."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cordon_intake",
    .m_doc = "Stages of the intake, compiled.",
    .m_size = -1,
    .m_methods = FUNCTIONS,
};

PyMODINIT_FUNC PyInit_cordon_intake(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module != NULL && (PyModule_AddType(module, &Parser_Type) < 0 ||
                           PyModule_AddType(module, &Identifier_Type) < 0 ||
                           PyModule_AddType(module, &Observer_Type) < 0 ||
                           PyModule_AddType(module, &Calls_Type) < 0)) {
        Py_CLEAR(module);
    }
    return module;
}
