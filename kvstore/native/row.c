/* Rows: what keyvalue.py does with them.

       [ 78 varint(sub) ]  0a len key  10 create  18 mod  20 version  [ 2a len value ]  [ 30 lease ]
         sub revision > 0  '-------------------- KeyValue, fields in order ------------------------'

   A row is taken apart in one go, field by field in this order; each field may be missing, and then is 0 or empty.
   Fields in another order, twice, or of another kind are for protobuf's parser, which Python asks. */

#include "row.h"

#include "varint.h"

enum { SUB = 0x78, KEY = 0x0a, CREATED = 0x10, MODIFIED = 0x18, VERSION = 0x20, VALUE = 0x2a, LEASE = 0x30 };

/* --- taking apart: each step gives where the next one begins, NULL after something that is not as written --- */

static const uint8_t *take_number(const uint8_t *at, const uint8_t *end, uint8_t tag, int64_t *number) {
    uint64_t value = 0;
    if (at == NULL || at == end || *at != tag) return at;
    at = take_varint(at + 1, end, &value);
    *number = (int64_t)value;
    return at;
}

static const uint8_t *take_bytes(
    const uint8_t *at, const uint8_t *end, uint8_t tag, const uint8_t **bytes, Py_ssize_t *size) {
    uint64_t length = 0;
    if (at == NULL || at == end || *at != tag) return at;
    at = take_varint(at + 1, end, &length);
    if (at == NULL || length > (uint64_t)(end - at)) return NULL;
    *bytes = at;
    *size = (Py_ssize_t)length;
    return at + length;
}

int parse_row(const uint8_t *at, Py_ssize_t size, struct row *row) {
    const uint8_t *end = at + size;
    memset(row, 0, sizeof *row);
    row->key = row->value = end;
    if (size > INT32_MAX) return 0; /* more than protobuf takes */
    at = take_number(at, end, SUB, &row->sub);
    at = take_bytes(at, end, KEY, &row->key, &row->key_bytes);
    at = take_number(at, end, CREATED, &row->create_revision);
    at = take_number(at, end, MODIFIED, &row->mod_revision);
    at = take_number(at, end, VERSION, &row->version);
    at = take_bytes(at, end, VALUE, &row->value, &row->value_bytes);
    at = take_number(at, end, LEASE, &row->lease);
    return at == end && row->sub >= 0;
}

int parse_row_object(PyObject *object, struct row *row) {
    return PyBytes_CheckExact(object) && parse_row(bytes_of(object), PyBytes_GET_SIZE(object), row);
}

/* --- putting together --- */

static Py_ssize_t number_bytes(int64_t number) {
    return number ? 1 + varint_bytes((uint64_t)number) : 0;
}

static Py_ssize_t field_bytes(Py_ssize_t size) {
    return size ? 1 + varint_bytes((uint64_t)size) + size : 0;
}

static uint8_t *put_number(uint8_t *at, uint8_t tag, int64_t number) {
    if (!number) return at;
    *at++ = tag;
    return put_varint(at, (uint64_t)number);
}

static uint8_t *put_bytes(uint8_t *at, uint8_t tag, const uint8_t *bytes, Py_ssize_t size) {
    if (!size) return at;
    *at++ = tag;
    at = put_varint(at, (uint64_t)size);
    memcpy(at, bytes, (size_t)size);
    return at + size;
}

Py_ssize_t key_value_bytes(const struct row *row) {
    return field_bytes(row->key_bytes) + number_bytes(row->create_revision) + number_bytes(row->mod_revision) +
           number_bytes(row->version) + field_bytes(row->value_bytes) + number_bytes(row->lease);
}

uint8_t *put_key_value(uint8_t *at, const struct row *row) {
    at = put_bytes(at, KEY, row->key, row->key_bytes);
    at = put_number(at, CREATED, row->create_revision);
    at = put_number(at, MODIFIED, row->mod_revision);
    at = put_number(at, VERSION, row->version);
    at = put_bytes(at, VALUE, row->value, row->value_bytes);
    return put_number(at, LEASE, row->lease);
}

Py_ssize_t prefix_bytes(const struct row *row) {
    return number_bytes(row->sub);
}

uint8_t *put_prefix(uint8_t *at, const struct row *row) {
    return put_number(at, SUB, row->sub);
}

/* --- the functions of keyvalue.py, with its names --- */

static PyObject *encode_key_value(ARGUMENTS) {
    struct row row = {0};
    PyObject *encoded;
    if (!ARE_POSITIONAL(6) || !PyBytes_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[4]) ||
        !take_int(arguments[1], &row.create_revision) || !take_int(arguments[2], &row.mod_revision) ||
        !take_int(arguments[3], &row.version) || !take_int(arguments[5], &row.lease))
        return ASK_PYTHON;
    row.key = bytes_of(arguments[0]), row.key_bytes = PyBytes_GET_SIZE(arguments[0]);
    row.value = bytes_of(arguments[4]), row.value_bytes = PyBytes_GET_SIZE(arguments[4]);
    if (!row.key_bytes) return ASK_PYTHON;
    encoded = bytes_from(NULL, key_value_bytes(&row));
    if (encoded != NULL) put_key_value((uint8_t *)PyBytes_AS_STRING(encoded), &row);
    return encoded;
}

static PyObject *make_row(ARGUMENTS) {
    struct row row = {0};
    PyObject *made;
    Py_ssize_t size;
    if (!ARE_POSITIONAL(2) || !PyBytes_CheckExact(arguments[0]) || !take_int(arguments[1], &row.sub))
        return ASK_PYTHON;
    if (!row.sub) return Py_NewRef(arguments[0]);
    size = PyBytes_GET_SIZE(arguments[0]);
    made = bytes_from(NULL, prefix_bytes(&row) + size);
    if (made != NULL)
        memcpy(put_prefix((uint8_t *)PyBytes_AS_STRING(made), &row), bytes_of(arguments[0]), (size_t)size);
    return made;
}

