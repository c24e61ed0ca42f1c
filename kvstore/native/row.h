/* Rows (keyvalue.py), taken apart and put together. */

#ifndef KVSTORE_ROW_H
#define KVSTORE_ROW_H

#include "native.h"

/* The fields of a row. Key and value point into it. */
struct row {
    const uint8_t *key, *value;
    Py_ssize_t key_bytes, value_bytes;
    int64_t sub, create_revision, mod_revision, version, lease;
};

/* Take a row apart. False if it is not as the store writes rows: perhaps damaged, perhaps not; Python tells. */
int parse_row(const uint8_t *at, Py_ssize_t size, struct row *row);

/* The same of any object; false if it is not bytes. */
int parse_row_object(PyObject *object, struct row *row);

/* How many bytes the fields take, without the prefix, and putting them down: ``KeyValue`` bytes. */
Py_ssize_t key_value_bytes(const struct row *row);
uint8_t *put_key_value(uint8_t *at, const struct row *row);

/* The prefix: nothing if ``sub`` is 0. */
Py_ssize_t prefix_bytes(const struct row *row);
uint8_t *put_prefix(uint8_t *at, const struct row *row);

#endif
