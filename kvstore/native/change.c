/* Changes on their way: from a put to its row and log entry, into a generation, out of the log, into the backend's tables.

       change        (main, sub, key, row)                    row None: the key is deleted (overlay.py)
       entry         08 main { 12 len KeyValue } ...          (effects.py)
       row of        key           escaped key 00 01 main sub        main sub
       a table       value         the row that ended                kind key
                                   -- history --                     -- changes --      (schema.py; numbers big-endian) */

#include "native.h"
#include "row.h"
#include "varint.h"

/* --- a put: its row, and its log entry (puts.py) --- */

/* The row of a put of ``key`` and ``value`` over ``old``. False if Python has to make it: ``old`` has a lease, or is
   strange. */
static int row_over(PyObject *old, PyObject *key, PyObject *value, uint64_t main, uint64_t sub, struct row *row) {
    struct row ended = {0};
    if (!PyBytes_CheckExact(key) || !PyBytes_CheckExact(value) || !PyBytes_GET_SIZE(key)) return 0;
    ended.create_revision = (int64_t)main;
    if (old != Py_None && (!parse_row_object(old, &ended) || ended.lease || ended.version == INT64_MAX)) return 0;
    *row = (struct row){
        .key = bytes_of(key), .key_bytes = PyBytes_GET_SIZE(key),
        .value = bytes_of(value), .value_bytes = PyBytes_GET_SIZE(value),
        .create_revision = ended.create_revision, .mod_revision = (int64_t)main,
        .version = ended.version + 1, .sub = (int64_t)sub,
    };
    return 1;
}

static Py_ssize_t put_effect_bytes(const struct row *row) {
    Py_ssize_t size = key_value_bytes(row);
    return 1 + varint_bytes((uint64_t)size) + size;
}

static uint8_t *put_effect(uint8_t *at, const struct row *row) {
    *at++ = 0x12;
    at = put_varint(at, (uint64_t)key_value_bytes(row));
    return put_key_value(at, row);
}

static uint8_t *put_revision(uint8_t *at, uint64_t main) {
    *at++ = 0x08;
    return put_varint(at, main);
}

static PyObject *row_bytes(const struct row *row) {
    PyObject *made = bytes_from(NULL, prefix_bytes(row) + key_value_bytes(row));
    if (made != NULL) put_key_value(put_prefix((uint8_t *)PyBytes_AS_STRING(made), row), row);
    return made;
}

/* plain_put(main, key, value, old): (row, entry). */
static PyObject *plain_put(ARGUMENTS) {
    uint64_t main;
    struct row row;
    PyObject *made, *entry;
    if (!ARE_POSITIONAL(4) || !take_size(arguments[0], &main) ||
        !row_over(arguments[3], arguments[1], arguments[2], main, 0, &row))
        return ASK_PYTHON;
    made = row_bytes(&row);
    entry = made == NULL ? NULL : bytes_from(NULL, 1 + varint_bytes(main) + put_effect_bytes(&row));
    if (entry != NULL) put_effect(put_revision((uint8_t *)PyBytes_AS_STRING(entry), main), &row);
    return pair(made, entry);
}

/* The change number ``sub`` of a transaction, from an op whose first two fields are key and value. Adds the bytes of its
   effect to ``size``. NULL without an exception if Python has to make it. */
static PyObject *change_of_put(PyObject *op, PyObject *old, PyObject *main, uint64_t revision, Py_ssize_t sub,
                               Py_ssize_t *size) {
    struct row row;
    PyObject *change, *key;
    if (!PyTuple_Check(op) || PyTuple_GET_SIZE(op) < 2) return NULL;
    key = PyTuple_GET_ITEM(op, 0);
    if (!row_over(old, key, PyTuple_GET_ITEM(op, 1), revision, (uint64_t)sub, &row)) return NULL;
    *size += put_effect_bytes(&row);
    change = PyTuple_New(4);
    if (change == NULL) return NULL;
    PyTuple_SET_ITEM(change, 0, Py_NewRef(main));
    PyTuple_SET_ITEM(change, 2, Py_NewRef(key));
    if (fill(change, 1, PyLong_FromSsize_t(sub)) && fill(change, 3, row_bytes(&row))) return change;
    Py_DECREF(change);
    return NULL;
}

