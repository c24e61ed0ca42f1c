/* With Py_LIMITED_API (one binary for every Python from 3.11 on) the macros that look into objects are calls. */

#ifndef KVSTORE_LIMITED_H
#define KVSTORE_LIMITED_H

#ifdef Py_LIMITED_API

#define PyBytes_AS_STRING(bytes) PyBytes_AsString(bytes)
#define PyBytes_GET_SIZE(bytes) PyBytes_Size(bytes)
#define PyTuple_GET_ITEM(tuple, at) PyTuple_GetItem(tuple, at)
#define PyTuple_GET_SIZE(tuple) PyTuple_Size(tuple)
#define PyTuple_SET_ITEM(tuple, at, item) (void)PyTuple_SetItem(tuple, at, item)
#define PyList_GET_ITEM(list, at) PyList_GetItem(list, at)
#define PyList_GET_SIZE(list) PyList_Size(list)
#define PyList_SET_ITEM(list, at, item) (void)PyList_SetItem(list, at, item)

static inline PyObject *vectorcall(PyObject *function, PyObject *const *arguments, size_t count, PyObject *names) {
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    PyObject *positional = PyTuple_New((Py_ssize_t)count), *keywords = named ? PyDict_New() : NULL, *result = NULL;
    if (positional == NULL || (named && keywords == NULL)) goto done;
    for (size_t at = 0; at < count; at++)
        PyTuple_SetItem(positional, (Py_ssize_t)at, Py_NewRef(arguments[at]));
    for (Py_ssize_t at = 0; at < named; at++)
        if (PyDict_SetItem(keywords, PyTuple_GetItem(names, at), arguments[(Py_ssize_t)count + at]) < 0) goto done;
    result = PyObject_Call(function, positional, keywords);
done:
    Py_XDECREF(positional);
    Py_XDECREF(keywords);
    return result;
}
#define PyObject_Vectorcall vectorcall

#endif
#endif
