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

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cordon_intake",
    .m_doc = "Stages of the intake, compiled.",
    .m_size = -1,
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