/* The entry of changes that are all puts: each row without its prefix. */
static PyObject *entry_of(PyObject *changes, uint64_t main, Py_ssize_t size) {
    PyObject *entry = bytes_from(NULL, 1 + varint_bytes(main) + size);
    uint8_t *at;
    if (entry == NULL) return NULL;
    at = put_revision((uint8_t *)PyBytes_AS_STRING(entry), main);
    for (Py_ssize_t sub = 0; sub < PyList_GET_SIZE(changes); sub++) {
        PyObject *row = PyTuple_GET_ITEM(PyList_GET_ITEM(changes, sub), 3);
        Py_ssize_t skipped = sub ? 1 + varint_bytes((uint64_t)sub) : 0, length = PyBytes_GET_SIZE(row) - skipped;
        *at++ = 0x12;
        at = put_varint(at, (uint64_t)length);
        memcpy(at, bytes_of(row) + skipped, (size_t)length);
        at += length;
    }
    return entry;
}

/* plain_puts(main, ops, olds): (changes, entry). */
static PyObject *plain_puts(ARGUMENTS) {
    uint64_t main;
    Py_ssize_t puts, size = 0;
    PyObject *ops, *olds, *changes;
    if (!ARE_POSITIONAL(3) || !take_size(arguments[0], &main) || !PyList_CheckExact(arguments[1]) ||
        !PyList_CheckExact(arguments[2]) || PyList_GET_SIZE(arguments[1]) != PyList_GET_SIZE(arguments[2]))
        return ASK_PYTHON;
    puts = PyList_GET_SIZE(arguments[1]);
    ops = PyList_AsTuple(arguments[1]); /* these do not change meanwhile */
    olds = ops == NULL ? NULL : PyList_AsTuple(arguments[2]);
    changes = olds == NULL || PyTuple_GET_SIZE(olds) != puts ? NULL : PyList_New(puts);
    for (Py_ssize_t sub = 0; changes != NULL && sub < puts; sub++) {
        PyObject *change = change_of_put(PyTuple_GET_ITEM(ops, sub), PyTuple_GET_ITEM(olds, sub), arguments[0], main,
                                         sub, &size);
        if (change == NULL)
            Py_CLEAR(changes);
        else
            PyList_SET_ITEM(changes, sub, change);
    }
    Py_XDECREF(ops);
    Py_XDECREF(olds);
    if (changes == NULL) return PyErr_Occurred() ? NULL : ASK_PYTHON;
    return pair(changes, entry_of(changes, main, size));
}

/* The change and the log entry of an op at a revision of its own. NULL without an exception if Python has to make them. */
static PyObject *lone_put(PyObject *op, PyObject *old, uint64_t revision, PyObject *rows) {
    PyObject *main, *change = NULL, *entry, *earlier;
    Py_ssize_t size = 0;
    if (!PyTuple_Check(op) || PyTuple_GET_SIZE(op) < 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(op, 0))) return NULL;
    earlier = PyDict_GetItemWithError(rows, PyTuple_GET_ITEM(op, 0));
    if (earlier == NULL && PyErr_Occurred()) return NULL;
    main = PyLong_FromUnsignedLongLong(revision);
    if (main != NULL) change = change_of_put(op, earlier == NULL ? old : earlier, main, revision, 0, &size);
    Py_XDECREF(main);
    if (change == NULL) return NULL;
    if (PyDict_SetItem(rows, PyTuple_GET_ITEM(change, 2), PyTuple_GET_ITEM(change, 3)) < 0) {
        Py_DECREF(change);
        return NULL;
    }
    entry = bytes_from(NULL, 1 + varint_bytes(revision) + size);
    if (entry != NULL) {
        PyObject *row = PyTuple_GET_ITEM(change, 3); /* of sub revision 0, so without a prefix */
        uint8_t *at = put_revision((uint8_t *)PyBytes_AS_STRING(entry), revision);
        *at++ = 0x12;
        at = put_varint(at, (uint64_t)PyBytes_GET_SIZE(row));
        memcpy(at, bytes_of(row), (size_t)PyBytes_GET_SIZE(row));
    }
    return pair(change, entry);
}

