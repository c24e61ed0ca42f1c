/* The class KeyValue (keyvalue.py): a row, and fields that are read from it each time they are asked for.

       object   header | row ---> bytes object of the row

   Nothing else is kept: to find a field takes less than to look up whether it was found before. What only Python can say
   of a row (parse_row was false) is asked of the functions that the class was given (``key_value_class``).

   An object without a row exists only between ``__new__`` and ``__init__``. The garbage collector does not look at these
   objects, as a row refers to nothing. */

#include "native.h"

#include <structmember.h>

#include "row.h"

typedef struct {
    PyObject_HEAD PyObject *row;
} KeyValue;

enum field { KEY, CREATE_REVISION, MOD_REVISION, VERSION, VALUE, LEASE };

static PyTypeObject *key_value_type;
static PyObject *python_encode, *python_decode, *python_split, *python_show;

static PyObject *make(PyTypeObject *type, PyObject *row) {
    KeyValue *made = (KeyValue *)PyType_GenericAlloc(type, 0);
    if (made != NULL) made->row = Py_XNewRef(row);
    return (PyObject *)made;
}

static void drop(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_CLEAR(((KeyValue *)self)->row);
    free_object(self);
    Py_DECREF(type);
}

/* A new reference to the row. */
static PyObject *row_of(PyObject *self) {
    PyObject *row = ((KeyValue *)self)->row;
    if (row == NULL) PyErr_SetString(PyExc_AttributeError, "this KeyValue has not been initialized");
    return Py_XNewRef(row);
}

/* What a Python function says of the row. */
static PyObject *ask_of_row(PyObject *self, PyObject *function) {
    PyObject *row = row_of(self), *answer;
    if (row == NULL) return NULL;
    answer = PyObject_CallFunctionObjArgs(function, row, NULL);
    Py_DECREF(row);
    return answer;
}

static PyObject *ask_item_of_row(PyObject *self, PyObject *function, Py_ssize_t at) {
    PyObject *answer = ask_of_row(self, function), *item;
    if (answer == NULL) return NULL;
    item = PySequence_GetItem(answer, at);
    Py_DECREF(answer);
    return item;
}

/* Take its row apart, if that is as written. It points into the row: use it before anything else. */
static int parse_own(PyObject *self, struct row *row) {
    PyObject *bytes = ((KeyValue *)self)->row;
    return bytes != NULL && parse_row_object(bytes, row);
}

/* --- making --- */

static PyObject *from_row(PyObject *Py_UNUSED(none), PyObject *row) {
    return make(key_value_type, row);
}

static PyObject *from_rows(PyObject *Py_UNUSED(none), PyObject *rows) {
    PyObject *function = PyObject_GetAttrString((PyObject *)key_value_type, "from_row"), *made;
    if (function == NULL) return NULL;
    made = PyObject_CallFunctionObjArgs((PyObject *)&PyMap_Type, function, rows, NULL);
    Py_DECREF(function);
    return made;
}

static PyObject *decoded(PyObject *Py_UNUSED(none), PyObject *row) {
    struct row parsed;
    if (!parse_row_object(row, &parsed)) {
        PyObject *fields = PyObject_CallFunctionObjArgs(python_decode, row, NULL);
        if (fields == NULL) return NULL;
        Py_DECREF(fields);
    }
    return make(key_value_type, row);
}

static PyObject *new_object(PyTypeObject *type, PyObject *Py_UNUSED(arguments), PyObject *Py_UNUSED(names)) {
    return make(type, NULL);
}

/* KeyValue(key, value, create_revision, mod_revision, version, lease) */
static int initialize(PyObject *self, PyObject *arguments, PyObject *named) {
    static char *names[] = {"key", "value", "create_revision", "mod_revision", "version", "lease", NULL};
    PyObject *key = NULL, *value = NULL, *created = NULL, *modified = NULL, *version = NULL, *lease = NULL, *row;
    PyObject *none = PyBytes_FromStringAndSize("", 0), *zero = PyLong_FromLong(0), *before;
    if (none == NULL || zero == NULL ||
        !PyArg_ParseTupleAndKeywords(arguments, named, "|OOOOOO:KeyValue", names, &key, &value, &created, &modified,
                                     &version, &lease))
        row = NULL;
    else
        row = PyObject_CallFunctionObjArgs(python_encode, key ? key : none, created ? created : zero,
                                           modified ? modified : zero, version ? version : zero,
                                           value ? value : none, lease ? lease : zero, NULL);
    Py_XDECREF(none);
    Py_XDECREF(zero);
    if (row == NULL) return -1;
    before = ((KeyValue *)self)->row;
    ((KeyValue *)self)->row = row;
    Py_XDECREF(before);
    return 0;
}

/* --- fields --- */

static PyObject *get_field(PyObject *self, void *which) {
    struct row row;
    if (parse_own(self, &row)) switch ((enum field)(intptr_t)which) {
        case KEY: return bytes_from(row.key, row.key_bytes);
        case VALUE: return bytes_from(row.value, row.value_bytes);
        case CREATE_REVISION: return PyLong_FromLongLong(row.create_revision);
        case MOD_REVISION: return PyLong_FromLongLong(row.mod_revision);
        case VERSION: return PyLong_FromLongLong(row.version);
        case LEASE: return PyLong_FromLongLong(row.lease);
        }
    return ask_item_of_row(self, python_decode, (Py_ssize_t)(intptr_t)which);
}

