/* etcd's messages. Requests, from protobuf to tuples, as etcdpb/requests.py reads them: those that clients send all the
   time. And of answers, the header and a key that was found, as etcdpb/responses.py writes them; and those to a put and a
   range, as a client's remote/answers.py reads them, and those two requests, as its remote/encoding.py writes them.

       PutRequest    1 key  2 value  3 lease  4 prev_kv  5 ignore_value  6 ignore_lease
       TxnRequest    1 compare *  2 success *  3 failure *
       Compare       1 result  2 target  3 key  4 version | 5 create | 6 mod | 7 value | 8 lease  64 range_end
       RequestOp     1 RangeRequest, of a key alone | 2 PutRequest
       RangeRequest  1 key      -->     RangeResponse  1 header  2 KeyValue *  3 more  4 count
       PutRequest               -->     PutResponse  1 header  2 KeyValue, before
                                        ResponseHeader  1 cluster id  2 member id  3 revision  4 raft term

   Fields in any order; of one that comes twice the last counts. Any other field, and whatever has no meaning, is for
   Python. A reader's NULL without an exception says so. */

#include "native.h"
#include "row.h"
#include "varint.h"

enum { VARINT = 0, BYTES = 2 };

struct field {
    uint64_t number;
    int kind;
    uint64_t value; /* of a varint */
    const uint8_t *bytes;
    Py_ssize_t size;
};

/* Take a field apart. Where the next one begins; NULL if this is none that is known here. */
static const uint8_t *take_field(const uint8_t *at, const uint8_t *end, struct field *field) {
    uint64_t tag, length;
    if ((at = take_varint(at, end, &tag)) == NULL || tag > UINT32_MAX) return NULL;
    field->number = tag >> 3, field->kind = (int)(tag & 7);
    if (field->kind == VARINT) return take_varint(at, end, &field->value);
    if (field->kind != BYTES || (at = take_varint(at, end, &length)) == NULL || length > (uint64_t)(end - at))
        return NULL;
    field->bytes = at, field->size = (Py_ssize_t)length;
    return at + length;
}

/* A named tuple of that class, from a new tuple of its fields. */
static PyObject *named(PyObject *kind, PyObject *fields) {
    newfunc make = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *arguments = fields == NULL ? NULL : PyTuple_New(1), *made = NULL;
    if (arguments == NULL) {
        Py_XDECREF(fields);
        return NULL;
    }
    PyTuple_SET_ITEM(arguments, 0, fields);
    made = make((PyTypeObject *)kind, arguments, NULL);
    Py_DECREF(arguments);
    return made;
}

/* --- puts --- */

static PyObject *put_fields_of(const uint8_t *at, const uint8_t *end) {
    struct field field, key = {0}, value = {0};
    int64_t lease = 0;
    int options[3] = {0};
    PyObject *made;
    key.bytes = value.bytes = end;
    while (at < end) {
        if ((at = take_field(at, end, &field)) == NULL) return NULL;
        if (field.number == 1 && field.kind == BYTES) key = field;
        else if (field.number == 2 && field.kind == BYTES) value = field;
        else if (field.number == 3 && field.kind == VARINT) lease = (int64_t)field.value;
        else if (field.number >= 4 && field.number <= 6 && field.kind == VARINT)
            options[field.number - 4] = field.value != 0;
        else return NULL;
    }
    made = PyTuple_New(6);
    if (made == NULL) return NULL;
    for (int option = 0; option < 3; option++) PyTuple_SET_ITEM(made, 3 + option, PyBool_FromLong(options[option]));
    if (fill(made, 0, bytes_from(key.bytes, key.size)) && fill(made, 1, bytes_from(value.bytes, value.size)) &&
        fill(made, 2, PyLong_FromLongLong(lease)))
        return made;
    Py_DECREF(made);
    return NULL;
}

/* put_fields(message): (key, value, lease, prev_kv, ignore_value, ignore_lease). */
static PyObject *put_fields(ARGUMENTS) {
    PyObject *made;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0]) || PyBytes_GET_SIZE(arguments[0]) > INT32_MAX)
        return ASK_PYTHON;
    made = put_fields_of(bytes_of(arguments[0]), bytes_of(arguments[0]) + PyBytes_GET_SIZE(arguments[0]));
    return made != NULL || PyErr_Occurred() ? made : ASK_PYTHON;
}