/* lone_puts(main, ops, olds): [(change, entry), ...]. */
static PyObject *lone_puts(ARGUMENTS) {
    uint64_t main;
    Py_ssize_t puts;
    PyObject *ops, *olds, *rows, *made;
    if (!ARE_POSITIONAL(3) || !take_size(arguments[0], &main) || !PyList_CheckExact(arguments[1]) ||
        !PyList_CheckExact(arguments[2]) || PyList_GET_SIZE(arguments[1]) != PyList_GET_SIZE(arguments[2]))
        return ASK_PYTHON;
    puts = PyList_GET_SIZE(arguments[1]);
    if (main > (uint64_t)(INT64_MAX - puts)) return ASK_PYTHON;
    ops = PyList_AsTuple(arguments[1]); /* these do not change meanwhile */
    olds = ops == NULL ? NULL : PyList_AsTuple(arguments[2]);
    rows = olds == NULL || PyTuple_GET_SIZE(olds) != puts ? NULL : PyDict_New();
    made = rows == NULL ? NULL : PyList_New(puts);
    for (Py_ssize_t at = 0; made != NULL && at < puts; at++) {
        PyObject *put = lone_put(PyTuple_GET_ITEM(ops, at), PyTuple_GET_ITEM(olds, at), main + (uint64_t)at, rows);
        if (put == NULL)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, at, put);
    }
    Py_XDECREF(ops);
    Py_XDECREF(olds);
    Py_XDECREF(rows);
    if (made == NULL) return PyErr_Occurred() ? NULL : ASK_PYTHON;
    return made;
}

/* Add the bytes of a plain put of a key that is not among ``keys`` yet. 0: it is something else; -1: an exception. */
static int add_plain_put(PyObject *op, PyObject *kind, PyObject *keys, Py_ssize_t *size) {
    Py_ssize_t before = PySet_Size(keys);
    if ((PyObject *)Py_TYPE(op) != kind || !PyTuple_Check(op) || PyTuple_GET_SIZE(op) != 6) return 0;
    if (!PyBytes_CheckExact(PyTuple_GET_ITEM(op, 0)) || !PyBytes_CheckExact(PyTuple_GET_ITEM(op, 1))) return 0;
    if (!PyBytes_GET_SIZE(PyTuple_GET_ITEM(op, 0))) return 0;
    for (int option = 2; option < 6; option++)
        if (option != 3) {
            int is_set = PyObject_IsTrue(PyTuple_GET_ITEM(op, option));
            if (is_set) return is_set < 0 ? -1 : 0;
        }
    if (PySet_Add(keys, PyTuple_GET_ITEM(op, 0)) < 0) return -1;
    *size += PyBytes_GET_SIZE(PyTuple_GET_ITEM(op, 0)) + PyBytes_GET_SIZE(PyTuple_GET_ITEM(op, 1));
    return PySet_Size(keys) > before;
}

/* The same of a range that is the plain one but for its key. */
static int add_plain_range(PyObject *op, PyObject *plain, Py_ssize_t *size) {
    if (PyTuple_GET_SIZE(op) != PyTuple_GET_SIZE(plain) || !PyTuple_GET_SIZE(op)) return 0;
    if (!PyBytes_CheckExact(PyTuple_GET_ITEM(op, 0)) || !PyBytes_GET_SIZE(PyTuple_GET_ITEM(op, 0))) return 0;
    for (Py_ssize_t at = 1; at < PyTuple_GET_SIZE(op); at++)
        if (PyTuple_GET_ITEM(op, at) != PyTuple_GET_ITEM(plain, at)) return 0;
    *size += PyBytes_GET_SIZE(PyTuple_GET_ITEM(op, 0));
    return 1;
}

