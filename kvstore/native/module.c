/* kvstore._native: functions of kvstore once more, in C.

       bind(name, function)              the native function of that name, which asks ``function`` about anything that is
                                         out of the ordinary (native.h)
       key_value_class(encode_key_value, decode_row, split_row, show)
       names()                           of all native functions
       crc32c_with(way, data, value)     the checksum by one of the ways of computing it (crc32c.c); for tests

   Nothing here opens, reads, writes or locks anything. Which functions are used, kvstore/implementation.py says. */

#include "native.h"

static PyMethodDef *const tables[] = {row_functions, log_functions, change_functions, frame_functions, message_functions};
#define TABLES (sizeof tables / sizeof *tables)

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *arguments) {
    const char *name;
    PyObject *function;
    if (!PyArg_ParseTuple(arguments, "sO", &name, &function)) return NULL;
    for (size_t table = 0; table < TABLES; table++)
        for (PyMethodDef *found = tables[table]; found->ml_name != NULL; found++)
            if (strcmp(found->ml_name, name) == 0) return PyCFunction_NewEx(found, function, NULL);
    PyErr_Format(PyExc_LookupError, "there is no native function %s", name);
    return NULL;
}

static PyObject *names(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    PyObject *found = PyList_New(0);
    for (size_t table = 0; table < TABLES; table++)
        for (PyMethodDef *each = tables[table]; found != NULL && each->ml_name != NULL; each++) {
            PyObject *name = PyUnicode_FromString(each->ml_name);
            if (name == NULL || PyList_Append(found, name) < 0) Py_CLEAR(found);
            Py_XDECREF(name);
        }
    return found;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_VARARGS, NULL},
    {"key_value_class", key_value_class, METH_VARARGS, NULL},
    {"names", names, METH_NOARGS, NULL},
    {"crc32c_with", crc32c_with, METH_VARARGS, NULL},
    END_OF_FUNCTIONS,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "kvstore._native", NULL, -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModule_Create(&module);
}
