/* What the files of this module share: the way back to Python, and numbers and bytes as the store knows them.

   A native function knows what the store writes and reads every day. Whatever else it is given (another type, a number
   beyond 64 bits, damaged bytes) it hands to the Python function that it stands in for, which answers or raises:

       caller --> native function --> answer
                        '--> anything out of the ordinary --> its Python function --> answer or error

   So there is one home for every error, and no answer here that is not Python's. The Python function is the ``self`` of
   the native one (module.c, ``bind``). A native function hands over before it has changed anything. */

#ifndef KVSTORE_NATIVE_H
#define KVSTORE_NATIVE_H

/* No format of Py_BuildValue or PyArg_ParseTuple has a "#": built with the headers of Python 3.13, which is then said
   to fit every version from 3.11 on, those fail before 3.13. */
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "limited.h"

/* The arguments of every function here, as METH_FASTCALL | METH_KEYWORDS passes them. */
#define ARGUMENTS PyObject *python, PyObject *const *arguments, Py_ssize_t count, PyObject *names

/* Ask the Python function. */
#define ASK_PYTHON PyObject_Vectorcall(python, arguments, (size_t)count, names)

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS, NULL}
#define END_OF_FUNCTIONS {NULL, NULL, 0, NULL}

/* Whether there are this many arguments, none of them by name. */
#define ARE_POSITIONAL(expected) (count == (expected) && names == NULL)

/* An int of 64 bits with its sign. False, with no exception set, for anything else (bool is something else). */
static inline int take_int(PyObject *object, int64_t *value) {
    int overflow;
    if (!PyLong_CheckExact(object)) return 0;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow;
}

/* The same, not negative. */
static inline int take_size(PyObject *object, uint64_t *value) {
    int64_t number;
    if (!take_int(object, &number) || number < 0) return 0;
    *value = (uint64_t)number;
    return 1;
}

static inline const uint8_t *bytes_of(PyObject *bytes) {
    return (const uint8_t *)PyBytes_AS_STRING(bytes);
}

static inline PyObject *bytes_from(const uint8_t *at, Py_ssize_t size) {
    return PyBytes_FromStringAndSize((const char *)at, size);
}

/* Set an item of a new tuple. False, with an exception set, if there is no item: whatever was to make it has failed. */
static inline int fill(PyObject *tuple, Py_ssize_t at, PyObject *item) {
    if (item == NULL) return 0;
    PyTuple_SET_ITEM(tuple, at, item);
    return 1;
}

/* A pair of two new objects. */
static inline PyObject *pair(PyObject *first, PyObject *second) {
    PyObject *made = first != NULL && second != NULL ? PyTuple_New(2) : NULL;
    if (made == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    PyTuple_SET_ITEM(made, 0, first);
    PyTuple_SET_ITEM(made, 1, second);
    return made;
}

extern PyMethodDef row_functions[];
extern PyMethodDef log_functions[];
extern PyMethodDef change_functions[];
extern PyMethodDef frame_functions[];
extern PyMethodDef message_functions[];

PyObject *key_value_class(PyObject *module, PyObject *arguments);
PyObject *crc32c_with(PyObject *module, PyObject *arguments);

#endif