/* The same of ops that are all plain. ``plain_range`` may be NULL: then none is a range. */
static int add_plain_ops(PyObject *ops, PyObject *put_kind, PyObject *plain_range, Py_ssize_t *size) {
    PyObject *keys = PySet_New(NULL);
    int is_plain = keys == NULL ? -1 : 1;
    for (Py_ssize_t at = 0; is_plain > 0 && at < PyTuple_GET_SIZE(ops); at++) {
        PyObject *op = PyTuple_GET_ITEM(ops, at);
        is_plain = plain_range != NULL && Py_TYPE(op) == Py_TYPE(plain_range)
                       ? add_plain_range(op, plain_range, size)
                       : add_plain_put(op, put_kind, keys, size);
    }
    Py_XDECREF(keys);
    return is_plain;
}

/* plain_ops_bytes(ops, kind): the bytes of keys and values, if all is plain (validate.py). */
static PyObject *plain_ops_bytes(ARGUMENTS) {
    Py_ssize_t size = 0;
    if (!ARE_POSITIONAL(2) || !PyTuple_CheckExact(arguments[0])) return ASK_PYTHON;
    if (add_plain_ops(arguments[0], arguments[1], NULL, &size) > 0) return PyLong_FromSsize_t(size);
    PyErr_Clear();
    return ASK_PYTHON;
}

/* The same of a compare of a single key. */
static int add_plain_compare(PyObject *compare, PyObject *kind, Py_ssize_t *size) {
    enum { KEY, TARGET, RESULT, OPERAND, RANGE_END, FIELDS, VALUE_TARGET = 3 };
    PyObject *key, *operand, *range_end;
    long target, result;
    int overflows;
    if ((PyObject *)Py_TYPE(compare) != kind || !PyTuple_Check(compare) || PyTuple_GET_SIZE(compare) != FIELDS) return 0;
    key = PyTuple_GET_ITEM(compare, KEY), operand = PyTuple_GET_ITEM(compare, OPERAND);
    range_end = PyTuple_GET_ITEM(compare, RANGE_END);
    if (!PyBytes_CheckExact(key) || !PyBytes_GET_SIZE(key) || !PyBytes_CheckExact(range_end) ||
        PyBytes_GET_SIZE(range_end) || !PyLong_Check(PyTuple_GET_ITEM(compare, TARGET)) ||
        !PyLong_Check(PyTuple_GET_ITEM(compare, RESULT)))
        return 0;
    target = PyLong_AsLongAndOverflow(PyTuple_GET_ITEM(compare, TARGET), &overflows);
    result = PyLong_AsLongAndOverflow(PyTuple_GET_ITEM(compare, RESULT), &overflows);
    if (target < 0 || target > 4 || result < 0 || result > 3) return 0; /* -1 where it overflows */
    if (target != VALUE_TARGET) {
        if (!PyLong_CheckExact(operand)) return 0;
    } else if (!PyBytes_CheckExact(operand)) {
        return 0;
    } else {
        *size += PyBytes_GET_SIZE(operand);
    }
    *size += PyBytes_GET_SIZE(key);
    return 1;
}