static PyObject *to_protobuf(PyObject *self, PyObject *Py_UNUSED(none)) {
    return ask_item_of_row(self, python_split, 1);
}

/* Nothing can be set or deleted. */
static int refuse_setting(PyObject *Py_UNUSED(self), PyObject *name, PyObject *Py_UNUSED(value)) {
    PyErr_Format(PyExc_AttributeError, "KeyValue is immutable: %U", name);
    return -1;
}

/* --- as an object --- */

static PyObject *compare_fields(PyObject *self, PyObject *other, int how) {
    PyObject *mine = ask_of_row(self, python_decode), *answer = NULL;
    PyObject *theirs = mine == NULL ? NULL : ask_of_row(other, python_decode);
    if (theirs != NULL) answer = PyObject_RichCompare(mine, theirs, how);
    Py_XDECREF(mine);
    Py_XDECREF(theirs);
    return answer;
}

static PyObject *compare(PyObject *self, PyObject *other, int how) {
    PyObject *mine, *theirs;
    int is_same = -1;
    if ((how != Py_EQ && how != Py_NE) || !PyObject_TypeCheck(other, key_value_type)) Py_RETURN_NOTIMPLEMENTED;
    mine = row_of(self);
    theirs = mine == NULL ? NULL : row_of(other);
    if (theirs != NULL) is_same = PyObject_RichCompareBool(mine, theirs, Py_EQ);
    Py_XDECREF(mine);
    Py_XDECREF(theirs);
    if (is_same < 0) return NULL;
    return is_same ? PyBool_FromLong(how == Py_EQ) : compare_fields(self, other, how);
}

static Py_hash_t hash(PyObject *self) {
    PyObject *fields = ask_of_row(self, python_decode);
    Py_hash_t value = fields == NULL ? -1 : PyObject_Hash(fields);
    Py_XDECREF(fields);
    return value;
}

static PyObject *show(PyObject *self) {
    return PyObject_CallFunctionObjArgs(python_show, self, NULL);
}

static PyObject *reduce(PyObject *self, PyObject *Py_UNUSED(none)) {
    PyObject *row = row_of(self), *function;
    if (row == NULL) return NULL;
    function = PyObject_GetAttrString((PyObject *)key_value_type, "from_row");
    if (function == NULL) Py_CLEAR(row);
    return function == NULL ? NULL : Py_BuildValue("(N(N))", function, row);
}

static PyGetSetDef fields[] = {
    {"key", get_field, NULL, NULL, (void *)KEY},
    {"value", get_field, NULL, NULL, (void *)VALUE},
    {"create_revision", get_field, NULL, NULL, (void *)CREATE_REVISION},
    {"mod_revision", get_field, NULL, NULL, (void *)MOD_REVISION},
    {"version", get_field, NULL, NULL, (void *)VERSION},
    {"lease", get_field, NULL, NULL, (void *)LEASE},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"row", T_OBJECT_EX, offsetof(KeyValue, row), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"from_row", from_row, METH_O | METH_STATIC, "Wrap a stored row; nothing is decoded yet."},
    {"from_rows", from_rows, METH_O | METH_STATIC, "``from_row`` of each, when it is used."},
    {"decoded", decoded, METH_O | METH_STATIC, "Wrap a stored row and decode it at once. Raises ``BadRow``."},
    {"to_protobuf", to_protobuf, METH_NOARGS, "The ``mvccpb.KeyValue`` message."},
    {"__reduce__", reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new_object}, {Py_tp_init, initialize},   {Py_tp_dealloc, drop},
    {Py_tp_getset, fields},  {Py_tp_members, members},   {Py_tp_methods, methods},
    {Py_tp_hash, hash},      {Py_tp_richcompare, compare}, {Py_tp_repr, show},
    {Py_tp_setattro, refuse_setting}, {0, NULL},
};

static PyType_Spec spec = {
    "kvstore.keyvalue.KeyValue", sizeof(KeyValue), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots,
};

static void keep(PyObject **function, PyObject *given) {
    PyObject *before = *function;
    *function = Py_NewRef(given);
    Py_XDECREF(before);
}

/* key_value_class(encode_key_value, decode_row, split_row, show): the class, which asks these. Once. */
PyObject *key_value_class(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *encode, *decode, *split, *shown;
    if (!PyArg_ParseTuple(arguments, "OOOO", &encode, &decode, &split, &shown)) return NULL;
    if (key_value_type == NULL) {
        key_value_type = (PyTypeObject *)PyType_FromSpec(&spec);
        if (key_value_type == NULL) return NULL;
    }
    keep(&python_encode, encode);
    keep(&python_decode, decode);
    keep(&python_split, split);
    keep(&python_show, shown);
    return Py_NewRef((PyObject *)key_value_type);
}