/* --- transactions: ``kinds`` is (TxnRequest, Compare, PutRequest, a RangeRequest of a key alone) --- */

enum { TXN, COMPARE, PUT, PLAIN_RANGE, KINDS };

static int are_kinds(PyObject *kinds) {
    if (!PyTuple_CheckExact(kinds) || PyTuple_GET_SIZE(kinds) != KINDS) return 0;
    for (Py_ssize_t at = 0; at < PLAIN_RANGE; at++) {
        PyObject *kind = PyTuple_GET_ITEM(kinds, at);
        if (!PyType_Check(kind) || !PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type)) return 0;
    }
    return PyTuple_Check(PyTuple_GET_ITEM(kinds, PLAIN_RANGE)) &&
           PyTuple_GET_SIZE(PyTuple_GET_ITEM(kinds, PLAIN_RANGE)) > 0;
}

static PyObject *compare_of(const uint8_t *at, const uint8_t *end, PyObject *kinds) {
    enum { VALUE_TARGET = 3, TARGET_MAX = 4, RESULT_MAX = 3, FIRST_OPERAND = 4, LAST_OPERAND = 8 };
    struct field field, key = {0}, range_end = {0}, operand = {0};
    uint64_t result = 0, target = 0;
    PyObject *made;
    key.bytes = range_end.bytes = operand.bytes = end;
    while (at < end) {
        if ((at = take_field(at, end, &field)) == NULL) return NULL;
        if (field.number == 1 && field.kind == VARINT) result = field.value;
        else if (field.number == 2 && field.kind == VARINT) target = field.value;
        else if (field.number == 3 && field.kind == BYTES) key = field;
        else if (field.number == 64 && field.kind == BYTES) range_end = field;
        else if (field.number >= FIRST_OPERAND && field.number <= LAST_OPERAND && !operand.number &&
                 field.kind == (field.number == FIRST_OPERAND + VALUE_TARGET ? BYTES : VARINT))
            operand = field;
        else return NULL;
    }
    if (target > TARGET_MAX || result > RESULT_MAX) return NULL;
    if (operand.number != FIRST_OPERAND + target) operand.value = 0, operand.size = 0; /* another's counts as absent */
    made = PyTuple_New(5);
    if (made == NULL) return NULL;
    if (fill(made, 0, bytes_from(key.bytes, key.size)) && fill(made, 1, PyLong_FromLong((long)target)) &&
        fill(made, 2, PyLong_FromLong((long)result)) &&
        fill(made, 3, target == VALUE_TARGET ? bytes_from(operand.bytes, operand.size)
                                             : PyLong_FromLongLong((int64_t)operand.value)) &&
        fill(made, 4, bytes_from(range_end.bytes, range_end.size)))
        return named(PyTuple_GET_ITEM(kinds, COMPARE), made);
    Py_DECREF(made);
    return NULL;
}

/* The plain range, with another key. */
static PyObject *range_of(const uint8_t *at, const uint8_t *end, PyObject *kinds) {
    struct field key;
    PyObject *plain = PyTuple_GET_ITEM(kinds, PLAIN_RANGE), *made;
    if (at == end || take_field(at, end, &key) != end || key.number != 1 || key.kind != BYTES || !key.size) return NULL;
    made = PyTuple_New(PyTuple_GET_SIZE(plain));
    if (made == NULL) return NULL;
    for (Py_ssize_t each = 1; each < PyTuple_GET_SIZE(plain); each++)
        PyTuple_SET_ITEM(made, each, Py_NewRef(PyTuple_GET_ITEM(plain, each)));
    if (fill(made, 0, bytes_from(key.bytes, key.size))) return named((PyObject *)Py_TYPE(plain), made);
    Py_DECREF(made);
    return NULL;
}

static PyObject *op_of(const uint8_t *at, const uint8_t *end, PyObject *kinds) {
    struct field op;
    PyObject *fields;
    if (at == end || take_field(at, end, &op) != end || op.kind != BYTES) return NULL;
    if (op.number == 1) return range_of(op.bytes, op.bytes + op.size, kinds);
    if (op.number != 2) return NULL;
    fields = put_fields_of(op.bytes, op.bytes + op.size);
    return fields == NULL ? NULL : named(PyTuple_GET_ITEM(kinds, PUT), fields);
}