/* plain_parts_bytes(compares, branches, kinds): the bytes of keys, values and operands, if all is plain. */
static PyObject *plain_parts_bytes(ARGUMENTS) {
    Py_ssize_t size = 0;
    PyObject *compares, *branches, *kinds;
    int is_plain = 1;
    if (!ARE_POSITIONAL(3)) return ASK_PYTHON;
    compares = arguments[0], branches = arguments[1], kinds = arguments[2];
    if (!PyTuple_CheckExact(compares) || !PyTuple_CheckExact(branches) || !PyTuple_CheckExact(kinds) ||
        PyTuple_GET_SIZE(kinds) != 3 || !PyTuple_Check(PyTuple_GET_ITEM(kinds, 2)))
        return ASK_PYTHON;
    for (Py_ssize_t at = 0; is_plain > 0 && at < PyTuple_GET_SIZE(compares); at++)
        is_plain = add_plain_compare(PyTuple_GET_ITEM(compares, at), PyTuple_GET_ITEM(kinds, 0), &size);
    for (Py_ssize_t at = 0; is_plain > 0 && at < PyTuple_GET_SIZE(branches); at++)
        is_plain = !PyTuple_CheckExact(PyTuple_GET_ITEM(branches, at))
                       ? 0
                       : add_plain_ops(PyTuple_GET_ITEM(branches, at), PyTuple_GET_ITEM(kinds, 1),
                                       PyTuple_GET_ITEM(kinds, 2), &size);
    if (is_plain > 0) return PyLong_FromSsize_t(size);
    PyErr_Clear();
    return ASK_PYTHON;
}

/* --- a generation (overlay.py) --- */

/* Whether it is (int, int, bytes, bytes or None). */
static int is_change(PyObject *change) {
    return PyTuple_CheckExact(change) && PyTuple_GET_SIZE(change) == 4 &&
           PyLong_CheckExact(PyTuple_GET_ITEM(change, 0)) && PyLong_CheckExact(PyTuple_GET_ITEM(change, 1)) &&
           PyBytes_CheckExact(PyTuple_GET_ITEM(change, 2)) &&
           (PyTuple_GET_ITEM(change, 3) == Py_None || PyBytes_CheckExact(PyTuple_GET_ITEM(change, 3)));
}

/* A new reference to the value of a key; NULL, perhaps with an exception, if there is none. */
static PyObject *value_at(PyObject *dict, PyObject *key) {
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
}

/* Put an earlier change at the end of its key's list. */
static int keep_earlier(PyObject *earlier, PyObject *key, PyObject *change) {
    PyObject *list = value_at(earlier, key);
    int failed;
    if (list == NULL) {
        if (PyErr_Occurred() || (list = PyList_New(0)) == NULL) return -1;
        if (PyDict_SetItem(earlier, key, list) < 0) {
            Py_DECREF(list);
            return -1;
        }
    }
    failed = PyList_Append(list, change);
    Py_DECREF(list);
    return failed;
}

static int add_change(PyObject *newest, PyObject *earlier, PyObject *order, PyObject *changes, PyObject *change) {
    PyObject *key = PyTuple_GET_ITEM(change, 2), *before = value_at(newest, key);
    int failed;
    if (before == NULL)
        failed = PyErr_Occurred() ? -1 : PyList_Append(order, key);
    else /* the earlier ones come first: a reader may look at any moment */
        failed = keep_earlier(earlier, key, before);
    Py_XDECREF(before);
    return failed || PyDict_SetItem(newest, key, change) < 0 || PyList_Append(changes, change) < 0 ? -1 : 0;
}

/* Whether these are changes, and ``earlier`` has lists where it has anything for their keys. */
static int can_be_added(PyObject *added, PyObject *earlier) {
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(added); at++) {
        PyObject *change = PyTuple_GET_ITEM(added, at), *list;
        if (!is_change(change)) return 0;
        list = PyDict_GetItemWithError(earlier, PyTuple_GET_ITEM(change, 2));
        if (list != NULL ? !PyList_CheckExact(list) : PyErr_Occurred() != NULL) return 0;
    }
    return 1;
}

/* add_changes(newest, earlier, order, changes, added): the bytes of the rows, and of the keys that are deleted. */
static PyObject *add_changes(ARGUMENTS) {
    PyObject *added;
    Py_ssize_t size = 0;
    if (!ARE_POSITIONAL(5) || !PyDict_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[1]) ||
        !PyList_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[3]) ||
        !(PyTuple_CheckExact(arguments[4]) || PyList_CheckExact(arguments[4])))
        return ASK_PYTHON;
    added = PySequence_Tuple(arguments[4]); /* it does not change meanwhile */
    if (added == NULL) return NULL;
    if (!can_be_added(added, arguments[1])) {
        Py_DECREF(added);
        PyErr_Clear();
        return ASK_PYTHON;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(added); at++) {
        PyObject *change = PyTuple_GET_ITEM(added, at), *row = PyTuple_GET_ITEM(change, 3);
        if (add_change(arguments[0], arguments[1], arguments[2], arguments[3], change) < 0) {
            Py_DECREF(added);
            return NULL;
        }
        size += PyBytes_GET_SIZE(row != Py_None && PyBytes_GET_SIZE(row) ? row : PyTuple_GET_ITEM(change, 2));
    }
    Py_DECREF(added);
    return PyLong_FromSsize_t(size);
}