static PyObject *split_row(ARGUMENTS) {
    struct row row;
    PyObject *bytes;
    if (!ARE_POSITIONAL(1) || !parse_row_object(arguments[0], &row)) return ASK_PYTHON;
    if (!row.sub) return PyBytes_GET_SIZE(arguments[0]) && *bytes_of(arguments[0]) == SUB
                             ? ASK_PYTHON
                             : Py_BuildValue("(iO)", 0, arguments[0]);
    bytes = arguments[0];
    return Py_BuildValue("(LN)", (long long)row.sub,
                         PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes) + prefix_bytes(&row),
                                                   PyBytes_GET_SIZE(bytes) - prefix_bytes(&row)));
}

static PyObject *decode_row(ARGUMENTS) {
    struct row row;
    PyObject *fields;
    if (!ARE_POSITIONAL(1) || !parse_row_object(arguments[0], &row)) return ASK_PYTHON;
    fields = PyTuple_New(6);
    if (fields == NULL) return NULL;
    if (fill(fields, 0, bytes_from(row.key, row.key_bytes)) &&
        fill(fields, 1, PyLong_FromLongLong(row.create_revision)) &&
        fill(fields, 2, PyLong_FromLongLong(row.mod_revision)) &&
        fill(fields, 3, PyLong_FromLongLong(row.version)) &&
        fill(fields, 4, bytes_from(row.value, row.value_bytes)) &&
        fill(fields, 5, PyLong_FromLongLong(row.lease)))
        return fields;
    Py_DECREF(fields);
    return NULL;
}

static PyObject *row_numbers(ARGUMENTS) {
    struct row row;
    PyObject *numbers;
    if (!ARE_POSITIONAL(1) || !parse_row_object(arguments[0], &row)) return ASK_PYTHON;
    numbers = PyTuple_New(4);
    if (numbers == NULL) return NULL;
    if (fill(numbers, 0, PyLong_FromLongLong(row.create_revision)) &&
        fill(numbers, 1, PyLong_FromLongLong(row.mod_revision)) &&
        fill(numbers, 2, PyLong_FromLongLong(row.version)) && fill(numbers, 3, PyLong_FromLongLong(row.lease)))
        return numbers;
    Py_DECREF(numbers);
    return NULL;
}

static PyObject *row_lease(ARGUMENTS) {
    struct row row;
    if (!ARE_POSITIONAL(1) || !parse_row_object(arguments[0], &row)) return ASK_PYTHON;
    return PyLong_FromLongLong(row.lease);
}

static PyObject *row_mod_revision(ARGUMENTS) {
    struct row row;
    if (!ARE_POSITIONAL(1) || !parse_row_object(arguments[0], &row)) return ASK_PYTHON;
    return PyLong_FromLongLong(row.mod_revision);
}

static PyObject *place_of(const struct row *row) {
    return pair(bytes_from(row->key, row->key_bytes), PyLong_FromLongLong(row->mod_revision));
}

static PyObject *revision_of(const struct row *row) {
    return pair(PyLong_FromLongLong(row->mod_revision), PyLong_FromLongLong(row->sub));
}

static PyObject *change_of(const struct row *row) {
    return pair(PyLong_FromLongLong(row->mod_revision), bytes_from(row->key, row->key_bytes));
}

static PyObject *row_place(ARGUMENTS) {
    struct row row;
    return ARE_POSITIONAL(1) && parse_row_object(arguments[0], &row) ? place_of(&row) : ASK_PYTHON;
}

static PyObject *row_revision(ARGUMENTS) {
    struct row row;
    return ARE_POSITIONAL(1) && parse_row_object(arguments[0], &row) ? revision_of(&row) : ASK_PYTHON;
}

/* What ``of_row`` gives for each row of a list (a row that may be None is an empty one); NULL without an exception if
   Python has to be asked. */
static PyObject *each_row(PyObject *rows, int or_none, PyObject *(*of_row)(const struct row *)) {
    PyObject *found;
    Py_ssize_t count;
    if (!PyList_CheckExact(rows)) return NULL;
    count = PyList_GET_SIZE(rows);
    found = PyList_New(count);
    for (Py_ssize_t at = 0; found != NULL && at < count; at++) {
        struct row row = {0};
        PyObject *object = at < PyList_GET_SIZE(rows) ? PyList_GET_ITEM(rows, at) : Py_False; /* it may shrink */
        PyObject *item = (or_none && object == Py_None) || parse_row_object(object, &row) ? of_row(&row) : NULL;
        if (item == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, at, item);
    }
    return found;
}

static PyObject *row_revisions(ARGUMENTS) {
    PyObject *found = ARE_POSITIONAL(1) ? each_row(arguments[0], 1, revision_of) : NULL;
    return found != NULL || PyErr_Occurred() ? found : ASK_PYTHON;
}

static PyObject *row_keys(ARGUMENTS) {
    PyObject *found = ARE_POSITIONAL(1) ? each_row(arguments[0], 0, change_of) : NULL;
    return found != NULL || PyErr_Occurred() ? found : ASK_PYTHON;
}

PyMethodDef row_functions[] = {
    FUNCTION(encode_key_value), FUNCTION(make_row),     FUNCTION(split_row),     FUNCTION(decode_row),
    FUNCTION(row_numbers),      FUNCTION(row_lease),    FUNCTION(row_mod_revision), FUNCTION(row_place),
    FUNCTION(row_revision),     FUNCTION(row_revisions), FUNCTION(row_keys),     END_OF_FUNCTIONS,
};