static int add_part(PyObject *lists[3], const struct field *field, PyObject *kinds) {
    PyObject *(*read)(const uint8_t *, const uint8_t *, PyObject *) = field->number == 1 ? compare_of : op_of;
    PyObject *part;
    int failed;
    if (field->kind != BYTES || field->number < 1 || field->number > 3) return 0;
    part = read(field->bytes, field->bytes + field->size, kinds);
    failed = part == NULL || PyList_Append(lists[field->number - 1], part) < 0;
    Py_XDECREF(part);
    return !failed;
}

static PyObject *txn_of(const uint8_t *at, const uint8_t *end, PyObject *kinds) {
    PyObject *lists[3] = {PyList_New(0), PyList_New(0), PyList_New(0)}, *made = NULL;
    struct field field;
    int is_good = lists[0] != NULL && lists[1] != NULL && lists[2] != NULL;
    while (is_good && at < end) is_good = (at = take_field(at, end, &field)) != NULL && add_part(lists, &field, kinds);
    if (is_good && (made = PyTuple_New(3)) != NULL)
        for (int part = 0; part < 3; part++)
            if (made != NULL && !fill(made, part, PyList_AsTuple(lists[part]))) Py_CLEAR(made);
    for (int part = 0; part < 3; part++) Py_XDECREF(lists[part]);
    return made == NULL ? NULL : named(PyTuple_GET_ITEM(kinds, TXN), made);
}

/* txn_request(message, kinds): a TxnRequest. */
static PyObject *txn_request(ARGUMENTS) {
    PyObject *made;
    if (!ARE_POSITIONAL(2) || !PyBytes_CheckExact(arguments[0]) || PyBytes_GET_SIZE(arguments[0]) > INT32_MAX ||
        !are_kinds(arguments[1]))
        return ASK_PYTHON;
    made = txn_of(bytes_of(arguments[0]), bytes_of(arguments[0]) + PyBytes_GET_SIZE(arguments[0]), arguments[1]);
    return made != NULL || PyErr_Occurred() ? made : ASK_PYTHON;
}

/* --- answers --- */

enum { HEADER_TAG = 0x0a, REVISION_TAG = 0x18 };

/* header_field(ids, revision, term): the header, around what is known of it already. */
static PyObject *header_field(ARGUMENTS) {
    int64_t revision;
    Py_ssize_t ids_bytes, term_bytes, size;
    PyObject *made;
    uint8_t *at;
    if (!ARE_POSITIONAL(3) || !PyBytes_CheckExact(arguments[0]) || !take_int(arguments[1], &revision) ||
        !PyBytes_CheckExact(arguments[2]))
        return ASK_PYTHON;
    ids_bytes = PyBytes_GET_SIZE(arguments[0]), term_bytes = PyBytes_GET_SIZE(arguments[2]);
    size = ids_bytes + (revision ? 1 + varint_bytes((uint64_t)revision) : 0) + term_bytes;
    made = bytes_from(NULL, 1 + varint_bytes((uint64_t)size) + size);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    *at++ = HEADER_TAG;
    at = put_varint(at, (uint64_t)size);
    memcpy(at, bytes_of(arguments[0]), (size_t)ids_bytes), at += ids_bytes;
    if (revision) *at++ = REVISION_TAG, at = put_varint(at, (uint64_t)revision);
    memcpy(at, bytes_of(arguments[2]), (size_t)term_bytes);
    return made;
}

/* --- the range of a key --- */

enum { KEY_TAG = 0x0a, VALUE_TAG = 0x12, SUB_TAG = 0x78, KVS_TAG = 0x12, COUNT_TAG = 0x20, SHORT_END = 0x80 };

/* lone_key(message): the key of a range that says nothing else, None of another. */
static PyObject *lone_key(ARGUMENTS) {
    const uint8_t *at;
    Py_ssize_t size;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0])) return ASK_PYTHON;
    at = bytes_of(arguments[0]), size = PyBytes_GET_SIZE(arguments[0]) - 2;
    if (size < 1 || size >= SHORT_END || at[0] != KEY_TAG || at[1] != size) return Py_NewRef(Py_None);
    return bytes_from(at + 2, size);
}