/* newest_rows(newest, keys, found): fill ``found`` with the rows of the keys that are in one of the dicts, the first that
   has it; the list of the other keys. */
static PyObject *newest_rows(ARGUMENTS) {
    PyObject *dicts, *keys, *missing, *found;
    if (!ARE_POSITIONAL(3) || !PyTuple_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1]) ||
        !PyDict_CheckExact(arguments[2]))
        return ASK_PYTHON;
    dicts = arguments[0], found = arguments[2];
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(dicts); at++)
        if (!PyDict_CheckExact(PyTuple_GET_ITEM(dicts, at))) return ASK_PYTHON;
    keys = PyList_AsTuple(arguments[1]);
    missing = keys == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t at = 0; missing != NULL && at < PyTuple_GET_SIZE(keys); at++) {
        PyObject *key = PyTuple_GET_ITEM(keys, at), *change = NULL;
        int failed;
        for (Py_ssize_t dict = 0; change == NULL && !PyErr_Occurred() && dict < PyTuple_GET_SIZE(dicts); dict++)
            change = value_at(PyTuple_GET_ITEM(dicts, dict), key);
        if (change == NULL)
            failed = PyErr_Occurred() ? -1 : PyList_Append(missing, key);
        else if (!PyTuple_Check(change) || PyTuple_GET_SIZE(change) < 4)
            failed = 1;
        else
            failed = PyDict_SetItem(found, key, PyTuple_GET_ITEM(change, 3));
        Py_XDECREF(change);
        if (failed) Py_CLEAR(missing);
    }
    Py_XDECREF(keys);
    return missing != NULL || PyErr_Occurred() ? missing : ASK_PYTHON;
}

/* --- the log entry of one put, taken apart (effects.py) --- */

/* lone_put_of(entry): (revision, mod_revision, key, KeyValue bytes); None if the entry is another. */
static PyObject *lone_put_of(ARGUMENTS) {
    uint64_t main, length;
    const uint8_t *at, *end;
    struct row row;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0])) return ASK_PYTHON;
    at = bytes_of(arguments[0]);
    end = at + PyBytes_GET_SIZE(arguments[0]);
    if (at == end || *at != 0x08 || (at = take_varint(at + 1, end, &main)) == NULL) return ASK_PYTHON;
    if (at == end || *at != 0x12 || (at = take_varint(at + 1, end, &length)) == NULL) return ASK_PYTHON;
    if (length != (uint64_t)(end - at) || !parse_row(at, end - at, &row) || !row.key_bytes || row.sub) return ASK_PYTHON;
    return Py_BuildValue("(KLNN)", (unsigned long long)main, (long long)row.mod_revision,
                         PyBytes_FromStringAndSize((const char *)row.key, row.key_bytes),
                         PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)length));
}

/* --- a checkpoint (checkpoint.py) --- */

