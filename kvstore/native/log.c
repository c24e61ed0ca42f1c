/* The log: frames and batches, as wal/format.py describes them.

       frame     | length u64 | 08 type 10 crc 1a len data 20 synced 2d check u32 | 0 ... 0 |
                              '--------------------- record ---------------------' padding to a multiple of 8
       data      08 first index  10 time  { 1a len entry } ...

   What is put together here is a batch frame; what is taken apart is any frame that is sound. Why a frame is not, Python
   finds out. Numbers are little-endian, byte by byte, so that this is right on every machine. */

#include "crc32c.h"
#include "native.h"
#include "varint.h"

enum { BATCH = 2, HEAD_BYTES_MAX = 8 + 2 + 1 + 5 + 1 + 10, TAIL_BYTES_MAX = 1 + 10 + 1 + 4 + 7 };
enum { CRC_KIND = 4, RECORD_BYTES_MIN = 2 + 2 + 2 + 5 };

#define LENGTH_BITS ((UINT64_C(1) << 56) - 1)
#define RECORD_BYTES_MAX (UINT64_C(1) << 30)
#define TOP_BIT (UINT32_C(1) << 31)

static uint8_t *put_u64(uint8_t *at, uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

static uint64_t u64_at(const uint8_t *at) {
    uint64_t value = 0;
    for (int byte = 7; byte >= 0; byte--) value = value << 8 | at[byte];
    return value;
}

static uint32_t u32_at(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The length field of a record of ``record_bytes``, and the check of its header. */

static int padding_of(uint64_t record_bytes) {
    return (int)(-record_bytes & 7);
}

static uint64_t length_field(uint64_t record_bytes) {
    int padding = padding_of(record_bytes);
    return padding ? record_bytes | (uint64_t)(0x80 | padding) << 56 : record_bytes;
}

static uint32_t check_of(uint32_t seed, uint64_t offset, uint64_t length, uint64_t kind, uint64_t crc, uint64_t synced) {
    uint8_t header[40], *at = header;
    at = put_u64(at, offset);
    at = put_u64(at, length);
    at = put_u64(at, kind);
    at = put_u64(at, crc);
    put_u64(at, synced);
    return crc32c(seed, header, sizeof header) | TOP_BIT;
}

/* --- putting together --- */

/* Where a frame goes and what came before it. */
struct place {
    uint64_t seed, offset, chain, synced;
};

static int take_place(PyObject *const *arguments, struct place *place) {
    return take_size(arguments[0], &place->seed) && take_size(arguments[1], &place->offset) &&
           take_size(arguments[2], &place->chain) && take_size(arguments[3], &place->synced) &&
           place->seed <= UINT32_MAX && place->chain <= UINT32_MAX;
}

/* Make the frame around the ``data_bytes`` bytes at ``data``, which stay where they are: there must be room for
   HEAD_BYTES_MAX before them and TAIL_BYTES_MAX after them. Returns where the frame begins, and in ``end`` where it
   ends. */
static uint8_t *frame_around(uint8_t *data, size_t data_bytes, const struct place *place, uint32_t crc, uint8_t **end) {
    uint8_t head[HEAD_BYTES_MAX], *at = head, *begin;
    uint64_t record_bytes, length;
    *at++ = 0x08, *at++ = BATCH, *at++ = 0x10;
    at = put_varint(at, crc);
    *at++ = 0x1a;
    at = put_varint(at, data_bytes);
    begin = data - (at - head) - 8;
    memcpy(begin + 8, head, (size_t)(at - head));
    at = data + data_bytes;
    *at++ = 0x20;
    at = put_varint(at, place->synced);
    *at++ = 0x2d;
    record_bytes = (uint64_t)(at + 4 - begin - 8);
    length = length_field(record_bytes);
    put_u64(begin, length);
    at = put_u32(at, check_of((uint32_t)place->seed, place->offset, length, BATCH, crc, place->synced));
    memset(at, 0, (size_t)padding_of(record_bytes));
    *end = at + padding_of(record_bytes);
    return begin;
}

/* The frame of a batch of one entry, and the chain after it. */
static PyObject *encode_lone(ARGUMENTS) {
    struct place place;
    uint64_t index, time_ms;
    uint8_t small[1024], *room = small, *at, *begin, *end;
    size_t entry_bytes, needed;
    uint32_t crc;
    PyObject *made;
    if (!ARE_POSITIONAL(7) || !take_place(arguments, &place) || !take_size(arguments[4], &index) ||
        !take_size(arguments[5], &time_ms) || !PyBytes_CheckExact(arguments[6]))
        return ASK_PYTHON;
    entry_bytes = (size_t)PyBytes_GET_SIZE(arguments[6]);
    needed = HEAD_BYTES_MAX + 3 + 3 * VARINT_BYTES_MAX + entry_bytes + TAIL_BYTES_MAX;
    if (needed > sizeof small && (room = PyMem_Malloc(needed)) == NULL) return PyErr_NoMemory();
    at = room + HEAD_BYTES_MAX;
    *at++ = 0x08;
    at = put_varint(at, index);
    *at++ = 0x10;
    at = put_varint(at, time_ms);
    *at++ = 0x1a;
    at = put_varint(at, entry_bytes);
    memcpy(at, bytes_of(arguments[6]), entry_bytes);
    at += entry_bytes;
    begin = room + HEAD_BYTES_MAX;
    crc = crc32c((uint32_t)place.chain, begin, (size_t)(at - begin));
    begin = frame_around(begin, (size_t)(at - begin), &place, crc, &end);
    made = Py_BuildValue("(Nk)", PyBytes_FromStringAndSize((const char *)begin, (Py_ssize_t)(end - begin)),
                         (unsigned long)crc);
    if (room != small) PyMem_Free(room);
    return made;
}

/* The data of a batch. */
static PyObject *encode_batch(ARGUMENTS) {
    uint64_t first, time_ms;
    PyObject *entries, *made;
    Py_ssize_t entries_count, size;
    uint8_t *at;
    if (!ARE_POSITIONAL(3) || !take_size(arguments[0], &first) || !take_size(arguments[1], &time_ms) ||
        !PyList_CheckExact(arguments[2]))
        return ASK_PYTHON;
    entries = arguments[2];
    entries_count = PyList_GET_SIZE(entries);
    size = 2 + varint_bytes(first) + varint_bytes(time_ms);
    for (Py_ssize_t number = 0; number < entries_count; number++) {
        PyObject *entry = PyList_GET_ITEM(entries, number);
        if (!PyBytes_CheckExact(entry)) return ASK_PYTHON;
        size += 1 + varint_bytes((uint64_t)PyBytes_GET_SIZE(entry)) + PyBytes_GET_SIZE(entry);
    }
    made = bytes_from(NULL, size);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    *at++ = 0x08;
    at = put_varint(at, first);
    *at++ = 0x10;
    at = put_varint(at, time_ms);
    for (Py_ssize_t number = 0; number < entries_count; number++) {
        PyObject *entry = PyList_GET_ITEM(entries, number);
        *at++ = 0x1a;
        at = put_varint(at, (uint64_t)PyBytes_GET_SIZE(entry));
        memcpy(at, bytes_of(entry), (size_t)PyBytes_GET_SIZE(entry));
        at += PyBytes_GET_SIZE(entry);
    }
    return made;
}

/* --- taking apart --- */

struct frame {
    uint64_t kind, crc, synced;
    const uint8_t *data;
    uint64_t data_bytes;
};

/* Take apart the frame that fills [at, end). False if it is not sound. */
static int parse_frame(const uint8_t *at, const uint8_t *end, uint64_t offset, uint32_t seed, struct frame *frame) {
    uint64_t length, record_bytes;
    const uint8_t *begin = at;
    if (end - at < 8 + RECORD_BYTES_MIN) return 0;
    length = u64_at(at);
    record_bytes = length & LENGTH_BITS;
    if (record_bytes > RECORD_BYTES_MAX || length != length_field(record_bytes) ||
        8 + record_bytes + (uint64_t)padding_of(record_bytes) != (uint64_t)(end - at))
        return 0;
    if (at[8] != 0x08 || at[10] != 0x10) return 0;
    frame->kind = at[9], frame->data_bytes = 0;
    at = take_varint(at + 11, end, &frame->crc);
    if (at == NULL || frame->crc > UINT32_MAX) return 0;
    if (frame->kind != CRC_KIND) {
        if (at == end || *at != 0x1a) return 0;
        at = take_varint(at + 1, end, &frame->data_bytes);
        if (at == NULL || frame->data_bytes > (uint64_t)(end - at)) return 0;
    }
    frame->data = at;
    at += frame->data_bytes;
    if (at == end || *at != 0x20) return 0;
    at = take_varint(at + 1, end, &frame->synced);
    if (at == NULL || end - at < 5 || *at != 0x2d) return 0;
    if (u32_at(at + 1) != check_of(seed, offset, length, frame->kind, frame->crc, frame->synced)) return 0;
    if ((uint64_t)(at + 5 - begin) != 8 + record_bytes) return 0;
    for (at += 5; at < end; at++)
        if (*at) return 0;
    return 1;
}

/* (offset, size, type, crc, synced, data) of a frame. */
static PyObject *frame_fields(ARGUMENTS) {
    uint64_t at, offset, size, seed;
    struct frame frame;
    const uint8_t *begin;
    if (!ARE_POSITIONAL(5) || !PyBytes_CheckExact(arguments[0]) || !take_size(arguments[1], &at) ||
        !take_size(arguments[2], &offset) || !take_size(arguments[3], &size) || !take_size(arguments[4], &seed))
        return ASK_PYTHON;
    if (seed > UINT32_MAX || at > (uint64_t)PyBytes_GET_SIZE(arguments[0]) ||
        size > (uint64_t)PyBytes_GET_SIZE(arguments[0]) - at)
        return ASK_PYTHON;
    begin = bytes_of(arguments[0]) + at;
    if (!parse_frame(begin, begin + size, offset, (uint32_t)seed, &frame)) return ASK_PYTHON;
    return Py_BuildValue("(OOKKKN)", arguments[2], arguments[3], (unsigned long long)frame.kind,
                         (unsigned long long)frame.crc, (unsigned long long)frame.synced,
                         PyBytes_FromStringAndSize((const char *)frame.data, (Py_ssize_t)frame.data_bytes));
}

/* Append the entries in [at, end) to a list. False, perhaps with an exception, if there is something else there. */
static int take_entries(const uint8_t *at, const uint8_t *end, PyObject *entries) {
    while (at < end) {
        uint64_t size;
        PyObject *entry;
        int failed;
        if (*at != 0x1a) return 0;
        at = take_varint(at + 1, end, &size);
        if (at == NULL || size > (uint64_t)(end - at)) return 0;
        entry = bytes_from(at, (Py_ssize_t)size);
        if (entry == NULL) return 0;
        failed = PyList_Append(entries, entry);
        Py_DECREF(entry);
        if (failed) return 0;
        at += size;
    }
    return 1;
}

/* (first index, time, entries) of the data of a batch. */
static PyObject *batch_fields(ARGUMENTS) {
    uint64_t first, time_ms;
    const uint8_t *at, *end;
    PyObject *entries;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0])) return ASK_PYTHON;
    at = bytes_of(arguments[0]);
    end = at + PyBytes_GET_SIZE(arguments[0]);
    if (at == end || *at != 0x08 || (at = take_varint(at + 1, end, &first)) == NULL) return ASK_PYTHON;
    if (at == end || *at != 0x10 || (at = take_varint(at + 1, end, &time_ms)) == NULL) return ASK_PYTHON;
    if (at == end) return ASK_PYTHON; /* without entries */
    entries = PyList_New(0);
    if (entries == NULL) return NULL;
    if (!take_entries(at, end, entries)) {
        Py_DECREF(entries);
        return PyErr_Occurred() ? NULL : ASK_PYTHON;
    }
    return Py_BuildValue("(KLN)", (unsigned long long)first, (long long)time_ms, entries);
}

PyMethodDef log_functions[] = {
    FUNCTION(encode_lone), FUNCTION(encode_batch), FUNCTION(frame_fields), FUNCTION(batch_fields), END_OF_FUNCTIONS,
};