/* found_row(head, row): the answer, in which the row is without its prefix. */
static PyObject *found_row(ARGUMENTS) {
    struct row row;
    const uint8_t *head, *kv;
    Py_ssize_t head_bytes, kv_bytes;
    PyObject *made;
    uint8_t *at;
    if (!ARE_POSITIONAL(2) || !PyBytes_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[1])) return ASK_PYTHON;
    head = bytes_of(arguments[0]), head_bytes = PyBytes_GET_SIZE(arguments[0]);
    kv = bytes_of(arguments[1]), kv_bytes = PyBytes_GET_SIZE(arguments[1]);
    if (!kv_bytes) return ASK_PYTHON;
    if (*kv != KEY_TAG) {
        if (*kv != SUB_TAG || !parse_row(kv, kv_bytes, &row) || !row.sub) return ASK_PYTHON;
        kv += prefix_bytes(&row), kv_bytes -= prefix_bytes(&row);
    }
    made = bytes_from(NULL, head_bytes + 1 + varint_bytes((uint64_t)kv_bytes) + kv_bytes + 2);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    memcpy(at, head, (size_t)head_bytes), at += head_bytes;
    *at++ = KVS_TAG;
    at = put_varint(at, (uint64_t)kv_bytes);
    memcpy(at, kv, (size_t)kv_bytes), at += kv_bytes;
    *at++ = COUNT_TAG, *at++ = 1;
    return made;
}

/* --- requests, as a client writes them --- */

static uint8_t *put_bytes_field(uint8_t *at, uint8_t tag, PyObject *bytes) {
    *at++ = tag;
    at = put_varint(at, (uint64_t)PyBytes_GET_SIZE(bytes));
    memcpy(at, bytes_of(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    return at + PyBytes_GET_SIZE(bytes);
}

/* Of some bytes; 0 if they are none, or not of that very type. */
static Py_ssize_t field_bytes(PyObject *bytes) {
    if (!PyBytes_CheckExact(bytes) || !PyBytes_GET_SIZE(bytes)) return 0;
    return 1 + varint_bytes((uint64_t)PyBytes_GET_SIZE(bytes)) + PyBytes_GET_SIZE(bytes);
}

/* get_message(key). */
static PyObject *get_message(ARGUMENTS) {
    PyObject *made;
    Py_ssize_t size = ARE_POSITIONAL(1) ? field_bytes(arguments[0]) : 0;
    if (!size) return ASK_PYTHON;
    made = bytes_from(NULL, size);
    if (made != NULL) put_bytes_field((uint8_t *)PyBytes_AS_STRING(made), KEY_TAG, arguments[0]);
    return made;
}

/* put_message(request): of one without options, (key, value, lease, prev_kv, ignore_value, ignore_lease). */
static PyObject *put_message(ARGUMENTS) {
    PyObject *request, *made;
    Py_ssize_t key_bytes, value_bytes;
    int64_t lease;
    uint8_t *at;
    if (!ARE_POSITIONAL(1) || !PyTuple_Check(arguments[0]) || PyTuple_GET_SIZE(arguments[0]) != 6) return ASK_PYTHON;
    request = arguments[0];
    if (!(key_bytes = field_bytes(PyTuple_GET_ITEM(request, 0))) ||
        !(value_bytes = field_bytes(PyTuple_GET_ITEM(request, 1))) ||
        !take_int(PyTuple_GET_ITEM(request, 2), &lease) || lease)
        return ASK_PYTHON;
    for (int option = 3; option < 6; option++)
        if (PyTuple_GET_ITEM(request, option) != Py_False) return ASK_PYTHON;
    made = bytes_from(NULL, key_bytes + value_bytes);
    if (made == NULL) return NULL;
    at = put_bytes_field((uint8_t *)PyBytes_AS_STRING(made), KEY_TAG, PyTuple_GET_ITEM(request, 0));
    put_bytes_field(at, VALUE_TAG, PyTuple_GET_ITEM(request, 1));
    return made;
}

/* --- answers, as a client reads them: (cluster id, member id, revision, what else there is) --- */

struct header {
    int is_there;
    uint64_t cluster_id, member_id;
    int64_t revision;
};

/* Whether the field is the header, and the first one, and nothing is in it that is not known here. */
static int take_header(const struct field *field, struct header *header) {
    const uint8_t *at = field->bytes, *end = at + field->size;
    struct field part;
    if (field->number != 1 || field->kind != BYTES || header->is_there) return 0;
    header->is_there = 1;
    while (at < end) {
        if ((at = take_field(at, end, &part)) == NULL || part.kind != VARINT) return 0;
        if (part.number == 1) header->cluster_id = part.value;
        else if (part.number == 2) header->member_id = part.value;
        else if (part.number == 3) header->revision = (int64_t)part.value;
        else if (part.number != 4) return 0;
    }
    return 1;
}

/* The answer, of a new body. */
static PyObject *answer_of(const struct header *header, PyObject *body) {
    PyObject *made = body == NULL ? NULL : PyTuple_New(4);
    if (made == NULL) {
        Py_XDECREF(body);
        return NULL;
    }
    PyTuple_SET_ITEM(made, 3, body);
    if (fill(made, 0, PyLong_FromUnsignedLongLong(header->cluster_id)) &&
        fill(made, 1, PyLong_FromUnsignedLongLong(header->member_id)) &&
        fill(made, 2, PyLong_FromLongLong(header->revision)))
        return made;
    Py_DECREF(made);
    return NULL;
}

/* put_answer(message): with (revision, the row before or None). */
static PyObject *put_answer(ARGUMENTS) {
    struct header header = {0};
    struct field field, row = {0};
    const uint8_t *at, *end;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0]) || PyBytes_GET_SIZE(arguments[0]) > INT32_MAX)
        return ASK_PYTHON;
    at = bytes_of(arguments[0]), end = at + PyBytes_GET_SIZE(arguments[0]);
    while (at < end) {
        if ((at = take_field(at, end, &field)) == NULL) return ASK_PYTHON;
        if (field.number == 2 && field.kind == BYTES) row = field;
        else if (!take_header(&field, &header)) return ASK_PYTHON;
    }
    return answer_of(&header, pair(PyLong_FromLongLong(header.revision),
                                   row.number ? bytes_from(row.bytes, row.size) : Py_NewRef(Py_None)));
}