static uint8_t *put_big_endian(uint8_t *at, uint64_t value) {
    for (int shift = 56; shift >= 0; shift -= 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

static PyObject *history_key_of(PyObject *key, uint64_t main, uint64_t sub) {
    const uint8_t *from = bytes_of(key), *end = from + PyBytes_GET_SIZE(key);
    Py_ssize_t zeros = 0;
    PyObject *made;
    uint8_t *at;
    for (const uint8_t *byte = from; byte < end; byte++) zeros += !*byte;
    made = bytes_from(NULL, end - from + zeros + 2 + 16);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    while (from < end)
        if (!(*at++ = *from++)) *at++ = 0xff;
    *at++ = 0, *at++ = 1;
    put_big_endian(put_big_endian(at, main), sub);
    return made;
}

static PyObject *revision_key_of(uint64_t main, uint64_t sub) {
    uint8_t key[16];
    put_big_endian(put_big_endian(key, main), sub);
    return bytes_from(key, sizeof key);
}

static PyObject *kind_and_key(char kind, PyObject *key) {
    PyObject *made = bytes_from(NULL, 1 + PyBytes_GET_SIZE(key));
    if (made == NULL) return NULL;
    *PyBytes_AS_STRING(made) = kind;
    memcpy(PyBytes_AS_STRING(made) + 1, bytes_of(key), (size_t)PyBytes_GET_SIZE(key));
    return made;
}

/* Append a new object. */
static int append(PyObject *list, PyObject *object) {
    int failed = object == NULL ? -1 : PyList_Append(list, object);
    Py_XDECREF(object);
    return failed;
}

/* The rows of one change. 1: Python has to make them; -1: an exception. */
static int add_table_rows(PyObject *change, PyObject *now, PyObject *history, PyObject *named) {
    uint64_t main, sub;
    PyObject *key, *row, *ended;
    int failed = 0;
    char kind;
    if (!is_change(change) || !take_size(PyTuple_GET_ITEM(change, 0), &main) ||
        !take_size(PyTuple_GET_ITEM(change, 1), &sub))
        return 1;
    key = PyTuple_GET_ITEM(change, 2), row = PyTuple_GET_ITEM(change, 3);
    ended = value_at(now, key);
    if (ended == NULL || (ended == Py_None && row == Py_None)) {
        Py_XDECREF(ended);
        PyErr_Clear();
        return 1;
    }
    kind = row == Py_None ? 'd' : ended == Py_None ? 'c' : 'u';
    if (ended != Py_None) failed = append(history, pair(history_key_of(key, main, sub), Py_NewRef(ended)));
    Py_DECREF(ended);
    if (!failed) failed = append(named, pair(revision_key_of(main, sub), kind_and_key(kind, key)));
    if (!failed) failed = PyDict_SetItem(now, key, row);
    return failed;
}

/* table_rows(changes, now, history, named): append the rows of the changes, and leave in ``now`` what they leave. */
static PyObject *table_rows(ARGUMENTS) {
    PyObject *changes, *rest[4], *answer = NULL;
    Py_ssize_t at = 0;
    int failed = 0;
    if (!ARE_POSITIONAL(4) || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[1]) ||
        !PyList_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[3]))
        return ASK_PYTHON;
    changes = PyList_AsTuple(arguments[0]); /* these do not change meanwhile */
    if (changes == NULL) return NULL;
    for (; !failed && at < PyTuple_GET_SIZE(changes); at += !failed)
        failed = add_table_rows(PyTuple_GET_ITEM(changes, at), arguments[1], arguments[2], arguments[3]);
    if (!failed) {
        answer = Py_NewRef(Py_None);
    } else if (failed > 0) { /* Python goes on with the first that is out of the ordinary */
        rest[0] = PySequence_GetSlice(changes, at, PyTuple_GET_SIZE(changes));
        rest[1] = arguments[1], rest[2] = arguments[2], rest[3] = arguments[3];
        if (rest[0] != NULL) answer = PyObject_Vectorcall(python, rest, 4, NULL);
        Py_XDECREF(rest[0]);
    }
    Py_DECREF(changes);
    return answer;
}

PyMethodDef change_functions[] = {
    FUNCTION(plain_put),   FUNCTION(plain_puts), FUNCTION(lone_puts), FUNCTION(plain_ops_bytes), FUNCTION(plain_parts_bytes), FUNCTION(add_changes),
    FUNCTION(newest_rows), FUNCTION(lone_put_of), FUNCTION(table_rows),     END_OF_FUNCTIONS,
};