/* range_answer(message): with (revision, rows, more, count). */
static PyObject *range_answer(ARGUMENTS) {
    struct header header = {0};
    struct field field;
    const uint8_t *at, *end;
    int64_t more = 0, number_of_keys = 0;
    PyObject *rows, *row, *body;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0]) || PyBytes_GET_SIZE(arguments[0]) > INT32_MAX)
        return ASK_PYTHON;
    if ((rows = PyList_New(0)) == NULL) return NULL;
    at = bytes_of(arguments[0]), end = at + PyBytes_GET_SIZE(arguments[0]);
    while (at != NULL && at < end) {
        if ((at = take_field(at, end, &field)) == NULL) break;
        if (field.number == 2 && field.kind == BYTES) {
            row = bytes_from(field.bytes, field.size);
            if (row == NULL || PyList_Append(rows, row) < 0) {
                Py_XDECREF(row);
                Py_DECREF(rows);
                return NULL;
            }
            Py_DECREF(row);
        } else if (field.number == 3 && field.kind == VARINT) more = field.value != 0;
        else if (field.number == 4 && field.kind == VARINT) number_of_keys = (int64_t)field.value;
        else if (!take_header(&field, &header)) at = NULL;
    }
    if (at == NULL) {
        Py_DECREF(rows);
        return ASK_PYTHON;
    }
    body = PyTuple_New(4);
    if (body == NULL) {
        Py_DECREF(rows);
        return NULL;
    }
    PyTuple_SET_ITEM(body, 1, rows);
    PyTuple_SET_ITEM(body, 2, PyBool_FromLong((long)more));
    if (fill(body, 0, PyLong_FromLongLong(header.revision)) && fill(body, 3, PyLong_FromLongLong(number_of_keys)))
        return answer_of(&header, body);
    Py_DECREF(body);
    return NULL;
}

PyMethodDef message_functions[] = {
    FUNCTION(put_fields), FUNCTION(txn_request), FUNCTION(header_field), FUNCTION(lone_key),
    FUNCTION(found_row),  FUNCTION(get_message), FUNCTION(put_message),  FUNCTION(put_answer),
    FUNCTION(range_answer), END_OF_FUNCTIONS,
};
